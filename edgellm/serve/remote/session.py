"""A chat's prompts for a model of a server: the counterpart of `run.session.Session`.

    session = RemoteModel(...).open_session()
    turn = session.turn(messages)
    for event in session.answer(turn, sampling, limits): ...

The server renders the messages and keeps what it has computed of them, so a turn has no tokens here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.engine.sampling import Sampling
from edgellm.errors import EdgellmError, UsageError
from edgellm.run.events import End, Event, Looped, Text
from edgellm.run.generation import Limits
from edgellm.run.message import Message
from edgellm.run.session import Turn
from edgellm.serve.remote.model import RemoteMeter, RemoteModel


@dataclass(slots=True)
class RemoteTurn(Turn):
    """One answer of a server as it comes, to `messages`; pieces of text stand for tokens."""

    messages: tuple[Message, ...] = ()

    def continued(self) -> RemoteTurn:
        """A turn that begins where this one ended."""
        return RemoteTurn("", [], pieces=list(self.pieces), kept=len(self.pieces), messages=self.messages)


class RemoteSession:
    """The prompts of one chat; `last` is its last answer. Nothing of a private one is kept on the server's disk."""

    def __init__(self, model: RemoteModel, *, private: bool = False) -> None:
        self.model, self.private = model, private
        self.last: Turn | None = None

    @property
    def call_form(self) -> None:
        """None: the model is shown no tools, because the server would take its calls out of the text."""
        return

    @property
    def n_params(self) -> int:
        """The model's parameters; 0 if the server does not say."""
        n_params = self.model.status.get("n_params")
        return n_params if isinstance(n_params, int) else 0

    def turn(
        self,
        messages: Sequence[Message] | Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] = (),
        begun: str = "",
    ) -> RemoteTurn:
        """The turn that answers these messages, after the part that is `begun`.

        Raises:
            UsageError: tools are to be shown.
        """
        if tools:
            raise UsageError("a model of a server is shown no tools")
        shown = tuple(Message(role=str(each["role"]), content=str(each["content"])) for each in messages)
        return RemoteTurn("", [], pieces=[begun] if begun else [], kept=bool(begun), messages=shown)

    def count_tokens(
        self, messages: Sequence[Message] | Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]] = ()
    ) -> int:
        """Tokens of the prompt that these messages make."""
        return self.model.count_tokens(self.turn(messages, tools).messages)

    def count(self, text: str) -> int:
        """Tokens of a text."""
        return self.model.count(text)

    def answer(self, turn: Turn, sampling: Sampling, limits: Limits, hint: str = "") -> Generator[Event, None, None]:
        """Let the server answer a turn, which fills as the answer comes; raises as `RemoteModel.events` does."""
        messages = list(turn.messages) if isinstance(turn, RemoteTurn) else []
        try:
            events = self.model.events(messages, sampling, limits, begun=turn.text, private=self.private)
            for event in events:
                match event:
                    case Text(text):
                        turn.pieces.append(text)
                    case Looped(kept_tokens=kept):
                        del turn.pieces[turn.kept + kept :]
                    case End(reason):
                        turn.reason = reason
                yield event
        finally:
            if turn.text:
                self.last = turn

    def meter(self) -> RemoteMeter:
        """Measures the next answer."""
        with contextlib.suppress(EdgellmError):
            self.model.look()  # what the worker has computed before
        return RemoteMeter(self.model)
