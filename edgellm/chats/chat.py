"""A chat: one model, the messages so far, and where they are saved.

    with Chat(model, store=store) as chat:
        chat.ask("What is a ternary weight?").text
        chat.undo()

A question is saved before it is answered and an answer when it ends, so a crash loses only the answer under way.
Leaving a stream early keeps the beginning of the answer. The messages live in the chat's record and nowhere else; the
session only holds the tokens of the last answer.

With documents every question is put to them (`documents/answers/dialogue.py`): the chat keeps the plain question and
the answer with its citations; the passages are only in the prompt of that one answer. With tools it is the same: the
chat keeps the answer and its calls, and the model does not see the results again (`tools/dialogue.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.chats.model import ChatModel
from edgellm.chats.record import ChatRecord
from edgellm.chats.transcript import read, write
from edgellm.documents.answers.options import document_options, is_greeting
from edgellm.engine.sampling import Sampling, shifted
from edgellm.errors import UsageError
from edgellm.run.answer import Answer, AnswerStream
from edgellm.run.answer_options import AnswerOptions, check_option
from edgellm.run.events import Event
from edgellm.run.generation import Limits, never, penalised
from edgellm.run.message import Message
from edgellm.run.session import Turn
from edgellm.run.telemetry import Stats
from edgellm.tools.record import CallRecord

if TYPE_CHECKING:
    from edgellm.chats.reply import Reply
    from edgellm.chats.store import ChatStore, SavedChat
    from edgellm.chats.summary import SummaryTurn
    from edgellm.documents.answers.dialogue import Consultation, QuestionSource
    from edgellm.documents.answers.question import DocumentAnswer
    from edgellm.tools.in_use import ToolsInUse


class Chat:
    """One conversation. A saved chat must be used by the thread that opened it."""

    def __init__(
        self,
        model: ChatModel,
        options: AnswerOptions | None = None,
        *,
        store: ChatStore | None = None,
        saved: SavedChat | None = None,
        system: str | None = None,
        documents: QuestionSource | None = None,
        tools: ToolsInUse | None = None,
    ) -> None:
        """Begin a chat, or go on with a `saved` one of the store; without a store nothing is saved.

        Args:
            options: how to answer; the seed is chosen once for the whole chat.
            system: the system message; None for the model's own.
            documents: put every question to them; see `use_documents`.
            tools: what the model may call; they are closed with the chat.

        Raises:
            UnsupportedModel: the model has no chat template.
        """
        self.model = model
        self.options = options or AnswerOptions()
        seed = self.options.sampling(None).seed
        self.options = replace(self.options, asked={**self.options.asked, "seed": seed})
        # The numbers of the last answer, None before there is one.
        self.stats: Stats | None = None
        # What is in use: documents, or tools.
        self.documents: QuestionSource | None = None
        self.tools = tools
        # The last answer, or the one under way; None for a summary.
        self._reply: Reply | None = None
        self._session = model.open_session(private=store is None)
        # A system message that the user chose outlives a change of the model.
        self._system_chosen = system is not None or model.options.system is not None
        self._n_again = 0
        if store is not None and saved is not None:
            self._record = self._resumed(store, saved)
        else:
            self._record = ChatRecord(store, model.name, model.system if system is None else system)
        if documents is not None:
            self.use_documents(documents)
        if documents is not None and tools is not None:
            raise UsageError("documents and tools are two ways to answer", hint="the tool documents searches them")

    @property
    def id(self) -> str | None:
        """Its id among the saved chats; None while nothing of it is saved."""
        return self._record.chat

    @property
    def docs(self) -> str | None:
        """The name of the documents that it uses, or used when it was saved."""
        return self._record.docs

    @property
    def store(self) -> ChatStore | None:
        """Where it is saved, None for a private chat."""
        return self._record.store

    @property
    def messages(self) -> list[Message]:
        """What the model sees, the system message first: after `compact` a summary and what came later."""
        return self._record.messages

    @property
    def system(self) -> str | None:
        """The system message; None leaves it to the chat template."""
        return self._record.system

    @property
    def n_tokens(self) -> int:
        """Tokens of the conversation so far, as a prompt."""
        return self._session.count_tokens(self.messages)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return self._session.count(text)

    @property
    def sampling(self) -> Sampling:
        """How the next answer is drawn."""
        return (document_options(self.options) if self.documents else self.options).sampling(self.model.recipe)

    @property
    def calls(self) -> list[CallRecord]:
        """The calls of the last question, in order."""
        return self._reply.calls if self._reply else []

    @property
    def consultation(self) -> Consultation | None:
        """How the last question was put to documents, if it was."""
        return self._reply.consultation if self._reply else None

    @property
    def found(self) -> DocumentAnswer | None:
        """The last answer from documents after the check."""
        return self._reply.found if self._reply else None

    @property
    def limits(self) -> Limits:
        """When the next answer ends at the latest."""
        return self.options.limits

    @property
    def is_answered(self) -> bool:
        """Whether the last message is an answer."""
        return self._record.last_is("assistant")

    @property
    def is_unanswered(self) -> bool:
        """Whether the last message is a question: `again` answers it."""
        return self._record.last_is("user")

    @property
    def can_compact(self) -> bool:
        """Whether there are turns that `compact` could summarise."""
        try:
            self._summary_turn()
        except UsageError:
            return False
        return True

    def ask(self, text: str, *, interrupted: Callable[[], bool] = never) -> Answer:
        """Answer a message of the user; both join the chat.

        Raises:
            PromptTooLong: the conversation does not fit any more; it stays as it was.
            AnswerMismatch: the answer does not have the form that the options ask for; it is part of the chat.
        """
        stream = self.stream(text, interrupted=interrupted)
        whole = stream.answer
        stream.check()
        return replace(whole, text=self.found.answer) if self.found else whole

    def stream(
        self, text: str, *, interrupted: Callable[[], bool] = never, on_end: Callable[[], None] = lambda: None
    ) -> AnswerStream:
        """As `ask`, piece by piece; nothing happens before the first one is asked for. `on_end` is called after it."""
        return self._question(text, interrupted, on_end=on_end)

    def again(self, *, interrupted: Callable[[], bool] = never) -> AnswerStream:
        """Answer the last question again with the next seed; the new answer replaces the old one.

        An answer that went round in circles is continued from before that, with penalties on repetition; with a grammar
        it is begun anew.

        Raises:
            UsageError: there is no question.
        """
        record = self._record
        messages = record.messages[:-1] if self.is_answered else record.messages
        if not messages or messages[-1]["role"] != "user":
            raise UsageError("there is no question to answer again")
        self._n_again += 1
        options = self._options_for(messages[-1]["content"])
        sampling = options.sampling(self.model.recipe)
        sampling, looped = replace(sampling, seed=shifted(sampling.seed, self._n_again)), self._looped_turn()
        turn: Turn | None = None
        if looped is not None:
            sampling = penalised(sampling)
            # The place in a grammar is not known half-way, and the sources may be others now.
            if not sampling.grammar and self.documents is None and self.tools is None:
                turn = looped.continued()
        return self._stream(self._answered_again(messages, turn, sampling, _until(options, interrupted)), sampling)

    def edit(self, text: str, *, interrupted: Callable[[], bool] = never) -> AnswerStream:
        """Ask this instead of the last question; the old question and its answer stay if the new one does not fit."""
        return self._question(text, interrupted, replaces_last=True)

    def compact(self, *, interrupted: Callable[[], bool] = never) -> AnswerStream:
        """Let the model summarise the oldest turns; the summary takes their place once it is whole.

        It covers as many turns as fit beside a summary of a quarter of the context. In a saved chat the turns that it
        covers stay readable, but the model no longer sees them.

        Raises:
            UsageError: there is nothing to summarise.
            PromptTooLong: not even the first turn fits.
        """
        from edgellm.chats.summary import SUMMARISE, WHOLE

        plain = replace(self.options, structure=None)  # a summary is for the model, in no form
        sampling = plain.sampling(self.model.recipe)
        asked = self._summary_turn()
        limits = replace(_until(plain, interrupted), max_tokens=asked.room, stop=())

        def summarised() -> Generator[Event, None, None]:
            yield from self._session.answer(asked.turn, sampling, limits)
            if asked.turn.text and asked.turn.reason in WHOLE:
                self._record.summarise(asked.n_covered, SUMMARISE, asked.turn.text)

        return self._stream(summarised(), sampling, has_form=False)

    def _question(
        self,
        text: str,
        interrupted: Callable[[], bool],
        *,
        replaces_last: bool = False,
        on_end: Callable[[], None] = lambda: None,
    ) -> AnswerStream:
        options = self._options_for(text)
        sampling = options.sampling(self.model.recipe)
        events = self._asked(text, sampling, _until(options, interrupted), replaces_last=replaces_last)
        return self._stream(events, sampling, on_end=on_end)

    def _options_for(self, text: str) -> AnswerOptions:
        return document_options(self.options) if self._is_for_documents(text) else self.options

    def _is_for_documents(self, text: str) -> bool:
        return self.documents is not None and not is_greeting(text)

    def _stream(
        self,
        events: Generator[Event, None, None],
        sampling: Sampling,
        *,
        has_form: bool = True,
        on_end: Callable[[], None] = lambda: None,
    ) -> AnswerStream:
        self._reply = None
        self._meter = meter = self._session.meter()
        structure = self.options.structure if has_form else None

        def ended(stats: Stats) -> None:
            self.stats = stats
            self.model.answered(stats)
            on_end()

        return AnswerStream(events, meter, sampling=sampling, structure=structure, on_end=ended)

    def _begin_reply(self, messages: Sequence[Message], limits: Limits) -> Reply:
        """The answer to the last message: from documents if they are in use, or with tools."""
        from edgellm.chats.reply import document_reply, plain_reply, tool_reply

        n_ctx = self.model.plan.n_ctx
        if self.tools is not None:
            self._reply = tool_reply(self._session, messages, self.tools, n_ctx=n_ctx)
        elif self.documents is not None and self._is_for_documents(messages[-1]["content"]):
            self._reply = document_reply(
                self._session, messages, self.documents, n_ctx=n_ctx, most_answer=limits.max_tokens
            )
        else:
            self._reply = plain_reply(self._session, messages, self.options.structure)
        return self._reply

    def _asked(
        self, text: str, sampling: Sampling, limits: Limits, *, replaces_last: bool = False
    ) -> Generator[Event, None, None]:
        self._n_again = 0
        record = self._record
        # A question without an answer, of a chat that ended there, is replaced too.
        n_kept = self._last_question() if replaces_last or self.is_unanswered else len(record.entries)
        n_head = len(record.messages) - len(record.entries)
        asked_with = [*record.messages[: n_head + n_kept], Message(role="user", content=text)]
        reply = self._begin_reply(asked_with, limits)
        events = reply.events(sampling, limits)
        asked = leaving = False
        try:
            for event in events:
                if not asked:  # now it is known to fit
                    record.take_back(n_kept)
                    record.add("user", text)
                    asked = True
                yield event
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            leaving = True  # the question stays, so that it can be answered another time
            raise
        finally:
            events.close()
            said, citations = reply.checked(self._meter.stats)
            if asked and said:
                record.add("assistant", said, reply.turn.reason or "interrupted", citations, reply.calls)
            elif asked and not leaving:
                record.take_back(len(record.entries) - 1)

    def _answered_again(
        self, messages: Sequence[Message], looped: Turn | None, sampling: Sampling, limits: Limits
    ) -> Generator[Event, None, None]:
        from edgellm.chats.reply import Reply

        reply = Reply(self._session, looped, self.options.structure) if looped else self._begin_reply(messages, limits)
        turn, n_kept = reply.turn, len(reply.turn.pieces)
        try:
            yield from reply.events(sampling, limits)
        finally:
            text, citations = reply.checked(self._meter.stats)
            if text and (turn.reason or len(turn.pieces) > n_kept):
                change = self._record.replace_answer if self.is_answered else partial(self._record.add, "assistant")
                change(text, turn.reason or "interrupted", citations, reply.calls)

    def _looped_turn(self) -> Turn | None:
        """The last answer, if it is the chat's and ended because it repeated itself."""
        last = self._session.last
        is_ours = last is not None and self.is_answered and last.text == self._record.entries[-1].content
        return last if is_ours and last is not None and last.reason == "repetition" else None

    def _summary_turn(self) -> SummaryTurn:
        from edgellm.chats.summary import summary_turn

        messages, n_ctx = self._record.messages, self.model.plan.n_ctx
        n_head = len(messages) - len(self._record.entries)
        return summary_turn(self._session, messages, n_head=n_head, n_ctx=n_ctx)

    def undo(self) -> list[Message]:
        """Take back the last question and what came after it; returns the messages, none if nothing was asked."""
        return self._record.take_back(self._last_question())

    def _last_question(self) -> int:
        """The number of the entry with the last question; the number of entries if there is none."""
        entries = self._record.entries
        return max((n for n, entry in enumerate(entries) if entry.role == "user"), default=len(entries))

    def restart(self) -> None:
        """Begin a new chat with the same system message; the old one stays saved."""
        self._begin(ChatRecord(self.store, self.model.name, self.system))

    def set_system(self, text: str) -> None:
        """Begin a new chat with another system message."""
        self._system_chosen = True
        self._begin(ChatRecord(self.store, self.model.name, text))

    def set(self, **asked: float) -> None:
        """Change sampling options, the seed among them, from the next answer on.

        Raises:
            UsageError: there is no such option, or its value is out of range.
        """
        checked = {name: check_option(name, value) for name, value in asked.items()}
        self.options = replace(self.options, asked={**self.options.asked, **checked})

    def limit(self, limits: Limits) -> None:
        """Change when answers end, from the next one on."""
        self.options = replace(self.options, limits=limits)

    def load(self, name: str) -> None:
        """Go on with a saved chat, by its id or the beginning of it; `docs` names the documents that it used.

        Raises:
            ChatNotFound: there is none.
            UsageError: there are several, or this chat is private.
        """
        if self.store is None:
            raise UsageError("this chat is private: saved ones stay closed")
        self._begin(self._resumed(self.store, self.store.get(name)), with_its_docs=True)

    def _resumed(self, store: ChatStore, saved: SavedChat) -> ChatRecord:
        record = ChatRecord.resume(store, saved)
        if saved.model != self.model.name:
            record.use_model(self.model.name, saved.system)
        return record

    def load_file(self, path: Path) -> None:
        """Begin a new chat with the messages of a JSON file that `save` wrote.

        Raises:
            FileAccessError, CorruptFile: it cannot be read, or is no chat.
        """
        self._begin(ChatRecord.of_messages(self.store, self.model.name, read(path)))

    def save(self, path: Path) -> None:
        """Write the whole chat to a new file: as JSON if its name ends so, else as Markdown.

        Raises:
            UsageError: the file exists.
        """
        write(path, self.model.name, self._record.whole)

    def use(self, model: ChatModel) -> None:
        """Let another model answer from now on. It brings its recipe's settings, but for those that were asked for.

        Raises:
            UnsupportedModel: it has no chat template; the chat stays as it was.
        """
        session = model.open_session(private=self.store is None)
        is_own = self._record.system == self.model.system and not self._system_chosen
        self._record.use_model(model.name, model.system if is_own else self._record.system)
        self.model, self._session = model, session

    def use_documents(self, documents: QuestionSource | None) -> None:
        """Put every question to these documents from now on; None asks the model alone again.

        Raises:
            UsageError: the answers must have a form.
        """
        if documents is not None:
            document_options(self.options)
        self.documents = documents
        self._record.use_docs(documents.name if documents else None)

    def _begin(self, record: ChatRecord, *, with_its_docs: bool = False) -> None:
        self._record, self.stats, self._n_again = record, None, 0
        if not with_its_docs:
            record.use_docs(self.documents.name if self.documents else None)

    def close(self) -> None:
        """Close the store and the documents that it was given. The model stays open."""
        if self.store is not None:
            self.store.close()
        if self.documents is not None:
            self.documents.close()
        if self.tools is not None:
            self.tools.close()

    def __enter__(self) -> Chat:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _until(options: AnswerOptions, interrupted: Callable[[], bool]) -> Limits:
    """The limits of an answer that may be interrupted."""
    limits = options.limits
    return limits if interrupted is never else replace(limits, interrupted=interrupted)
