"""The loop of `edgellm chat`: reading, answering, /commands, and saving what is said."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from edgellm.commands.workspace import Workspace
    from edgellm.engine.base import Sampling
    from edgellm.run.chat_record import ChatRecord
    from edgellm.run.chat_template import Message
    from edgellm.run.generation import Event, Limits
    from edgellm.run.loading import LoadedModel, LoadOptions
    from edgellm.run.session import Session
    from edgellm.run.structure import Structure
    from edgellm.run.telemetry import Stats
    from edgellm.ui.prompt import ChatPrompt

COMMANDS = {
    "/help": "show this list",
    "/regen": "answer the last question again; after a loop, go on from before it",
    "/edit": "change the last question and ask it again",
    "/undo": "take back the last question and its answer",
    "/system": "show the system message; /system TEXT: set it and start over",
    "/set": "show the settings; /set NAME VALUE: change one",
    "/model": "show the model; /model NAME: go on with another one",
    "/file": "/file PATH: put a text file into the next question",
    "/save": "/save PATH: write the chat as Markdown, or as JSON if PATH ends so",
    "/load": "/load ID, or a JSON file: go on with that chat",
    "/stats": "all numbers of the last answer",
    "/clear": "begin a new chat",
    "/compact": "let the model summarise the chat, and go on from that",
    "/exit": "leave (or Ctrl-D)",
}
KEYS = {
    '"""': "begins and ends a message of several lines; Alt-Enter begins a new line",
    "Ctrl-X Ctrl-E": "write the message in $EDITOR",
    "Up, Ctrl-R": "earlier messages, those of earlier chats too",
    "Ctrl-C": "stops the answer; twice leaves at once",
}
# Settings by name: what it belongs to, how it is read, and the least and the greatest value.
SETTINGS: dict[str, tuple[str, Callable[[str], Any], float, float]] = {
    "temp": ("temperature", float, 0, 5),
    "top_k": ("top_k", int, 0, 2**31 - 1),
    "top_p": ("top_p", float, 0, 1),
    "min_p": ("min_p", float, 0, 1),
    "repeat_penalty": ("repeat_penalty", float, 0.01, 5),
    "seed": ("seed", int, 0, 2**32 - 2),
    "max_tokens": ("max_tokens", int, -1, 2**31 - 1),
    "max_time": ("max_seconds", float, 0.001, 1e9),
    "loop_guard": ("loop_guard", lambda word: {"on": True, "off": False}[word], 0, 1),
    "on_loop": ("retry", lambda word: {"stop": False, "retry": True}[word], 0, 1),
}
# From this share of the context on, every answer says how full it is.
NEARLY_FULL = 0.8
EXIT_INTERRUPTED = 130
EXIT_HUNG_UP = 129


class Conversation:
    """One chat after another, until the user leaves."""

    def __init__(
        self,
        here: Workspace,
        name: str,
        loaded: LoadedModel,
        load_options: LoadOptions,
        record: ChatRecord,
        sampling: Sampling,
        limits: Limits,
        *,
        sampling_for: Callable[..., Sampling],
        loading_for: Callable[..., LoadOptions],
        structure: Structure | None = None,
        quiet: bool,
    ) -> None:
        """`sampling_for` and `loading_for` choose for a recipe, or None, what the user does not ask for."""
        self._here = here
        self._name = name
        self._loaded = loaded
        self._load_options = load_options
        self._record = record
        self._sampling = sampling
        self._limits = limits
        self._sampling_for = sampling_for
        self._loading_for = loading_for
        self._structure = structure
        self._quiet = quiet
        self._stats: Stats | None = None
        self._attached: list[str] = []
        self._n_again = 0
        self._prompt: ChatPrompt | None = None
        self._handlers: dict[str, Callable[[str], None]] = {
            "/help": self._help, "/regen": self._regen, "/edit": self._edit, "/undo": self._undo,
            "/system": self._system, "/set": self._set, "/model": self._model, "/file": self._file,
            "/save": self._save, "/load": self._load, "/stats": self._show_stats, "/clear": self._clear,
            "/compact": self._compact,
        }  # fmt: skip

    @property
    def _session(self) -> Session:
        return self._loaded.session

    def talk(self) -> None:
        """Read from the terminal until the user leaves."""
        from edgellm.errors import EdgellmError
        from edgellm.ui.console import note, print_error
        from edgellm.ui.prompt import ChatPrompt

        # As an exception, so that an answer under way is saved as far as it came.
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(EXIT_HUNG_UP))
        self._introduce()
        history = self._record.store.recent_questions() if self._record.store else []
        self._prompt = ChatPrompt(status=self._status, words=COMMANDS, settings=list(SETTINGS), history=history)
        while True:
            try:
                text = self._prompt.read().strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                note("Ctrl-D or /exit leaves")
                continue
            if text == "/exit":
                return
            try:
                self._take(text)
            except EdgellmError as error:
                print_error(error, as_json=False)
            except KeyboardInterrupt:
                raise typer.Exit(EXIT_INTERRUPTED) from None

    def answer_pipe(self) -> None:
        """Answer each line of standard input; the answers are all that goes to stdout."""
        from edgellm.ui.prompt import piped_messages

        for text in piped_messages():
            self._ask(text)

    def _introduce(self) -> None:
        from edgellm.ui.console import note, printable
        from edgellm.ui.units import count

        info, context = self._session.model.info, self._session.context
        cache = "" if self._loaded.kv_type == "F16" else f" in {self._loaded.kv_type.lower()}"
        about = f"{self._name}  {count(info.n_params)} {info.quant}  {context.n_ctx:,} tokens{cache}"
        note(f"{about}  {self._loaded.n_threads} threads      /help   Ctrl-C stops the answer   Ctrl-D leaves")
        if self._record.chat:
            self._tell_where_it_stands()
            for message in self._session.messages[-2:]:
                mark = "> " if message["role"] == "user" else ""
                note(f"{mark}{printable(message['content'])}")

    def _tell_where_it_stands(self) -> None:
        from edgellm.ui.console import note

        messages = self._session.messages
        n_tokens, n_ctx = self._session.count_tokens(), self._session.context.n_ctx
        note(f"chat {self._record.chat}: {len(self._record.rows)} messages, {n_tokens:,} of {n_ctx:,} tokens")
        if messages and messages[-1]["role"] == "user":
            note("the last question has no answer; /regen answers it")

    def _take(self, text: str) -> None:
        """A line that was typed: a command or a question."""
        from edgellm.suggest import did_you_mean
        from edgellm.ui.console import note

        word, _, argument = text.partition(" ")
        if not text:
            return
        if not text.startswith("/") or "/" in word[1:] or "\n" in word:
            self._ask(text)  # a path is no command
        elif handler := self._handlers.get(word):
            handler(argument.strip())
        else:
            guess = did_you_mean(word, COMMANDS)
            note(f"there is no {word}" + (f", did you mean {guess}?" if guess else "; /help lists what there is"))

    # --- answering -------------------------------------------------------------------------------------------------

    def _ask(self, text: str) -> None:
        messages = self._session.messages
        if messages and messages[-1]["role"] == "user":  # of a chat that ended without an answer
            self._undo("")
        question = "\n\n".join([*self._attached, text])
        self._n_again = 0

        def answered(text: str, reason: str) -> None:
            self._attached.clear()
            self._record.answer(text, reason)

        self._answer(
            lambda sampling, limits: self._session.ask(question, self._structured(sampling), limits),
            answered,
            begins=lambda: self._record.ask(question),
            nothing=lambda: self._record.take_back(1),
        )
        self._check()

    def _structured(self, sampling: Sampling) -> Sampling:
        """With the grammar of `--format` or `--grammar`."""
        return self._structure.constrain(sampling) if self._structure else sampling

    def _check(self) -> None:
        """Whether the last answer has the form that was asked for; one that was stopped need not."""
        if self._structure and self._stats and self._stats.finish_reason != "interrupted" and self._session.messages:
            self._structure.check(self._session.messages[-1]["content"])

    def note_use(self) -> None:
        """Remember how fast the model was, for `edgellm list`."""
        if self._stats is not None:
            self._here.used(self._session.model.info.path, self._stats)

    def _answer(
        self,
        events: Callable[[Sampling, Limits], Generator[Event, None, None]],
        answered: Callable[[str, str], None],
        *,
        begins: Callable[[], None] = lambda: None,
        nothing: Callable[[], None] = lambda: None,
    ) -> None:
        """Show an answer and save it, also when it is cut short.

        `begins` is called once the question is known to fit, `answered` with the answer and how it ended, `nothing`
        if there was none and the chat goes on.
        """
        from edgellm.commands.answering import stream_answer
        from edgellm.ui.interrupt import Interrupt

        before, stats = self._session.messages, None
        begun = leaving = False

        def begin(stream: Iterator[Event]) -> Iterator[Event]:
            nonlocal begun
            for event in stream:
                if not begun:
                    begins()
                    begun = True
                yield event

        try:
            with Interrupt() as interrupt:
                limits = replace(self._limits, interrupted=interrupt.requested)
                seeded = replace(self._sampling, seed=(self._sampling.seed + self._n_again) % (2**32 - 1))
                with closing(events(seeded, limits)) as stream:
                    shown = begin(stream)
                    stats = stream_answer(shown, self._loaded, show=True, live=not self._quiet, limits=limits)[1]
        except (SystemExit, KeyboardInterrupt):
            leaving = True  # the question stays saved, so that it can be answered another time
            raise
        finally:
            if self._session.messages is not before:
                answered(self._session.messages[-1]["content"], stats.finish_reason if stats else "interrupted")
            elif begun and not leaving:
                nothing()
        self._stats = stats
        self._explain(stats)

    def _explain(self, stats: Stats) -> None:
        """What is to say after an answer: why it ended early, and how full the context is."""
        from edgellm.ui.console import note
        from edgellm.ui.units import duration

        explained = {
            "interrupted": "[stopped]",
            "length": f"[stopped after {stats.completion_tokens} tokens, as --max-tokens says]",
            "time": f"[stopped after {duration(self._limits.max_seconds or 0)}, as --max-time says]",
            "context": "[the context is full; /compact makes room, /clear starts over, --ctx-size makes it larger]",
            "repetition": "[/regen goes on from before the loop, with DRY and repetition penalties]",
        }
        if ended := explained.get(stats.finish_reason):
            note(ended)
        used = stats.context_used / stats.n_ctx
        if used >= NEARLY_FULL and stats.finish_reason != "context":
            note(f"[the context is {used:.0%} full: {stats.context_used:,}/{stats.n_ctx:,}; /compact makes room]")

    def _status(self) -> str:
        from edgellm.ui.live import status_line

        saved = f"chat {self._record.chat} saved" if self._record.chat else "" if self._record.store else "private"
        attached = f"{len(self._attached)} files attached" if self._attached else ""
        return "  ".join(part for part in (status_line(self._stats) if self._stats else "", saved, attached) if part)

    # --- /commands -------------------------------------------------------------------------------------------------

    def _help(self, _: str) -> None:
        from edgellm.ui.console import note

        note("\n".join(f"{name:<14}{what}" for name, what in {**COMMANDS, **KEYS}.items()))

    def _regen(self, _: str) -> None:
        from edgellm.ui.console import note

        messages = self._session.messages
        was_answered = bool(messages) and messages[-1]["role"] == "assistant"
        looped = was_answered and self._stats is not None and self._stats.finish_reason == "repetition"
        self._n_again += 1
        if self._sampling.temperature == 0 and was_answered and not looped:
            note("[temperature 0 gives the same answer; /set temp 0.8 lets it vary]")
        self._answer(
            lambda sampling, limits: self._session.again(self._structured(sampling), limits),
            lambda text, reason: (self._record.replace if was_answered else self._record.answer)(text, reason),
        )
        self._check()

    def _edit(self, _: str) -> None:
        from edgellm.ui.console import note

        questions = [message["content"] for message in self._session.messages if message["role"] == "user"]
        if not questions or self._prompt is None:
            note("nothing has been asked yet")
            return
        try:
            text = self._prompt.read(default=questions[-1]).strip()
        except (KeyboardInterrupt, EOFError):
            text = ""
        if not text:
            note("the question stays as it was")
            return
        self._record.take_back(len(self._session.undo()))
        self._ask(text)

    def _undo(self, _: str) -> None:
        from edgellm.ui.console import note, printable

        taken = self._session.undo()
        self._record.take_back(len(taken))
        note(f"taken back: {printable(taken[0]['content'])[:200]}" if taken else "there is nothing to take back")

    def _system(self, text: str) -> None:
        from edgellm.ui.console import note, printable

        if not text:
            note(printable(self._session.system) or "no system message but the chat template's own")
            return
        self._session.restart(system=text)
        self._loading_for = partial(self._loading_for, system=text)
        self._load_options = replace(self._load_options, system=text)
        self._start_over()
        note("a new chat begins with this system message")

    def _clear(self, _: str) -> None:
        from edgellm.ui.console import note

        saved = f"chat {self._record.chat} is saved; " if self._record.chat else ""
        self._session.restart()
        self._start_over()
        note(f"{saved}a new chat begins")

    def _start_over(self) -> None:
        from edgellm.run.chat_record import ChatRecord

        system = self._session.system_message
        self._record = ChatRecord(self._record.store, self._name, system["content"] if system else None)
        self._stats = None

    def _set(self, text: str) -> None:
        from edgellm.suggest import did_you_mean
        from edgellm.ui.console import note

        name, _, value = text.partition(" ")
        name = name.replace("-", "_")
        if not name:
            note("\n".join(f"{name:<16}{self._setting(name)}" for name in SETTINGS))
        elif name not in SETTINGS:
            guess = did_you_mean(name, SETTINGS)
            note(
                f"there is no setting {name!r}" + (f", did you mean {guess}?" if guess else f": {', '.join(SETTINGS)}")
            )
        elif not value.strip():
            note(f"{name:<16}{self._setting(name)}")
        else:
            field, parse, least, most = SETTINGS[name]
            try:
                parsed = parse(value.strip())
                if not least <= parsed <= most:
                    raise ValueError
            except (ValueError, KeyError):
                words = {"loop_guard": "on or off", "on_loop": "stop or retry"}
                note(f"{name} is {words.get(name, f'a number from {least:g} to {most:g}')}, not {value.strip()!r}")
                return
            if hasattr(self._sampling, field):
                self._sampling = replace(self._sampling, **{field: parsed})
                self._sampling_for = partial(self._sampling_for, **{field: parsed})
            else:
                self._limits = replace(self._limits, **{field: parsed})
            note(f"{name:<16}{self._setting(name)}")

    def _setting(self, name: str) -> str:
        field = SETTINGS[name][0]
        value = getattr(self._sampling if hasattr(self._sampling, field) else self._limits, field)
        match name:
            case "loop_guard":
                return "on" if value else "off"
            case "on_loop":
                return "retry" if value else "stop"
            case _:
                return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    def _model(self, name: str) -> None:
        from edgellm.commands.answering import require_chat
        from edgellm.ui.console import note

        if not name:
            note(f"{self._name}  {self._session.model.info.path}")
            return
        require_chat(self._here, name)
        path, recipe = self._here.model_file(name, quiet=self._quiet)
        load_options = self._loading_for(recipe)
        self.note_use()
        messages, old_path = self._session.messages, self._session.model.info.path
        try:
            self._exchange(path, load_options)
            _ = self._session.template
        except BaseException:
            self._exchange(old_path, self._load_options)
            self._session.messages = messages
            raise
        head = [message for message in messages if message["role"] == "system"]
        if [message["content"] for message in head] == [
            text for text in [self._load_options.system] if text is not None
        ]:
            # The old recipe's, or what the user asks for: the new options have the one or the other.
            messages = [*self._session.messages, *messages[len(head) :]]
        self._session.messages = messages
        self._name, self._load_options = name, load_options
        self._sampling = replace(self._sampling_for(recipe), seed=self._sampling.seed)
        system = self._session.system_message
        self._record.use_model(name, system["content"] if system else None)
        self._introduce()

    def _exchange(self, path: Path, load_options: LoadOptions) -> None:
        """Another model in place of this one, which goes first: the two may not fit at once."""
        from edgellm.commands.answering import load_model

        self._session.close()
        self._session.model.close()
        self._loaded = load_model(self._here, path, load_options, quiet=self._quiet)

    def _file(self, name: str) -> None:
        from edgellm.run.transcript import read_text
        from edgellm.ui.console import note, printable

        if not name:
            note("/file PATH puts a text file into the next question")
            return
        path = _path(name)
        text = read_text(path)
        n_tokens, n_ctx = len(self._session.model.tokenize(text)), self._session.context.n_ctx
        if n_tokens >= n_ctx:
            note(f"{printable(path.name)} has {n_tokens:,} tokens, the context holds {n_ctx:,}: it is left out")
            return
        self._attached.append(f"{path.name}:\n```\n{text.rstrip()}\n```")
        note(f"{printable(path.name)}: {n_tokens:,} tokens, which go with the next question")

    def _save(self, name: str) -> None:
        from edgellm.run.transcript import write
        from edgellm.ui.console import note, printable

        if not name:
            note("/save PATH writes the chat as Markdown, or as JSON if PATH ends so")
            return
        write(_path(name), self._name, self._all_messages())
        note(f"written: {printable(str(_path(name)))}")

    def _all_messages(self) -> list[Message]:
        """The whole chat, also what a summary hides from the model."""
        if self._record.store is None or self._record.chat is None:
            return self._session.messages
        from edgellm.run.transcript import messages_of

        return messages_of(self._record.store, self._record.store.get(self._record.chat))

    def _load(self, name: str) -> None:
        from edgellm.run.chat_record import ChatRecord
        from edgellm.run.transcript import read
        from edgellm.ui.console import note

        store = self._record.store
        if not name:
            note("/load ID, or the path of a JSON file that /save wrote")
        elif _path(name).is_file():
            messages = read(_path(name))
            self._session.messages = messages
            self._start_over()
            for message in messages:
                if message["role"] != "system":
                    self._record.ask(message["content"]) if message["role"] == "user" else self._record.answer(
                        message["content"], ""
                    )
            self._tell_where_it_stands()
        elif store is None:
            note("this chat is private: saved ones stay closed")
        else:
            self._record, self._session.messages = ChatRecord.resume(store, store.get(name))
            self._stats = None
            self._introduce()

    def _show_stats(self, _: str) -> None:
        from edgellm.ui.console import note
        from edgellm.ui.live import final_lines

        note(final_lines(self._stats) if self._stats else "nothing has been answered yet")

    def _compact(self, _: str) -> None:
        from edgellm.run.session import SUMMARISE
        from edgellm.ui.console import note

        before = self._session.messages
        head = 1 if self._session.system_message else 0
        n_before, n_tokens = len(before) - head, self._session.count_tokens()

        def answered(_: str, __: str) -> None:
            n_kept = len(self._session.messages) - head - 2
            summary = self._session.messages[head + 1]["content"]
            self._record.summarise(n_before - n_kept, SUMMARISE, summary)

        self._answer(self._session.compact, answered)
        if self._session.messages is before:
            note("the chat stays as it was")
        else:
            now = self._session.count_tokens()
            note(f"the chat was {n_tokens:,} tokens and is {now:,} now; what the summary covers stays saved")


def _path(name: str) -> Path:
    """A path as it was typed, perhaps in quotes."""
    import os

    return Path(os.path.expanduser(name.strip("'\"")))  # noqa: PTH111, Path's own raises for unknown users
