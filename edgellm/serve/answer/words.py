"""How a protocol writes an answer: as bytes of a stream, event by event, or as one document from the fold.

class ChatWords: ...      # in protocols/openai/words.py
words.write(Text("Paris"))  ->  b"data: {...}"

Words are pure: no sockets, no clocks but the time of creation, so golden tests need no server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

from edgellm.run.events import Cut, Event
from edgellm.serve.answer.whole import Change, Whole
from edgellm.serve.http.response import EVENTS
from edgellm.wire.encoding import encoded


class Words(Protocol):
    """What a protocol must be able to write; one object for each answer.

    `counts_first`: its first event has the number of the prompt's tokens, so llama-server must report them first.
    """

    media_type: str
    counts_first: bool

    def write(self, event: Event) -> bytes:
        """The bytes of an event, empty if the protocol has none for it."""

    def finish(self) -> bytes:
        """The bytes that end a stream."""

    def whole(self, answer: Whole) -> dict[str, Any]:
        """The document of an answer that is not streamed."""


class BlockWords:
    """Words of a protocol that streams blocks as server-sent events, each named by its field `type`."""

    media_type = EVENTS
    counts_first = True

    def __init__(self) -> None:
        self.answer = Whole()
        self._has_begun = False

    def begin(self) -> Iterable[dict[str, Any]]:
        """The first events; the tokens of the prompt are known."""
        raise NotImplementedError

    def change(self, change: Change) -> Iterable[dict[str, Any]]:
        """The events for a change of a block."""
        raise NotImplementedError

    def end(self) -> Iterable[dict[str, Any]]:
        """The last events."""
        raise NotImplementedError

    def write(self, event: Event) -> bytes:
        """The events that one event of the answer becomes."""
        written: list[bytes] = []
        for change in self.answer.changes(event):
            written += map(_server_sent, chain(self._begin(), self.change(change)))
        return b"".join(chain(written, map(_server_sent, self._begin())))

    def finish(self) -> bytes:
        """The last events."""
        return b"".join(_server_sent(each) for each in self.end())

    def _begin(self) -> Iterator[dict[str, Any]]:
        if not self._has_begun:
            self._has_begun = True
            yield from self.begin()


def _server_sent(event: dict[str, Any]) -> bytes:
    name: str = event["type"]
    return b"event: " + name.encode() + b"\ndata: " + encoded(event) + b"\n\n"


def cut_field(
    cut: Cut | None,
    warnings: Sequence[str] = (),
    tools_left_out: Sequence[Mapping[str, Any]] = (),
    documents: Mapping[str, Any] | None = None,
    cache: Mapping[str, Any] | None = None,
    ran: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The field `edgellm`: why edgellm ended an answer, what of the request it did not honour, and where it comes from.

    `documents` is the check of an answer from documents, `cache` what the answer cache says of a stored answer, `ran`
    are the calls that the server ran.
    """
    about = {} if cut is None else cut.as_field()
    if warnings:
        about["warnings"] = list(warnings)
    if tools_left_out:
        about["tools_left_out"] = list(tools_left_out)
    if documents:
        about["documents"] = documents
    if cache:
        about["cache"] = dict(cache)
    if ran:
        about["tools"] = list(ran)
    return {"edgellm": about} if about else {}
