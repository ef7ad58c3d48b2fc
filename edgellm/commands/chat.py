"""`edgellm chat [MODEL]`: the interactive session."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.workspace import workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.engine.base import Sampling
    from edgellm.run.loading import LoadedModel
    from edgellm.run.telemetry import Stats

DEFAULT_MODEL = "smollm2"
HELP = {
    "/help": "show this list",
    "/stats": "all numbers of the last answer",
    "/system": "show the system message; /system TEXT: set it and start over",
    "/clear": "forget the conversation",
    "/exit": "leave (or Ctrl-D)",
}


def chat(
    model: Annotated[
        str, typer.Argument(help="A model's name, or the path of a GGUF file.", autocompletion=model_names)
    ] = DEFAULT_MODEL,
    system: options.System = None,
    ctx_size: options.ContextSize = None,
    kv: options.KVType = None,
    max_memory: options.MaxMemory = None,
    max_tokens: options.MaxTokens = -1,
    threads: options.Threads = None,
    temp: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    repeat_penalty: options.RepeatPenalty = None,
    seed: options.Seed = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Talk to a model, with live numbers.

    Tokens per second, context and memory show while it answers.

    Example: edgellm chat smollm2
    """
    from edgellm.commands.answering import choose_sampling, load_model, require_chat
    from edgellm.run.loading import LoadOptions
    from edgellm.ui.units import parse_size

    here = workspace(offline=offline)
    require_chat(here, model)
    path, recipe = here.model_file(model, quiet=quiet)
    sampling = choose_sampling(
        recipe, seed, temperature=temp, top_k=top_k, top_p=top_p, min_p=min_p, repeat_penalty=repeat_penalty
    )
    if system is None and recipe is not None:
        system = recipe.system
    cap = parse_size(max_memory, "--max-memory") if max_memory else None
    template = recipe.chat_template if recipe else None
    loaded = load_model(here, path, LoadOptions(ctx_size, threads, system, force, kv, cap, template), quiet=quiet)
    _ = loaded.session.template  # a model without one is refused before anything is typed
    conversation = Conversation(model, loaded, sampling, max_tokens, live=not quiet)
    try:
        if sys.stdin.isatty() and sys.stdout.isatty():
            conversation.talk()
        else:
            conversation.answer_pipe()
    finally:
        if conversation.stats is not None:
            here.used(path, conversation.stats)


class Conversation:
    """The loop of reading and answering."""

    def __init__(self, name: str, loaded: LoadedModel, sampling: Sampling, max_tokens: int, *, live: bool) -> None:
        self._name = name
        self._loaded = loaded
        self._sampling = sampling
        self._max_tokens = max_tokens
        self._live = live
        self.stats: Stats | None = None

    def talk(self) -> None:
        """Read from the terminal until the user leaves."""
        from edgellm.errors import EdgellmError
        from edgellm.ui.console import note, print_error
        from edgellm.ui.prompt import ChatPrompt
        from edgellm.ui.units import count

        info, context = self._loaded.session.model.info, self._loaded.session.context
        cache = "" if self._loaded.kv_type == "F16" else f" in {self._loaded.kv_type.lower()}"
        about = f"{self._name}  {count(info.n_params)} {info.quant}  {context.n_ctx:,} tokens{cache}"
        keys = "/help   Ctrl-C stops the answer   Ctrl-D leaves"
        note(f"{about}  {self._loaded.n_threads} threads      {keys}")
        prompt = ChatPrompt(status=self._status, words=HELP)
        while True:
            try:
                text = prompt.read().strip()
                if text == "/exit":
                    return
                if text.startswith("/"):
                    self._command(text)
                elif text:
                    self._answer(text)
            except EOFError:
                return
            except KeyboardInterrupt:
                # At the prompt, or in the moments around an answer.
                note("Ctrl-D or /exit leaves")
            except EdgellmError as error:
                print_error(error, as_json=False)
                note("the conversation is kept; /clear starts over")

    def answer_pipe(self) -> None:
        """Answer each line of standard input; the answers are all that goes to stdout."""
        from edgellm.ui.prompt import piped_messages

        for text in piped_messages():
            self._answer(text)

    def _answer(self, text: str) -> None:
        from edgellm.commands.answering import stream_answer
        from edgellm.run.generation import Limits
        from edgellm.ui.console import note
        from edgellm.ui.interrupt import Interrupt

        with Interrupt() as interrupt:
            events = self._loaded.session.ask(text, self._sampling, Limits(self._max_tokens, interrupt.requested))
            _, self.stats = stream_answer(events, self._loaded, show=True, live=self._live)
        explained = {
            "interrupted": "[stopped]",
            "length": f"[stopped after {self._max_tokens} tokens, as --max-tokens says]",
            "context": "[the context is full; /clear starts over, --ctx-size makes it larger]",
        }
        if ended := explained.get(self.stats.finish_reason):
            note(ended)

    def _command(self, text: str) -> None:
        from edgellm.suggest import did_you_mean
        from edgellm.ui.console import note
        from edgellm.ui.live import final_lines

        word, _, argument = text.partition(" ")
        match word:
            case "/help":
                note(
                    "\n".join(f"{name:<9}{what}" for name, what in HELP.items())
                    + '\n"""      begins and ends a message of several lines'
                )
            case "/stats":
                note(final_lines(self.stats) if self.stats else "nothing has been answered yet")
            case "/system" if not argument.strip():
                note(self._loaded.session.system or "no system message but the chat template's own")
            case "/system":
                self._loaded.session.restart(system=argument.strip())
                note("the conversation starts over with this system message")
            case "/clear":
                self._loaded.session.restart()
                note("the conversation starts over")
            case _:
                guess = did_you_mean(word, HELP)
                note(f"there is no {word}" + (f", did you mean {guess}?" if guess else "; /help lists what there is"))

    def _status(self) -> str:
        from edgellm.ui.live import status_line

        return status_line(self.stats) if self.stats else ""
