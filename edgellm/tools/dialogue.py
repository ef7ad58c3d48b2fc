"""An answer of the in-process engine that may call tools: generate, call, show the result, until the model answers.

    rounds = ToolRounds(toolbox, question, count=count)
    for event in answer(session, messages, rounds, sampling, limits):
        match event:
            case Call(name=name): ...       # a call is about to run
            case Returned(text=text): ...   # its result
            case Text(text): ...            # the answer

A model whose template shows tools writes freely until it begins a call. From there a grammar takes over, which permits
only calls of the tools that are offered, with arguments of their schemas. So an answer without a call costs nothing
more, and a call is always valid. For other models edgellm chooses the tool that fits the question; they write only its
arguments, by the same grammar, and then answer from the result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgellm.engine.sampling import Sampling
from edgellm.run.call_form import CallForm, arguments_structure
from edgellm.run.events import NO_TOKEN, Call, End, Event, Looped, Prefill, Text
from edgellm.run.generation import Limits
from edgellm.run.session import Session, Turn
from edgellm.run.structure import Structure
from edgellm.tools.call_watch import CallWatch
from edgellm.tools.prompt import with_call, with_result
from edgellm.tools.rounds import ToolRounds

# The tokens that a call may have.
MOST_CALL = 400
# The part of the context that is kept free for the answer after a result, at most so many tokens.
ANSWER_SHARE, MOST_ANSWER = 4, 512
# How many tokens show whether a call comes, where an answer must have a form and so begins anew.
PROBE = 48


def answer(
    session: Session,
    messages: Sequence[Mapping[str, Any]],
    rounds: ToolRounds,
    sampling: Sampling,
    limits: Limits,
    *,
    turn: Turn | None = None,
) -> Generator[Event, None, None]:
    """Yield the events of one answer with its calls; there is one `End`, and `limits` hold for the whole.

    Args:
        messages: the chat; the last one is the user's.
        turn: is filled with the text of the answer, without its calls, and with the reason of its end.

    Raises:
        PromptTooLong: messages and tools do not fit into the context; nothing has been computed.
    """
    filled = turn or Turn("", [])
    for event in _Dialogue(session, messages, rounds, sampling, limits).events():
        match event:
            case Text(text):
                filled.pieces.append(text)
            case Looped(kept_tokens=kept):
                del filled.pieces[kept:]
            case End(reason):
                filled.reason = reason
        yield event


class _Dialogue:
    """One answer under way; `n_pieces` counts the texts that were given out, `n_tokens` the tokens that were drawn."""

    def __init__(
        self,
        session: Session,
        messages: Sequence[Mapping[str, Any]],
        rounds: ToolRounds,
        sampling: Sampling,
        limits: Limits,
    ) -> None:
        self._session, self._rounds, self._sampling, self._limits = session, rounds, sampling, limits
        self._asked: list[Mapping[str, Any]] = list(messages)
        self._messages = list(self._asked)
        self._tools = [tool.as_function for tool in rounds.offered]
        self._began = time.monotonic()
        self._n_pieces = self._n_tokens = 0
        # Whether anything was shown, and whether it is apart from what was shown before the last call.
        self._has_shown, self._is_apart = False, True

    def events(self) -> Generator[Event, None, None]:
        """All events of the answer."""
        form = self._session.call_form if self._tools else None
        end = (yield from self._choosing(form)) if form else (yield from self._chosen())
        yield end

    def _choosing(self, form: CallForm) -> Generator[Event, None, End]:
        """Let a model that knows tools write, and run its calls, until it answers."""
        while True:
            prompt = self._session.turn(self._messages, self._tools)
            watch = CallWatch(form, [tool.name for tool in self._rounds.offered])
            ended = yield from self._write(prompt, watch)
            if not watch.found:
                return ended
            structure = form.structure(self._tools)
            begun = self._session.turn_of(f"{prompt.rendered}{watch.before}{form.marker}")
            if cut := (yield from self._draw(begun, structure)):
                return cut
            name, arguments = form.read(begun.text) or ("", {})
            yield from self._run(name, arguments, watch.before)
            if not self._rounds.may_call:  # it would go on calling: let it answer where it sees no tools
                return (yield from self._answer())

    def _chosen(self) -> Generator[Event, None, End]:
        """Call the tool that fits the question for a model that knows none, then let it answer from the result."""
        while (tool := self._rounds.fitting) is not None:
            failed = self._rounds.returned
            begun = self._session.turn(with_call(self._asked, tool, self._rounds.examples(tool), failed))
            if ended := (
                yield from self._draw(
                    begun, arguments_structure(json.dumps(tool.as_function["function"]["parameters"]))
                )
            ):
                return ended
            yield from self._run(tool.name, read_arguments(begun.text), "")
        return (yield from self._answer())

    def _answer(self) -> Generator[Event, None, End]:
        """Let the model answer without tools, from what was returned."""
        rounds, messages = self._rounds, self._asked
        if rounds.returned:
            messages = with_result(messages, rounds.returned, rounds.toolbox, rounds.answered_examples)
        return (yield from self._write(self._session.turn(messages), None))

    def _left(self) -> Limits:
        """What is left of the limits."""
        limits = self._limits
        tokens = limits.max_tokens if limits.max_tokens < 0 else max(0, limits.max_tokens - self._n_tokens)
        seconds = None if limits.max_seconds is None else limits.max_seconds - (time.monotonic() - self._began)
        return replace(limits, max_tokens=tokens, max_seconds=seconds)

    def _write(self, prompt: Turn, watch: CallWatch | None) -> Generator[Event, None, End]:
        """Let the model write, up to where it begins a call; returns how it ended."""
        if watch is not None and self._sampling.grammar:
            if (yield from self._probe(prompt, watch)):
                return End("tool_calls")
            watch = None  # no call: the answer has the form from its first token
        before, end = self._n_pieces, End("stop")
        events = self._session.answer(prompt, self._sampling, self._left())
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

    def _probe(self, prompt: Turn, watch: CallWatch) -> Generator[Event, None, bool]:
        """Whether the model begins a call where its answer must have a form; nothing of it is shown."""
        free = replace(self._sampling, grammar="")
        limits = replace(self._left(), max_tokens=PROBE, stop=(), retry=False)
        for event in self._session.answer(prompt, free, limits):
            if isinstance(event, Prefill):
                yield event
            elif isinstance(event, Text) and (watch.feed(event.text).strip() or watch.found):
                break
        return watch.found

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

    def _draw(self, begun: Turn, structure: Structure) -> Generator[Event, None, End | None]:
        """Let the model write what a grammar permits, unseen; an `End` if the user or the time ended it."""
        left = self._left()
        most = MOST_CALL if left.max_tokens < 0 else min(MOST_CALL, left.max_tokens)
        limits = replace(left, max_tokens=most, stop=(), retry=False)
        for event in self._session.answer(begun, structure.constrain(self._sampling), limits):
            match event:
                case Text(token=token):
                    yield from self._show("", token)
                case Prefill():
                    yield event
                case End(reason) if reason in ("interrupted", "time"):
                    return event
        return End("length") if 0 <= self._limits.max_tokens <= self._n_tokens else None

    def _run(self, name: str, arguments: Mapping[str, Any], before: str) -> Generator[Event, None, None]:
        """Run a call and add it to the messages; one that was cut off is an error that the model reads."""
        position, call_id = len(self._rounds.returned), self._rounds.next_id
        text = json.dumps(arguments, ensure_ascii=False)
        self._is_apart = False
        yield Call(position, call_id, name, text)
        returned = self._rounds.run(call_id, name, text, room=self._room())
        yield returned
        self._messages += called(call_id, name, arguments, before, returned.text)

    def _room(self) -> int:
        """The tokens that a result may have, beside the prompt so far and the answer."""
        n_ctx = self._session.model.context.n_ctx
        used = len(self._session.turn(self._messages, self._tools).prompt)
        return n_ctx - used - min(MOST_ANSWER, n_ctx // ANSWER_SHARE)


def called(call_id: str, name: str, arguments: Mapping[str, Any], before: str, result: str) -> list[dict[str, Any]]:
    """A call and its result as messages for a chat template, which takes arguments as an object."""
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return [
        {"role": "assistant", "content": before, "tool_calls": [call]},
        {"role": "tool", "name": name, "tool_call_id": call_id, "content": result},
    ]


def read_arguments(text: str) -> dict[str, Any]:
    """Arguments that were written by a grammar; none where they were cut off."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
