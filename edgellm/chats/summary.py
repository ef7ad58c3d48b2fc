"""The summary that takes the place of a chat's oldest turns: what is asked for, and how many turns it can cover.

asked = summary_turn(session, messages, n_head=1, n_ctx=4096)
asked.turn, asked.n_covered, asked.room
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.chats.model import ChatSession
from edgellm.errors import PromptTooLong, UsageError
from edgellm.run.message import Message
from edgellm.run.session import Turn

SUMMARISE = (
    "Summarise our conversation so far, so that we can go on from the summary alone. Keep names, numbers, decisions and"
    " open questions. Answer in the language of the conversation, with the summary and nothing else."
)
# How a summary may end and still be whole; its length is limited.
WHOLE = ("stop", "length", "repetition")


@dataclass(frozen=True, slots=True)
class SummaryTurn:
    """The turn that asks for a summary, how many messages after the head it covers, and the tokens that it may have."""

    turn: Turn
    n_covered: int
    room: int


def summary_turn(session: ChatSession, messages: Sequence[Message], *, n_head: int, n_ctx: int) -> SummaryTurn:
    """The summary of as many turns as fit beside a summary of a quarter of the context.

    Args:
        n_head: messages before the turns: the system message, if there is one.

    Raises:
        UsageError: there is nothing to summarise.
        PromptTooLong: not even the first turn fits.
    """
    ends = [end for end in range(len(messages), n_head, -1) if messages[end - 1]["role"] == "assistant"]
    if not ends:
        raise UsageError("there is nothing to summarise yet")
    room = n_ctx // 4
    for end in ends:
        asked = [*messages[:end], Message(role="user", content=SUMMARISE)]
        if session.count_tokens(asked) + room <= n_ctx:
            return SummaryTurn(session.turn(asked), end - n_head, room)
    raise PromptTooLong("the conversation is too long to be summarised", hint="/undo, /clear, or a larger -c")
