"""Options that several verbs share, spelled and explained once, and the groups in which a verb asks for them.

    def run(model: Model, *, sampling: SamplingFlags, output: QuietOutput) -> Answered: ...
    app.command()(expand(run, command="run"))  # --temp, --top-k ..., --json, --quiet

`expand` names the variable of each option, EDGELLM_<FLAG>; an option whose flag means something else in other verbs
declares a variable of its own. The sampling options are those of `engine/sampling.py`: one that is added there is an
option of every verb that has `SamplingFlags`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import OptionInfo, ParameterInfo

from edgellm.early import raise_on_interrupt
from edgellm.engine.sampling import OPTIONS, RANDOM_SEED, SamplingOption
from edgellm.text import typed_text
from edgellm.ui.defaults import OptionSetting, variable_of


class DraftMode(str, Enum):
    """Whether to compute drafted tokens."""

    AUTO = "auto"
    OFF = "off"


class LoopAction(str, Enum):
    """What to do with an answer that repeats itself endlessly."""

    STOP = "stop"
    RETRY = "retry"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document; errors are JSON too.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]
Docs = Annotated[
    str | None,
    typer.Option("--docs", metavar="NAME", help="Answer from this collection of documents; `edgellm docs ls` lists."),
]
Tools = Annotated[
    list[str] | None,
    typer.Option(
        "--tools",
        metavar="NAME,...",
        help="Let the model call these tools, or all; `edgellm tools` lists. NAME:WHERE says where it looks; the name "
        "of an MCP server stands for all its tools.",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow", metavar="NAME,...", help="Let these tools run without a question."),
]
McpFile = Annotated[
    Path | None,
    typer.Option(
        "--mcp", exists=True, dir_okay=False, metavar="FILE", show_default=False,
        help="The file of MCP servers, whose names --tools knows. [default: mcp.json beside config.toml]",
    ),
]  # fmt: skip
YesTools = Annotated[bool, typer.Option("--yes-tools", help="Let every tool run without a question; for scripts.")]
ReportPath = Annotated[
    Path | None,
    typer.Option("--report", metavar="FILE", help="Also write a report: a page (.html), its charts (.svg, .png)."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Never use the network.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither look into the answer cache nor keep the answer.")]
AnswerCaching = Annotated[
    bool,
    typer.Option("--answer-cache", help="Keep answers, and give them again for questions that mean the same."),
]
AnswersSampled = Annotated[
    bool,
    typer.Option("--answer-cache-sampled", help="Also keep answers that were drawn at temperatures above 0."),
]
AnswerError = Annotated[
    float,
    typer.Option(
        "--answer-cache-error", min=0.0, max=0.5, help="The part of answers from the cache that may be wrong; 0: none."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Go on even if memory seems too small.")]
ContextSize = Annotated[
    int | None,
    typer.Option(
        "--ctx-size",
        "-c",
        "--num-ctx",
        min=8,
        help="Context in tokens. [default: the model's own, within a quarter of the memory]",
    ),
]
KVType = Annotated[
    str | None,
    typer.Option(
        "--kv",
        metavar="TYPE",
        help="Type of the KV cache: f16, q8_0 (half the memory), q4_0 ... [default: f16]",
    ),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="Stay below this, e.g. 1.5GB, by choosing context and cache type.",
    ),
]
PromptCaching = Annotated[
    str | None,
    typer.Option(
        "--prompt-cache",
        metavar="SIZE|off",
        help="Keep prompts on disk, in so much space, so that they are not read again. "
        "[default: a tenth of the free disk, at most 4 GB]",
    ),
]
MaxTokens = Annotated[
    int,
    typer.Option("--max-tokens", "-n", "--num-predict", min=-1, help="Tokens to generate at most; -1: no limit."),
]
MaxTime = Annotated[
    float | None,
    typer.Option(
        "--max-time",
        min=0.001,
        help="Stop an answer after so many seconds. [default: none]",
    ),
]
Stop = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End an answer before this text; can be repeated; \\n is a new line."),
]
Guard = Annotated[
    bool,
    typer.Option(
        "--loop-guard/--no-loop-guard",
        help="Stop an answer that repeats endlessly.",
    ),
]
OnLoop = Annotated[
    LoopAction,
    typer.Option("--on-loop", help="At a loop: stop, or retry once from before it."),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-t",
        min=1,
        max=1024,
        help="Threads. [default: the fast physical cores available]",
    ),
]
Tuned = Annotated[
    bool, typer.Option("--tuned/--no-tuned", help="Compute as `edgellm tune` found fastest, if it was run.")
]
Draft = Annotated[
    DraftMode,
    typer.Option("--draft", help="Draft tokens from the text so far where that is faster; the answers are the same."),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora",
        metavar="FILE[:SCALE]",
        help="Answer with this adapter: a GGUF file, PEFT's directory, or the name of one that was pulled. Can be "
        "repeated. [default: none]",
        show_default=False,
    ),
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        metavar="HOST:PORT,...",
        help="Other machines that hold a part of the layers: those on which `edgellm worker` runs. [default: none]",
        show_default=False,
    ),
]
LayersHere = Annotated[
    int | None,
    typer.Option(
        "--layers-here",
        min=0,
        max=1024,
        help="With --workers: layers to keep on this machine. [default: its share, by the free memory]",
        show_default=False,
    ),
]
Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="The server on this port. [default: the running one, or 11435]"),
]


def first_key(value: str | None) -> str | None:
    """The first key of several, as the variable may hold for `serve`; any of them will do."""
    return next(iter((value or "").split()), None)


Server = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="auto|never|URL",
        help="Let a running server that holds the model answer: one of yours on this machine, none, or this one.",
    ),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", help="The server's key.", callback=first_key),
]


def typed(value: str | None, param: typer.CallbackParam) -> str | None:
    """The callback of an argument or option that is a text for a model: `NotText` for bytes that are none."""
    return None if value is None else typed_text(value, param.opts[0])


def typed_words(values: list[str] | None, param: typer.CallbackParam) -> list[str] | None:
    """The same for an argument of several words."""
    return None if values is None else [typed_text(value, param.opts[0]) for value in values]


System = Annotated[
    str | None,
    typer.Option(
        "--system",
        "-s",
        callback=typed,
        help="System message. [default: the recipe's, or the chat template's]",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=-1, max=2**32 - 2, help="Repeat an answer exactly; -1: random. [default: -1]"),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="json|SCHEMA.json",
        help="Answer only with JSON, optionally as a JSON schema describes.",
    ),
]
Grammar = Annotated[
    Path | None,
    typer.Option("--grammar", help="A file with a GBNF grammar that the answer must follow."),
]


class Group:
    """Options that belong together: a parameter of a verb with such a type becomes one option for each field."""

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """The options, as parameters that typer understands."""
        return _options_of(cls)

    @classmethod
    def collect(cls, values: Mapping[str, Any], command: str) -> Any:
        """The group, from the values of its options; `command` is the verb that was typed."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class JsonOutput(Group):
    """Where a verb's result goes: to people, or as JSON in an envelope that names the command."""

    command: str
    as_json: Json = False

    @property
    def silent(self) -> bool:
        """Whether progress and notes are left out."""
        return self.as_json

    @classmethod
    def collect(cls, values: Mapping[str, Any], command: str) -> Any:
        """The group, which remembers the command for the envelope."""
        return cls(command=command, **values)


@dataclass(frozen=True, slots=True)
class QuietOutput(JsonOutput):
    """The same for a verb that shows progress or notes, which `--quiet` leaves out."""

    quiet: Quiet = False

    @property
    def silent(self) -> bool:
        """Whether progress and notes are left out."""
        return self.as_json or self.quiet


@dataclass(frozen=True, slots=True)
class LoadFlags(Group):
    """How a model is loaded; None leaves the choice to the recipe or to edgellm."""

    ctx_size: ContextSize = None
    kv: KVType = None
    max_memory: MaxMemory = None
    threads: Threads = None
    tuned: Tuned = True
    draft: Draft = DraftMode.AUTO
    force: Force = False
    prompt_cache: PromptCaching = None

    @property
    def drafts(self) -> bool:
        """Whether to draft tokens."""
        return self.draft is DraftMode.AUTO


@dataclass(frozen=True, slots=True)
class LengthFlags(Group):
    """When an answer ends that does not end by itself."""

    max_tokens: MaxTokens = -1
    loop_guard: Guard = True


@dataclass(frozen=True, slots=True)
class LimitFlags(LengthFlags):
    """The same for one answer at a time, which can also have a time limit and go on after a loop."""

    max_time: MaxTime = None
    on_loop: OnLoop = LoopAction.STOP
    stop: Stop = None


@dataclass(frozen=True, slots=True)
class ToolFlags(Group):
    """The tools that a model may call, and those that run without a question."""

    tools: Tools = None
    allow: Allow = None
    yes_tools: YesTools = False
    mcp: McpFile = None


@dataclass(frozen=True, slots=True)
class FormFlags(Group):
    """The form that an answer must have."""

    form: Format = None
    grammar: Grammar = None


@dataclass(frozen=True, slots=True)
class SamplingFlags(Group):
    """How tokens are drawn: `asked` has what the user asked for, by the names of `engine.sampling.Sampling`."""

    asked: Mapping[str, float]
    seed: Seed = None

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """An option for each sampling option that has a flag, and the seed."""
        table = [_parameter(option) for option in OPTIONS.values() if option.flag]
        return [*table, *_options_of(cls)]

    @classmethod
    def collect(cls, values: Mapping[str, Any], command: str) -> Any:
        """The group; an option that was not given is left out of `asked`."""
        asked = {name: value for name, value in values.items() if name in OPTIONS and value is not None}
        seed = values["seed"]
        return cls(asked, None if seed == RANDOM_SEED else seed)


_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def _options_of(group: Any) -> list[inspect.Parameter]:
    """The fields of a group that are options; others are for the group to fill."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(each.name, _KEYWORD, default=each.default, annotation=hints[each.name])
        for each in fields(group)
        if any(isinstance(note, ParameterInfo) for note in get_args(hints[each.name])[1:])
    ]


def _parameter(option: SamplingOption) -> inspect.Parameter:
    number: Any = option.kind | None
    whole = f"--{option.name.replace('_', '-')}"  # --temp is --temperature elsewhere
    info = typer.Option(
        *dict.fromkeys((option.flag, whole)),
        min=option.kind(option.least),
        max=option.kind(option.most),
        help=f"{option.help} [default: the recipe's, or {option.default:g}]",
    )
    return inspect.Parameter(option.name, _KEYWORD, default=None, annotation=Annotated[number, info])


def _setting(parameter: inspect.Parameter) -> OptionSetting | None:
    """A parameter as the environment and the config file see it; None when it is no option."""
    kind, *notes = get_args(parameter.annotation) or (None,)
    info = next((note for note in notes if isinstance(note, OptionInfo)), None)
    if info is None:
        return None
    names = (info.default, *(info.param_decls or ()))  # typer takes the first one for a default until it is needed
    flag = next(str(name) for name in names if str(name).startswith("--")).partition("/")[0]
    # The same for every verb that shares the declaration.
    info.envvar = info.envvar or variable_of(flag)
    return OptionSetting.of(
        parameter.name, flag, str(info.envvar), kind, parameter.default, least=info.min, most=info.max
    )


def _common() -> dict[str, OptionSetting]:
    """The options that several verbs share, by their keys in the config file."""
    declared = [
        inspect.Parameter(name.lower(), _KEYWORD, default=None, annotation=annotation)
        for name, annotation in globals().items()
        if get_args(annotation)
    ]
    table = [_parameter(option) for option in OPTIONS.values() if option.flag]
    found = [_setting(parameter) for parameter in [*declared, *table]]
    return {setting.key: setting for setting in found if setting is not None}


COMMON = _common()


def _plain(hint: Any) -> Any:
    """An annotation without the Optional that Python 3.10 puts around it where the default is None."""
    inner = next(iter(get_args(hint)), None)
    return inner if get_origin(inner) is Annotated else hint


def expand(verb: Callable[..., Any], command: str) -> Callable[..., Any]:
    """A verb as typer wants it: each parameter that is a group is replaced by the group's options.

    The function has `settings`, its options as the environment and the config file see them.

    Args:
        verb: a function whose parameters are arguments, options and groups.
        command: the verb as it is typed, without `edgellm`: "chats ls".
    """
    hints = {name: _plain(hint) for name, hint in get_type_hints(verb, include_extras=True).items()}
    hints.pop("return", None)
    groups: dict[str, type[Group]] = {
        name: kind for name, kind in hints.items() if isinstance(kind, type) and issubclass(kind, Group)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(verb).parameters.items():
        own = [parameter.replace(annotation=hints[name], kind=_KEYWORD)]
        parameters += groups[name].parameters() if name in groups else own

    @functools.wraps(verb)
    def run(**values: Any) -> Any:
        for name, kind in groups.items():
            theirs = {each.name: values.pop(each.name) for each in kind.parameters()}
            values[name] = kind.collect(theirs, command)
        raise_on_interrupt()  # the verb has things to put away
        return verb(**values)

    run.settings = [found for found in map(_setting, parameters) if found]  # type: ignore[attr-defined]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
