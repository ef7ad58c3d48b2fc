"""A message of a chat, put to documents: the question with its sources and the earlier turns, within the context.

    asked = consult(documents, messages, session, n_ctx=4096, most_answer=160)
    session.turn(asked.messages)             # what the model sees, if asked.question.is_open
    asked.question.answer(draft).citations

Sources come first; of the earlier turns the latest stay that fit beside them. `run`, `chat` and batches all ask so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgellm.documents.answers.follow_up import standalone
from edgellm.documents.answers.prompt import SYSTEM
from edgellm.documents.answers.question import ROOM, DocumentQuestion
from edgellm.errors import PromptTooLong
from edgellm.run.message import Message

# The part of the context, as a divisor, that an answer keeps free at most.
ANSWER_PART = 4


class QuestionSource(Protocol):
    """An open collection that questions can be put to; `library.Documents` is one."""

    name: str

    def question(self, text: str, *, count: Callable[[str], int], room: int) -> DocumentQuestion:
        """A question with the passages that `room` tokens hold; `count` counts the tokens of a text."""

    def close(self) -> None:
        """Close the collection."""


class TokenCounter(Protocol):
    """Counts tokens as the model does; a session is one."""

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the prompt that these messages make."""

    def count(self, text: str) -> int:
        """Tokens of a text."""


@dataclass(frozen=True, slots=True)
class Consultation:
    """A question to documents within a chat.

    `messages` are for the model, none if it is not needed; `n_forgotten` earlier ones found no room among them.
    """

    question: DocumentQuestion
    messages: list[Message] = field(default_factory=list)
    n_forgotten: int = 0


def consult(
    documents: QuestionSource, messages: Sequence[Message], counter: TokenCounter, *, n_ctx: int, most_answer: int
) -> Consultation:
    """Put the last message to documents.

    Args:
        messages: the plain chat, the new question last; its system message holds beside the rules for sources.
        counter: counts the tokens of prompts and texts.
        n_ctx: tokens that prompt and answer have together.
        most_answer: tokens that the answer may have, of which a quarter of the context is kept free at most.

    Raises:
        PromptTooLong: there is no room for the question and one passage.
    """
    own = messages[0]["content"] if messages[0]["role"] == "system" else ""
    head = Message(role="system", content="\n\n".join(filter(None, (own, SYSTEM))))
    earlier = [each for each in messages[:-1] if each["role"] != "system"]
    text = standalone(messages[-1]["content"], [each["content"] for each in earlier if each["role"] == "user"])
    limit = n_ctx - min(most_answer, n_ctx // ANSWER_PART)
    room = min(ROOM, limit - counter.count_tokens([head, Message(role="user", content="")]))
    question = documents.question(text, count=counter.count, room=room)
    if not question.is_open:
        if question.groups and not question.missing:
            _refuse_long(counter, text, n_ctx)
        return Consultation(question)
    asked = Message(role="user", content=question.prompt.text)
    kept: list[Message] = []
    for start in reversed([at for at, each in enumerate(earlier) if each["role"] == "user"]):
        if counter.count_tokens([head, *earlier[start:], asked]) > limit:
            break
        kept = earlier[start:]
    return Consultation(question, [head, *kept, asked], len(earlier) - len(kept))


def _refuse_long(counter: TokenCounter, text: str, n_ctx: int) -> None:
    n_tokens = counter.count(text)
    why = f"the question has {n_tokens:,} tokens, the context {n_ctx:,}"
    hint = "a shorter question, or a larger --ctx-size"
    raise PromptTooLong("there is no room for a passage beside the question", why=why, hint=hint)
