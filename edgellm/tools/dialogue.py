"""A streamed answer that may call tools: generate, call, show the result, until the model answers.

    rounds = ToolRounds(toolbox, question, count=count)
    for event in answer(session, messages, rounds, sampling, limits, n_ctx=4096):
        match event:
            case Call(name=name): ...       # a call is about to run
            case Returned(text=text): ...   # its result
            case Text(text): ...            # the answer

It streams the steps of `steps.py`: an answer without a call costs nothing more, and a call is always valid.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import replace
from typing import Protocol

from edgellm.engine.sampling import Sampling
from edgellm.run.call_form import CallForm
from edgellm.run.events import NO_TOKEN, Call, End, Event, Looped, Prefill, Text
from edgellm.run.generation import Limits
from edgellm.run.session import Turn
from edgellm.tools.rounds import ToolRounds
from edgellm.tools.steps import MOST_CALL, Messages, ToolItem, ToolStep, own_form, room_beside, tool_steps

# How many tokens show whether a call comes, where an answer must have a form and so begins anew.
PROBE = 48


def answer(
    session: ToolSession,
    messages: Messages,
    rounds: ToolRounds,
    sampling: Sampling,
    limits: Limits,
    *,
    n_ctx: int,
    turn: Turn | None = None,
) -> Generator[Event, None, None]:
    """Yield the events of one answer with its calls; there is one `End`, and `limits` hold for the whole.

    Args:
        messages: the chat; the last one is the user's.
        n_ctx: the tokens of the context.
        turn: is filled with the text of the answer, without its calls, and with the reason of its end.

    Raises:
        PromptTooLong: messages and tools do not fit into the context; nothing has been computed.
    """
    filled = turn or Turn("", [])
    for event in _Dialogue(session, messages, rounds, sampling, limits, n_ctx).events():
        match event:
            case Text(text):
                filled.pieces.append(text)
            case Looped(kept_tokens=kept):
                del filled.pieces[kept:]
            case End(reason):
                filled.reason = reason
        yield event


class ToolSession(Protocol):
    """What it needs of a session; one of a server has no form of calls, so edgellm chooses the tools for its model."""

    @property
    def call_form(self) -> CallForm | None:
        """How the model writes calls; None if it is shown no tools."""

    @property
    def n_params(self) -> int:
        """The model's parameters."""

    def turn(self, messages: Messages, tools: Messages = (), begun: str = "") -> Turn:
        """The turn that answers these messages, with tools shown; of the answer `begun` is there already."""

    def count_tokens(self, messages: Messages, tools: Messages = ()) -> int:
        """Tokens of such a prompt."""

    def answer(self, turn: Turn, sampling: Sampling, limits: Limits, hint: str = "") -> Generator[Event, None, None]:
        """Compute a turn, which fills as it goes."""


class _Dialogue:
    """One answer under way; `n_pieces` counts the texts that were given out, `n_tokens` the tokens that were drawn."""

    def __init__(
        self,
        session: ToolSession,
        messages: Messages,
        rounds: ToolRounds,
        sampling: Sampling,
        limits: Limits,
        n_ctx: int,
    ) -> None:
        self._session, self._sampling, self._limits, self._n_ctx = session, sampling, limits, n_ctx
        form = own_form(session.call_form, session.n_params, rounds) if rounds.offered else None
        self._steps = tool_steps(messages, rounds, form, room=self._room, has_form=bool(sampling.grammar))
        self._began = time.monotonic()
        self._n_pieces = self._n_tokens = 0
        # Whether anything was shown, and whether it is apart from what was shown before the last call.
        self._has_shown, self._is_apart = False, True

    def events(self) -> Generator[Event, None, None]:
        """All events of the answer."""
        end, written = End("stop"), None
        while (item := self._next(written)) is not None:
            written = None
            if not isinstance(item, ToolStep):
                self._is_apart = self._is_apart and not isinstance(item, Call)
                yield item
                continue
            turn = self._session.turn(item.messages, item.tools, item.begun)
            if item.structure is not None:
                if cut := (yield from self._draw(turn, item)):
                    yield cut
                    return
            elif item.is_probe:
                yield from self._probe(turn, item)
            else:
                end = yield from self._write(turn, item)
            written = turn.text
        yield end

    def _next(self, written: str | None) -> ToolItem | None:
        """What comes next; None at the end."""
        try:
            return self._steps.send(written)
        except StopIteration:
            return None

    def _room(self, messages: Messages, tools: Messages) -> int:
        return room_beside(self._n_ctx, self._session.count_tokens(messages, tools))

    def _left(self) -> Limits:
        """What is left of the limits."""
        limits = self._limits
        tokens = limits.max_tokens if limits.max_tokens < 0 else max(0, limits.max_tokens - self._n_tokens)
        seconds = None if limits.max_seconds is None else limits.max_seconds - (time.monotonic() - self._began)
        return replace(limits, max_tokens=tokens, max_seconds=seconds)

    def _write(self, prompt: Turn, step: ToolStep) -> Generator[Event, None, End]:
        """Let the model write, up to where it begins a call; returns how it ended."""
        before, end, watch = self._n_pieces, End("stop"), step.watch
        events = self._session.answer(prompt, step.sampling(self._sampling), self._left())
        try:
            for event in events:
                match event:
                    case Text(text, token):
                        yield from self._show(watch.feed(text) if watch else text, token, event.repeated)
                        if watch and watch.found:
                            return End("tool_calls")
                    case Looped(kept_tokens=kept):
                        self._n_pieces, watch = before + kept, None
                        yield replace(event, kept_tokens=self._n_pieces)
                    case End():
                        end = event
                    case _:
                        yield event
        finally:
            events.close()
        if watch and watch.held:
            yield from self._show(watch.held, NO_TOKEN)
        return end

    def _probe(self, prompt: Turn, step: ToolStep) -> Generator[Event, None, None]:
        """Let the model write until it is known whether it calls; nothing of it is shown."""
        limits = replace(self._left(), max_tokens=PROBE, stop=(), retry=False)
        events = self._session.answer(prompt, step.sampling(self._sampling), limits)
        try:
            for event in events:
                if isinstance(event, Prefill):
                    yield event
                elif isinstance(event, Text) and _is_decided(step, event.text):
                    return
        finally:
            events.close()

    def _show(self, text: str, token: int, repeated: int = 1) -> Generator[Event, None, None]:
        """Give out a piece of the answer, apart from what was written before a call."""
        if text.strip():
            if self._has_shown and not self._is_apart:
                self._n_pieces += 1
                yield Text("\n\n", NO_TOKEN)
            self._has_shown = self._is_apart = True
        self._n_pieces += 1
        self._n_tokens += token != NO_TOKEN
        yield Text(text, token, repeated)

    def _draw(self, begun: Turn, step: ToolStep) -> Generator[Event, None, End | None]:
        """Let the model write what a grammar permits, unseen; an `End` if the user or a limit ended it."""
        left = self._left()
        most = MOST_CALL if left.max_tokens < 0 else min(MOST_CALL, left.max_tokens)
        limits = replace(left, max_tokens=most, stop=(), retry=False)
        for event in self._session.answer(begun, step.sampling(self._sampling), limits):
            match event:
                case Text(token=token):
                    yield from self._show("", token)
                case Prefill():
                    yield event
                case End(reason) if reason in ("interrupted", "time"):
                    return event
        return End("length") if 0 <= self._limits.max_tokens <= self._n_tokens else None


def _is_decided(step: ToolStep, text: str) -> bool:
    """Whether it is known, with one more piece of text, that a call comes or does not."""
    return step.watch is not None and (bool(step.watch.feed(text).strip()) or step.watch.found)
