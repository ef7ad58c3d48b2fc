"""`edgellm chat` on a terminal: reading what is typed, /commands, and showing what a `Chat` does.

    ChatScreen(chat, switch=open_another).run()

The chat holds all state; the screen only keeps what belongs to the next question: files that are attached to it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.chats.chat import Chat
from edgellm.documents.answers.citation import Basis, Citation
from edgellm.engine.sampling import Sampling
from edgellm.errors import ContextFixed, EdgellmError, PromptTooLong, WorkerLost
from edgellm.exit_codes import ExitCode
from edgellm.run.answer import AnswerStream
from edgellm.run.telemetry import Stats
from edgellm.suggest import did_you_mean
from edgellm.text import read_text
from edgellm.tools.record import CallRecord
from edgellm.ui import chat_settings, habits
from edgellm.ui.chat_settings import SETTINGS
from edgellm.ui.citations import citation_fields, print_below
from edgellm.ui.console import note, note_fields, print_error, printable
from edgellm.ui.interrupt import Interrupt
from edgellm.ui.live import final_lines, show_answer, status_line
from edgellm.ui.options import JsonOutput
from edgellm.ui.prompt import ChatPrompt
from edgellm.ui.render import render_line
from edgellm.ui.tool_lines import print_calls, print_sources
from edgellm.units import duration

COMMANDS = {
    "/help": "show this list; /help set: what /set can change",
    "/regen": "answer the last question again; after a loop, go on from before it",
    "/edit": "change the last question and ask it again",
    "/undo": "take back the last question and its answer; /undo N: the last N",
    "/system": "show the system message; /system TEXT: set it and start over",
    "/set": "list the settings; /set NAME VALUE: change one, /set ctx 8192 the context",
    "/model": "show the model; /model NAME: go on with another one",
    "/docs": "show the documents in use; /docs NAME: answer from these, /docs off: from none",
    "/tools": "show the tools in use, and what may run without a question",
    "/calls": "the calls of the last answer, with their whole results",
    "/file": "/file PATH: put a text file into the next question",
    "/save": "/save PATH: write the chat as Markdown, or as JSON if PATH ends so",
    "/load": "/load ID, or a JSON file: go on with that chat",
    "/stats": "all numbers of the last answer",
    "/clear": "begin a new chat",
    "/compact": "let the model summarise the chat, and go on from that",
    "/exit": "leave (or /bye, /quit, Ctrl-D)",
}
KEYS = {
    '"""': "begins and ends a message of several lines; Alt-Enter begins a new line",
    "Ctrl-X Ctrl-E": "write the message in $EDITOR",
    "Up, Ctrl-R": "earlier messages, those of earlier chats too",
    "Ctrl-C": "stops the answer; twice leaves",
}
# What follows /docs to ask the model alone.
OFF = "off"
NO_DOCUMENTS = "there are no documents yet; edgellm docs add PATH"
# From this share of the context on, every answer says how full it is.
NEARLY_FULL = 0.8


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """One answer of a piped chat; `chat` is the id under which it is saved, null when it is not.

    `server` is the address of the server that answered, null if the model was loaded here. Its memory and CPU time are
    then in `stats`. `docs` names the documents that it comes from; null without any. `citations`, `refused`, `basis`
    and `unknown_numbers` are those of `docs ask`. `calls` are the tools that were called, with their results.
    """

    chat: str | None
    model: str
    text: str
    threads: int
    kv_type: str
    sampling: Sampling
    stats: Stats
    docs: str | None
    server: str | None
    refused: bool
    basis: Basis
    citations: list[Citation]
    unknown_numbers: list[str]
    calls: list[CallRecord]


class ChatScreen:
    """One chat after another, until the user leaves."""

    def __init__(
        self,
        chat: Chat,
        *,
        switch: Callable[[str], None],
        load_here: Callable[[EdgellmError], bool] = lambda _: False,
        reopen: Callable[[], None] = lambda: None,
        use_documents: Callable[[str | None], None] = lambda _: None,
        collections: Callable[[], Sequence[str]] = tuple,
        quiet: bool = False,
    ) -> None:
        """A chat on the terminal.

        Args:
            switch: lets the model of that name go on with the chat.
            load_here: loads the model in place of a server's after this error; false if it must stay there.
            reopen: loads the model again with the workers that are left, after one of them was lost.
            use_documents: lets the chat answer from the documents of that name, or from none.
            collections: the names of the documents that there are.
        """
        self._chat = chat
        self._switch, self._load_here, self._reopen = switch, load_here, reopen
        self._is_broken = False
        self._use_documents = use_documents
        self._collections = collections
        self._quiet = quiet
        self._attached: list[str] = []
        self._prompt: ChatPrompt | None = None
        # What may follow a command, for completion.
        self._names: Mapping[str, Callable[[], Sequence[str]]] = {
            "/set": lambda: SETTINGS, "/docs": lambda: [*collections(), OFF],
        }  # fmt: skip
        self._handlers: dict[str, Callable[[str], None]] = {
            "/help": self._help, "/regen": self._regen, "/edit": self._edit, "/undo": self._undo,
            "/system": self._system, "/set": self._set, "/model": self._model, "/file": self._file,
            "/save": self._save, "/load": self._load, "/stats": self._stats, "/clear": self._clear,
            "/compact": self._compact, "/docs": self._docs, "/tools": self._tools, "/calls": self._calls,
        }  # fmt: skip

    def run(self) -> None:
        """Read from the terminal until the user leaves.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed twice.
        """
        # As an exception, so that the beginning of an unfinished answer is saved.
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(ExitCode.HANGUP))
        self._introduce()
        history = self._chat.store.recent_questions() if self._chat.store else []
        self._prompt = ChatPrompt(status=self._status, words=COMMANDS, names=self._names, history=history)
        once = False
        while True:
            try:
                text = self._prompt.read().strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                if once and not self._prompt.line:
                    return
                once = not self._prompt.line
                note("Ctrl-C again, Ctrl-D or /exit leaves")
                continue
            once = False
            if habits.CHAT.get(text, text) == "/exit":
                return
            try:
                self._take(text)
            except EdgellmError as error:
                if isinstance(error, PromptTooLong):
                    error.hint = self._ways_on()
                print_error(error)

    def answer_lines(self, lines: Iterable[str], output: JsonOutput) -> ChatAnswer | None:
        """Answer each line, and print nothing but the answers to stdout; returns the last one."""
        last = None
        for text in lines:
            last = self._answer_line(text, output)
        return last

    def _answer_line(self, text: str, output: JsonOutput) -> ChatAnswer:
        chat = self._chat
        stream = self._answered(lambda interrupted: chat.stream(text, interrupted=interrupted), show=not output.as_json)
        answer = stream.answer
        plan, found = chat.model.plan, chat.found
        docs = chat.documents.name if chat.documents and chat.consultation else None
        made = ChatAnswer(
            chat.id, chat.model.name, found.answer if found else answer.text, plan.n_threads, plan.kv_type,
            stream.sampling, answer.stats, docs, chat.model.server, calls=chat.calls, **citation_fields(found),
        )  # fmt: skip
        if output.as_json:
            render_line(output, made)
        else:
            self._explain(answer.stats)
        stream.check()
        return made

    def _introduce(self) -> None:
        model = self._chat.model
        plan = model.plan
        cache = "" if plan.kv_type == "F16" else f" in {plan.kv_type.lower()}"
        about = f"{model.name}  {model.about}  {plan.n_ctx:,} tokens{cache}"
        note(f"{about}  {model.threads}")
        if self._chat.documents is not None:
            note(f"answers from the collection {self._chat.documents.name}   /docs off asks the model alone")
        if self._chat.tools is not None:
            names = ", ".join(tool.name for tool in self._chat.tools.toolbox)
            note(f"may call {names}   /tools says what asks first")
        note("/help lists the commands   Ctrl-C stops the answer   Ctrl-D leaves")
        if self._chat.id:
            self._say_where_it_stands()
            for message in self._chat.messages[-2:]:
                mark = "> " if message["role"] == "user" else ""
                note(f"{mark}{printable(message['content'])}")

    def _say_where_it_stands(self) -> None:
        chat, n_ctx = self._chat, self._chat.model.plan.n_ctx
        n_messages = sum(message["role"] != "system" for message in chat.messages)
        note(f"chat {chat.id}: {n_messages} messages, {chat.n_tokens:,} of {n_ctx:,} tokens")
        if chat.is_unanswered:
            note("the last question has no answer; /regen answers it")

    def _take(self, text: str) -> None:
        """A line that was typed: a command or a question."""
        word, _, argument = habits.CHAT_LINES.get(text, text).partition(" ")
        if not text:
            return
        if not text.startswith("/") or "/" in word[1:] or "\n" in word:
            self._ask(text)  # a path is no command
        elif handler := self._handlers.get(habits.CHAT.get(word, word)):
            handler(argument.strip())
        else:
            self._unknown(word)

    def _ask(self, text: str, *, edited: bool = False) -> None:
        chat = self._chat
        if chat.is_unanswered and not edited:
            self._undo("")
        question = "\n\n".join([*self._attached, text])
        ask = chat.edit if edited else chat.stream
        stream = self._show(lambda interrupted: ask(question, interrupted=interrupted))
        if stream.text or chat.found:
            self._attached.clear()
        stream.check()

    def _show(self, begin: Callable[[Callable[[], bool]], AnswerStream]) -> AnswerStream:
        """Show an answer, then why it ended."""
        stream = self._answered(begin)
        self._explain(stream.answer.stats)
        return stream

    def _answered(self, begin: Callable[[Callable[[], bool]], AnswerStream], *, show: bool = True) -> AnswerStream:
        """Have an answer to its end; one that a server cannot begin is begun again with the model loaded here."""
        if self._is_broken:
            self._reopen()
            self._is_broken = False
        chat, stream = self._chat, None
        try:
            with Interrupt() as interrupt, begin(interrupt.requested) as stream:
                if show:
                    show_answer(stream, live=not self._quiet, retry=chat.limits.retry, quiet=self._quiet)
                _ = stream.answer
                return stream
        except EdgellmError as error:
            self._is_broken = isinstance(error, WorkerLost)
            is_begun = stream is not None and bool(stream.text)
            if chat.model.server is None or is_begun or not self._load_here(error):
                raise
        return self._answered(begin, show=show)

    def _explain(self, stats: Stats) -> None:
        """Say what bears an answer from documents, why it ended early, and how full the context is."""
        chat = self._chat
        print_below(chat, quiet=self._quiet)
        print_sources(chat.calls)
        brief = chat.consultation is not None and chat.limits.max_tokens < 0
        whose = "/set max_tokens 400 lets it be longer" if brief else "as --max-tokens says"
        explained = {
            "interrupted": "[stopped]",
            "length": f"[stopped after {stats.completion_tokens} tokens{'; ' if brief else ', '}{whose}]",
            "time": f"[stopped after {duration(self._chat.limits.max_seconds or 0)}, as --max-time says]",
            "repetition": "[/regen goes on from before the loop, with DRY and repetition penalties]",
        }
        if ended := explained.get(stats.finish_reason):
            note(ended)
        if chat.consultation is not None:  # old turns make room for the sources
            return
        used = stats.context_used / stats.n_ctx
        if stats.finish_reason == "context":
            note(f"[the context is full; {self._ways_on()}]")
        elif used >= NEARLY_FULL:
            full = f"the context is {used:.0%} full: {stats.context_used:,}/{stats.n_ctx:,}"
            note(f"[{full}; {self._ways_on()}]")

    def _ways_on(self) -> str:
        """What to type when the context is full; nothing that would fail."""
        n_ctx = self._chat.model.plan.n_ctx
        if self._prompt is None:  # questions come from a pipe
            return "--ctx-size makes it larger"
        larger = min(2 * n_ctx, self._chat.model.largest_context())
        ways = [f"/set ctx {larger} makes it larger"] if larger > n_ctx else []
        ways += ["/compact makes room"] if self._chat.can_compact else []
        return ", ".join([*ways, "/undo takes the last question back", "/clear starts over"])

    def _status(self) -> str:
        chat = self._chat
        saved = f"chat {chat.id} saved" if chat.id else "" if chat.store else "private"
        attached = f"{len(self._attached)} files attached" if self._attached else ""
        documents = f"docs {chat.documents.name}" if chat.documents is not None else ""
        also = "  ".join(filter(None, (documents, saved, attached)))
        if chat.stats is None:
            return also
        return status_line(chat.stats, repeated=None if chat.stats.finish_reason == "repetition" else 1, saved=also)

    def _help(self, word: str) -> None:
        if not word:
            note_fields(list({**COMMANDS, **KEYS}.items()))
            return
        word = f"/{word.removeprefix('/')}"
        word = habits.CHAT.get(word, word)
        if word in COMMANDS:
            note_fields([(word, COMMANDS[word])])
        else:
            self._unknown(word)
        if word == "/set":
            self._set("")

    def _unknown(self, word: str) -> None:
        guess = did_you_mean(word, COMMANDS)
        note(
            f"there is no {printable(word)}" + (f", did you mean {guess}?" if guess else "; /help lists what there is")
        )

    def _regen(self, _: str) -> None:
        chat = self._chat
        looped = chat.stats is not None and chat.stats.finish_reason == "repetition"
        if chat.sampling.temperature == 0 and chat.is_answered and not looped:
            note("[temperature 0 gives the same answer; /set temp 0.8 lets it vary]")
        self._show(lambda interrupted: chat.again(interrupted=interrupted)).check()

    def _edit(self, _: str) -> None:
        questions = [message["content"] for message in self._chat.messages if message["role"] == "user"]
        if not questions or self._prompt is None:
            note("nothing has been asked yet")
            return
        try:
            text = self._prompt.read(default=questions[-1]).strip()
        except (KeyboardInterrupt, EOFError):
            text = ""
        if text:
            self._ask(text, edited=True)
        else:
            note("the question stays as it was")

    def _undo(self, number: str) -> None:
        if number and not (number.isdecimal() and 0 < int(number) < 1000):
            note(f"/undo N takes back the last N questions; {number!r} is no such number")
            return
        for _ in range(int(number or 1)):
            if not (taken := self._chat.undo()):
                note("there is nothing to take back")
                return
            note(f"taken back: {printable(taken[0]['content'])[:200]}")

    def _system(self, text: str) -> None:
        if text:
            self._chat.set_system(text)
            note("a new chat begins with this system message")
        else:
            note(printable(self._chat.system or "") or "no system message but the chat template's own")

    def _clear(self, _: str) -> None:
        saved = f"chat {self._chat.id} is saved; " if self._chat.id else ""
        self._chat.restart()
        note(f"{saved}a new chat begins")

    def _set(self, text: str) -> None:
        name, value = chat_settings.parse(text)
        if not name:
            lines = [(each, f"{chat_settings.value_of(self._chat, each):<11} {chat_settings.purpose(each)}")
                     for each in SETTINGS]  # fmt: skip
            note_fields(lines)
        elif name == "system":
            self._system(value)
        elif name not in SETTINGS:
            guess = did_you_mean(name, SETTINGS)
            known = f", did you mean {guess}?" if guess else f": {', '.join(SETTINGS)}"
            note(f"there is no setting {name!r}{known}")
        elif value and (refusal := self._change(name, value)):
            note(f"{name} is {refusal}, not {value!r}")
        else:
            note(f"{name:<16}{chat_settings.value_of(self._chat, name)}")

    def _change(self, name: str, value: str) -> str:
        """As `chat_settings.change`; a server's context is changed by loading the model here."""
        try:
            return chat_settings.change(self._chat, name, value)
        except ContextFixed as error:
            if not self._load_here(error):
                raise
            return ""

    def _model(self, name: str) -> None:
        if name:
            self._switch(name)
            self._introduce()
        else:
            note(f"{self._chat.model.name}  {self._chat.model.place}")

    def _docs(self, name: str) -> None:
        if name:
            self._use_documents(None if name == OFF else name)
        used, names = self._chat.documents, ", ".join(self._collections())
        if used is not None:
            note(f"answers come from the collection {used.name}; /docs {OFF} asks the model alone")
        elif name:
            note("the model answers alone")
        else:
            note(f"/docs NAME answers from documents; there are {names}" if names else NO_DOCUMENTS)

    def _tools(self, _: str) -> None:
        if self._chat.tools is None:
            note("this chat has no tools; edgellm chat --tools NAME,... begins one that has")
            return
        tools = self._chat.tools.toolbox
        for tool in tools:
            may = "runs" if tools.consent.is_allowed(tool) else "asks" if tools.consent.may_offer(tool) else "is off"
            note(f"{printable(tool.name):<14}{may:<7}{tool.risk.value}")

    def _calls(self, _: str) -> None:
        if calls := self._chat.calls:
            print_calls(calls)
        else:
            note("the last answer called no tool")

    def _file(self, name: str) -> None:
        if not name:
            note("/file PATH puts a text file into the next question")
            return
        path = _path(name)
        text = read_text(path)
        n_tokens, n_ctx = self._chat.count(text), self._chat.model.plan.n_ctx
        if n_tokens >= n_ctx:
            note(f"{printable(path.name)} has {n_tokens:,} tokens, the context holds {n_ctx:,}: it is left out")
            return
        self._attached.append(f"{path.name}:\n```\n{text.rstrip()}\n```")
        note(f"{printable(path.name)}: {n_tokens:,} tokens, which go with the next question")

    def _save(self, name: str) -> None:
        if not name:
            note("/save PATH writes the chat as Markdown, or as JSON if PATH ends so")
            return
        self._chat.save(_path(name))
        note(f"written: {printable(str(_path(name)))}")

    def _load(self, name: str) -> None:
        if not name:
            note("/load ID, or the path of a JSON file that /save wrote")
        elif _path(name).is_file():
            self._chat.load_file(_path(name))
            self._say_where_it_stands()
        elif self._chat.store is None:
            note("this chat is private: saved ones stay closed")
        else:
            self._chat.load(name)
            self._use_documents(self._chat.docs if self._chat.docs in self._collections() else None)
            self._introduce()

    def _stats(self, _: str) -> None:
        stats, model = self._chat.stats, self._chat.model
        note(final_lines(stats, model.threads) if stats else "nothing has been answered yet")

    def _compact(self, _: str) -> None:
        chat = self._chat
        before, n_tokens = chat.messages, chat.n_tokens
        self._show(lambda interrupted: chat.compact(interrupted=interrupted))
        if chat.messages == before:
            note("the chat stays as it was")
        else:
            note(f"the chat was {n_tokens:,} tokens and is {chat.n_tokens:,} now; what the summary covers stays saved")


def _path(name: str) -> Path:
    """A path as it was typed, perhaps in quotes."""
    return Path(os.path.expanduser(name.strip("'\"")))  # noqa: PTH111, Path's own raises for unknown users
