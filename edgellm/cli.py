"""The command line: the table of verbs, and how one is found and run.

    edgellm --help

A verb is a function in a module of `edgellm/commands/`. Its module is imported when the verb runs or its own help is
shown, so that `edgellm --help` and completion stay fast.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

from edgellm import exit_codes
from edgellm.early import leave_on_interrupt
from edgellm.errors import EdgellmError, UsageError
from edgellm.exit_codes import ExitCode
from edgellm.failures import JSON_WANTED, failures, too_little
from edgellm.ui import habits
from edgellm.ui.streams import prepare_streams
from edgellm.version import __version__

if TYPE_CHECKING:
    from edgellm.ui.defaults import OptionSetting

COMMANDS = "edgellm.commands"
# Verbs that must work when the config file is wrong.
MENDERS = frozenset({"config", "doctor"})
HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}
# What `--ray` takes for its value, right or wrong; without one it stands for `auto`.
RAY_ADDRESS = re.compile(r"auto|ray://\S*|[^\s/]*:[^\s/]*")
# Python with numpy, the largest library that most verbs need, and room to work.
LEAST_ADDRESS_SPACE = 180_000_000


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb: where its function is (MODULE:FUNCTION in `edgellm.commands`) and its line in `edgellm --help`.

    An alias is hidden, and `same_as` names the verb that JSON reports. `takes_negatives`: -1 may be an argument.
    """

    place: str
    line: str
    hidden: bool = False
    same_as: str = ""
    takes_negatives: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """A verb that has verbs of its own, such as `chats`, and its line in `edgellm --help`."""

    line: str
    verbs: Mapping[str, Verb]


VERBS: Mapping[str, Verb | Family] = {
    "run": Verb("run:run", "Answer one prompt."),
    "chat": Verb("chat:chat", "Talk to a model; the chat is saved as it goes."),
    "batch": Verb("batch:batch", "Answer all prompts of a file, several at once; resumable."),
    "serve": Verb("serve:serve", "Serve models over the APIs of OpenAI, Ollama and Anthropic."),
    "worker": Verb("worker:worker", "Hold a part of a model for another machine."),
    "mcp": Verb("mcp:mcp", "Offer models and documents to other programs, as an MCP server."),
    "tools": Verb("tools:tools", "List the tools that a model may call, and what is missing."),
    "ps": Verb("ps:ps", "Show the running servers and what their models do."),
    "stop": Verb("stop:stop", "Stop a server: answers under way may end first."),
    "env": Verb("env:env", "Print the variables that clients of the server read."),
    "connect": Verb("connect:connect", "Print what to enter in a client of the server."),
    "pull": Verb("pull:pull", "Fetch a model and check its sha256."),
    "list": Verb("list:list_models", "List the installed models, or those that can be pulled."),
    "ls": Verb("list:list_models", "The same as list.", hidden=True, same_as="list"),
    "search": Verb("search:search", "Search recipes, and the Hugging Face Hub when online."),
    "show": Verb("show:show", "Show a model's architecture, size, tensor types and context."),
    "tokenize": Verb("tokenize:tokenize", "Show the tokens of a text."),
    "fit": Verb("fit:fit", "Show whether a model fits into memory, and what would fit."),
    "import": Verb("import_model:import_model", "Make a GGUF file known by a name."),
    "verify": Verb("verify:verify", "Check that installed files are still what they were."),
    "quality": Verb("quality:quality", "Measure perplexity and KL divergence."),
    "eval": Verb("eval:evaluate", "Measure how good a model's answers are, and what changed."),
    "bench": Verb("bench:bench", "Measure speed and memory, and what limits them."),
    "tune": Verb("tune:tune", "Measure what runs a model fastest here, and remember it."),
    "rm": Verb("rm:rm", "Remove models from this machine."),
    "prune": Verb("prune:prune", "Delete unfinished downloads and files that no model uses."),
    "convert": Verb("convert:convert", "Convert a checkpoint to GGUF without loss."),
    "quantize": Verb("quantize:quantize", "Quantize a model."),
    "finetune": Verb("finetune:finetune", "Train a model on your own examples."),
    "doctor": Verb("doctor:doctor", "Check this machine; really generate a few tokens."),
    "completion": Verb("completion:completion", "Print the script that completes verbs, options and models."),
    "version": Verb("version:version", "Print the version.", hidden=True),
    "chats": Family(
        "The saved chats: list, show, search, rename, export, remove.",
        {
            "ls": Verb("chats:list_chats", "List the chats, the latest first."),
            "list": Verb("chats:list_chats", "The same as ls.", hidden=True, same_as="ls"),
            "show": Verb("chats:show", "Show a chat."),
            "search": Verb("chats:search", "Search in all messages, in any language."),
            "rename": Verb("chats:rename", "Give a chat a title."),
            "export": Verb("chats:export", "Write a chat as Markdown or JSON."),
            "rm": Verb("chats:rm", "Remove chats for good: their text is overwritten."),
        },
    ),
    "docs": Family(
        "The user's documents: add, search, show, sync, remove.",
        {
            "add": Verb("docs:add", "Read files and folders into a collection."),
            "ls": Verb("docs:list_collections", "List the collections."),
            "list": Verb("docs:list_collections", "The same as ls.", hidden=True, same_as="ls"),
            "show": Verb("docs:show", "Show the files of a collection."),
            "sync": Verb("docs:sync", "Read what changed."),
            "search": Verb("docs:search", "Find passages by words and by meaning."),
            "ask": Verb("docs:ask", "Answer a question, with quotations that are checked."),
            "rm": Verb("docs:rm", "Remove collections; the documents stay."),
        },
    ),
    "cache": Family(
        "The answer cache: list, show, remove, count, check.",
        {
            "ls": Verb("cache:list_answers", "List the stored answers, the latest used first."),
            "list": Verb("cache:list_answers", "The same as ls.", hidden=True, same_as="ls"),
            "show": Verb("cache:show", "Show a stored answer."),
            "rm": Verb("cache:rm", "Remove stored answers for good."),
            "stats": Verb("cache:stats", "Count the answers and the questions that they answered."),
            "check": Verb("cache:check", "Say whether two questions would have one answer."),
        },
    ),
    "config": Family(
        "Show or change the config file, which keeps values of options.",
        {
            "show": Verb("config:show", "Show what is set, in the file and in the environment."),
            "get": Verb("config:get", "Print the value that an option has."),
            "set": Verb("config:set_value", "Set a value in the file.", takes_negatives=True),
            "unset": Verb("config:unset", "Remove a value from the file."),
            "path": Verb("config:path", "Print where the file is."),
            "edit": Verb("config:edit", "Open the file in an editor, then check it."),
        },
    ),
    "engine": Family(
        "Build the engine, or show what is built.",
        {
            "build": Verb("engine:build", "Fetch llama.cpp, patch it, and compile it for this CPU."),
            "status": Verb("engine:status", "Show which engine is built, from what, and for which CPU."),
        },
    ),
}


def full_names() -> dict[str, Verb]:
    """Every verb by its full name, "chats ls" for one of a family; without aliases."""
    found: dict[str, Verb] = {}
    for name, verb in VERBS.items():
        if isinstance(verb, Verb):
            found[name] = verb
        else:
            found |= {f"{name} {member}": it for member, it in verb.verbs.items()}
    return {name: verb for name, verb in found.items() if not verb.hidden}


def function_of(verb: Verb) -> Any:
    """The verb's function; imports its module."""
    module, _, name = verb.place.partition(":")
    return getattr(importlib.import_module(f"{COMMANDS}.{module}"), name)


class VerbCommand(TyperCommand):
    """A verb with its options; those that are not typed come from the environment and the config file.

    Typer reads the variables that `expand` named, and asks `FileValues` for the rest. What is wrong there is refused by
    the name of the variable, or by the line of the file.
    """

    verb = ""
    settings: Sequence[OptionSetting] = ()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse what was typed, and fill in the rest; completion and `--help` look neither here nor there."""
        if not ctx.resilient_parsing:
            ctx.default_map = self._file_values(ctx)
        with self._naming_origins(ctx):
            rest: list[str] = super().parse_args(ctx, args)
        self._leave_out(ctx)
        ctx.meta[JSON_WANTED] = bool(ctx.params.get("as_json"))
        return rest

    def get_help(self, ctx: Any) -> str:
        """The help, which does not depend on the config file."""
        ctx.default_map = None
        return str(super().get_help(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; an error that speaks of an option says where that came from."""
        with self._naming_origins(ctx):
            return super().invoke(ctx)

    def _file_values(self, ctx: Any) -> Any:
        from edgellm.config_file import ConfigFile
        from edgellm.settings import Settings
        from edgellm.ui.defaults import FileValues
        from edgellm.ui.options import COMMON

        def read() -> ConfigFile:
            return ConfigFile.read(Settings.from_environment().config_file)

        def model() -> str | None:
            name: str | None = ctx.params.get("model")
            resumed = ctx.params.get("go_on") or ctx.params.get("chat_id")
            if name is None and self.verb == "chat" and not resumed:
                from edgellm.settings import DEFAULT_MODEL

                return DEFAULT_MODEL
            return name

        mends = self.verb.split()[0] in MENDERS
        return FileValues(read, self.verb, self.settings, COMMON, [*full_names()], model, is_tolerant=mends)

    def _origin(self, ctx: Any, setting: OptionSetting) -> str:
        """Where an option's value comes from, in words; empty when it was typed or is the default."""
        source = ctx.get_parameter_source(setting.name)
        word = source.name if source else ""
        if word == "ENVIRONMENT":
            return setting.variable
        return str(ctx.default_map.origin_of(setting.name)) if word == "DEFAULT_MAP" else ""

    @contextlib.contextmanager
    def _naming_origins(self, ctx: Any) -> Iterator[None]:
        """Name the variable, or the line of the file, in errors about options that nobody typed."""
        try:
            yield
        except typer.BadParameter as error:
            name = getattr(error.param, "name", None)
            for setting in self.settings:
                if setting.name == name and (origin := self._origin(ctx, setting)):
                    why = setting.problem(os.environ.get(setting.variable, "")) or error.message.rstrip(".")
                    raise UsageError(f"{origin}: {why}", hint=f"mend it, or type {setting.flag}") from None
            raise
        except EdgellmError as error:
            from edgellm.ui.defaults import with_origins

            origins = {each.flag: self._origin(ctx, each) for each in self.settings}
            with_origins(error, {flag: origin for flag, origin in origins.items() if origin})
            raise

    def _leave_out(self, ctx: Any) -> None:
        """Take back settings that something typed excludes."""
        from edgellm.ui.defaults import EXCLUDED_BY

        typed = {each.flag for each in self.settings if _is_typed(ctx, each)}
        for each in self.settings:
            if not typed.isdisjoint(EXCLUDED_BY.get(each.flag, ())) and self._origin(ctx, each):
                ctx.params[each.name] = each.default


def _is_typed(ctx: Any, setting: OptionSetting) -> bool:
    source = ctx.get_parameter_source(setting.name)
    return source is not None and source.name == "COMMANDLINE"


class LazyCommand(TyperCommand):
    """A verb by name and line only; the real command is loaded when it is run, completed, or asked for help."""

    def __init__(self, name: str, verb: Verb, family: str = "") -> None:
        super().__init__(name, short_help=verb.line, hidden=verb.hidden, rich_markup_mode=None)
        self.verb = verb
        self.full_name = f"{family} {verb.same_as or name}".strip()

    def load(self) -> Any:
        """The real command, with its options and help."""
        from edgellm.ui.options import expand

        callback = expand(function_of(self.verb), command=self.full_name)
        how = HELP_OPTIONS | ({"ignore_unknown_options": True} if self.verb.takes_negatives else {})
        info = CommandInfo(name=self.name, cls=VerbCommand, callback=callback, context_settings=how)
        command: Any = get_command_from_info(info, pretty_exceptions_short=False, rich_markup_mode=None)
        command.verb, command.settings = self.full_name, vars(callback)["settings"]
        return command

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the arguments with the real command; one that begins with a model also takes it as `-m MODEL`."""
        command = self.load()
        takes_model = command.params and command.params[0].name in ("model", "models")
        if takes_model and not any("-m" in parameter.opts for parameter in command.params):
            args = habits.model_first(args)
        if any("--ray" in parameter.opts for parameter in command.params):
            args = habits.value_given(args, "--ray", "auto", RAY_ADDRESS)
        return command.make_context(info_name, args, parent=parent, **extra)


class FamilyCommand(TyperGroup):
    """A verb with verbs of its own."""

    def __init__(self, name: str, family: Family) -> None:
        verbs: dict[str, Any] = {each: LazyCommand(each, verb, name) for each, verb in family.verbs.items()}
        super().__init__(
            name=name,
            commands=verbs,
            help=family.line,
            no_args_is_help=True,
            rich_markup_mode=None,
            context_settings=HELP_OPTIONS,
        )


class VerbSettings(Mapping[str, Sequence["OptionSetting"]]):
    """The options of each verb by its full name; a verb is imported when its options are asked for."""

    def __getitem__(self, name: str) -> Sequence[OptionSetting]:
        *family, own = name.split()
        settings: Sequence[OptionSetting] = LazyCommand(own, full_names()[name], " ".join(family)).load().settings
        return settings

    def __iter__(self) -> Iterator[str]:
        return iter(full_names())

    def __len__(self) -> int:
        return len(full_names())


def _commands() -> dict[str, Any]:
    return {
        name: LazyCommand(name, verb) if isinstance(verb, Verb) else FamilyCommand(name, verb)
        for name, verb in VERBS.items()
    }


class Root(TyperGroup):
    """The `edgellm` command: an expected failure ends in one message and its exit code, a bug in a traceback."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{**settings, "commands": _commands()})
        self._arguments: tuple[str, ...] = ()

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Parse the command line; help and version print here."""
        args = habits.spelled(args)
        self._arguments = tuple(args)
        with failures(self._arguments, command_of):
            return super().make_context(info_name, args, parent, **extra)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb; for one of another tool the error names ours."""
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            if args[0] in habits.VERBS:
                error.message = f"No such command {args[0]!r}. Did you mean {habits.VERBS[args[0]]!r}?"
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        with failures(self._arguments, command_of, ctx.meta):
            try:
                return super().invoke(ctx)
            finally:  # also before an exit code of the verb's own: a closed pipe must be noticed here, not at exit
                sys.stdout.flush()


def command_of(arguments: Sequence[str]) -> str | None:
    """The verb that a command line names, "chats ls" for one of a family; None when it names none."""
    words = [word for word in arguments if not word.startswith("-")]
    verb = VERBS.get(words[0]) if words else None
    if isinstance(verb, Family):
        member = verb.verbs.get(words[1]) if len(words) > 1 else None
        return f"{words[0]} {member.same_as or words[1]}" if member else words[0]
    return (verb.same_as or words[0]) if verb else None


app = typer.Typer(
    cls=Root,
    name="edgellm",
    help="Small, ternary and 4-bit language models on ordinary CPUs.",
    epilog=exit_codes.summary(),
    pretty_exceptions_enable=False,
    # Plain help: rendering it with rich would take longer than all the rest of the start.
    rich_markup_mode=None,
    context_settings=HELP_OPTIONS,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgellm {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Small, ternary and 4-bit language models on ordinary CPUs."""
    ctx.obj = VerbSettings()
    if ctx.invoked_subcommand is None:
        from edgellm.commands.overview import overview

        overview()


def main() -> None:
    """Entry point."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        # Without the console: its libraries would not find enough memory either.
        error = too_little()
        sys.stderr.write(
            f"error: {error.what}\n  {limit / 1e6:.0f} MB of address space (ulimit -v), "
            f"{LEAST_ADDRESS_SPACE / 1e6:.0f} MB are needed\n  try: {error.hint}\n"
        )
        sys.exit(error.exit_code)
    if limit != resource.RLIM_INFINITY:
        from edgellm.machine.arena import share_one_arena

        share_one_arena()
    prepare_streams()
    sys.unraisablehook = _keep_interrupt
    # numpy's BLAS would take memory and a thread for every core, and we never compute products with it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # As an exception, so that unfinished work is put away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ExitCode.TERMINATED))
    try:
        app()
    finally:  # what Python does before it ends must not show an interrupt either
        leave_on_interrupt()


def _keep_interrupt(lost: sys.UnraisableHookArgs) -> None:
    """Ctrl-C in a callback that cannot raise, as imports have them, comes again a moment later."""
    if lost.exc_type is KeyboardInterrupt:
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(lost)
