"""One answer of a chat under way: the model's own, one from documents, or one with tools.

    reply = plain_reply(session, messages, structure)
    for event in reply.events(sampling, limits): ...
    text, citations = reply.checked(stats)

The model sees passages and results of tools only for this one answer; the chat keeps the answer, its citations and its
calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgellm.chats.model import ChatSession
from edgellm.documents.answers.citation import Citation
from edgellm.engine.sampling import Sampling
from edgellm.run.events import End, Event
from edgellm.run.generation import Limits
from edgellm.run.message import Message
from edgellm.run.session import Turn
from edgellm.run.telemetry import Stats
from edgellm.tools.record import CallRecord

if TYPE_CHECKING:
    from edgellm.documents.answers.dialogue import Consultation, QuestionSource
    from edgellm.documents.answers.question import DocumentAnswer
    from edgellm.run.structure import Structure
    from edgellm.tools.in_use import ToolsInUse
    from edgellm.tools.rounds import ToolRounds


@dataclass(slots=True)
class Reply:
    """An answer of the model alone, to `turn`; it fills as the answer comes."""

    session: ChatSession
    turn: Turn
    structure: Structure | None = None

    def events(self, sampling: Sampling, limits: Limits) -> Generator[Event, None, None]:
        """Compute it."""
        hint = self.structure.hint if self.structure else ""
        return self.session.answer(self.turn, sampling, limits, hint)

    def checked(self, stats: Callable[[], Stats]) -> tuple[str, list[Citation]]:
        """The text of the answer with its citations; of one that was stopped, what there is."""
        return self.turn.text, []

    @property
    def calls(self) -> list[CallRecord]:
        """The calls that it made, in order."""
        return []

    @property
    def consultation(self) -> Consultation | None:
        """How the question was put to documents, if it was."""
        return None

    @property
    def found(self) -> DocumentAnswer | None:
        """The answer from documents after the check."""
        return None


@dataclass(slots=True)
class DocumentReply(Reply):
    """An answer from documents; without a prompt they answer by themselves: they do not say it."""

    asked: Consultation | None = None
    answer: DocumentAnswer | None = None

    def events(self, sampling: Sampling, limits: Limits) -> Generator[Event, None, None]:
        """Compute it, if the documents have not answered."""
        if self._needs_model:
            yield from self.session.answer(self.turn, sampling, limits)
        else:
            self.turn.reason = "stop"
            yield End("stop")

    def checked(self, stats: Callable[[], Stats]) -> tuple[str, list[Citation]]:
        """The answer with what bears it."""
        if self.asked is None or self.turn.reason in ("", "interrupted"):
            return self.turn.text, []
        self.answer = self.asked.question.answer(self.turn.text, stats() if self._needs_model else None)
        return self.answer.answer, self.answer.citations

    @property
    def consultation(self) -> Consultation | None:
        """How the question was put to documents."""
        return self.asked

    @property
    def found(self) -> DocumentAnswer | None:
        """The answer after the check."""
        return self.answer

    @property
    def _needs_model(self) -> bool:
        return self.asked is not None and bool(self.asked.messages)


@dataclass(slots=True)
class ToolReply(Reply):
    """An answer for which the model may call tools."""

    messages: Sequence[Message] = ()
    rounds: ToolRounds | None = None
    n_ctx: int = 0

    def events(self, sampling: Sampling, limits: Limits) -> Generator[Event, None, None]:
        """Compute it, with its calls."""
        from edgellm.tools.dialogue import answer

        if self.rounds is None:
            raise ValueError("a reply with tools needs their rounds")
        return answer(self.session, self.messages, self.rounds, sampling, limits, n_ctx=self.n_ctx, turn=self.turn)

    def checked(self, stats: Callable[[], Stats]) -> tuple[str, list[Citation]]:
        """The text of the answer, without the blank space around its calls."""
        return self.turn.text.strip(), []

    @property
    def calls(self) -> list[CallRecord]:
        """The calls that it made, in order."""
        return [CallRecord.of(each) for each in self.rounds.returned] if self.rounds else []


def plain_reply(session: ChatSession, messages: Sequence[Message], structure: Structure | None) -> Reply:
    """The model's own answer to the last message."""
    return Reply(session, session.turn(messages), structure)


def document_reply(
    session: ChatSession, messages: Sequence[Message], documents: QuestionSource, *, n_ctx: int, most_answer: int
) -> Reply:
    """An answer from documents; searches them. `most_answer` are the tokens that it may have."""
    from edgellm.documents.answers.dialogue import consult

    asked = consult(documents, messages, session, n_ctx=n_ctx, most_answer=most_answer)
    turn = session.turn(asked.messages) if asked.messages else Turn("", [])
    return DocumentReply(session, turn, asked=asked)


def tool_reply(session: ChatSession, messages: Sequence[Message], tools: ToolsInUse, *, n_ctx: int) -> Reply:
    """An answer with tools; its turn fills as it comes."""
    rounds = tools.rounds(messages[-1]["content"], session.count)
    return ToolReply(session, Turn("", []), messages=messages, rounds=rounds, n_ctx=n_ctx)
