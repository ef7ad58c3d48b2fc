"""The guard: a loop is ended and not sent, time runs out, one call is enough, and what is said about it."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from edgellm.run.events import Call, Cut, End, Event, Text, Thought, TokenCounts
from edgellm.run.loops import LoopGuard
from edgellm.serve.answer.guard import Guard
from tests.serve.recordings import events, folded, sent

COUNTS = TokenCounts(3, 9, 0)
END = End("stop", tokens=COUNTS)


class Answer:
    """Guarded events, and how often the worker was asked to end them."""

    def __init__(self, items: Iterable[Event], *, loops: bool = True, one_call: bool = False) -> None:
        self.n_ends = 0
        guard = Guard(self._end, LoopGuard if loops else None, one_call=one_call)

        async def collected() -> list[Event]:
            return [event async for event in guard.watch(sent(list(items)))]

        self.events = asyncio.run(collected())

    async def _end(self) -> None:
        self.n_ends += 1

    @property
    def end(self) -> End:
        (end,) = [event for event in self.events if isinstance(event, End)]
        return end


def looping(n: int, kind: Any = Text) -> list[Event]:
    return [Text("Well:"), *(kind(piece) for _ in range(n) for piece in (" round", " and"))]


@pytest.mark.parametrize("kind", [Text, Thought])
def test_a_loop_is_ended_once_and_what_comes_after_it_is_dropped(kind: Any) -> None:
    answer = Answer([*looping(300, kind), Call(0, "c", "f", ""), END])
    assert answer.n_ends == 1
    cut = answer.end.cut
    assert cut is not None and cut.reason == "repetition" and cut.repeated == "round and" and cut.kept == 3
    n_texts = sum(isinstance(event, (Text, Thought)) for event in answer.events)
    assert 3 * 2 < n_texts < 601, "what came after the loop was noticed is dropped"
    assert cut.repetitions == pytest.approx(n_texts / 2, abs=1)
    assert answer.end.tokens == COUNTS and answer.end.reason == "stop"
    assert [event for event in answer.events if isinstance(event, Call)], "a call is no loop"
    fields = {"finish_reason": "repetition", "repeated": cut.repeated, "repetitions": cut.repetitions, "kept_pieces": 3}
    assert cut.as_field() == fields


def test_the_fold_keeps_what_came_before_the_loop() -> None:
    assert folded(Answer([*looping(300), END]).events).choice.text == "Well: round and"
    thought = folded(Answer([Thought("Hm."), *looping(300), END]).events)
    assert thought.choice.thoughts == "Hm." and thought.choice.text == "Well: round and"


def test_a_second_attempt_is_watched_from_its_own_beginning() -> None:
    async def work() -> Event:
        async def end() -> None:
            pass

        guard = Guard(end, LoopGuard, one_call=False)
        for attempt in ([Thought("Hm."), Text("Well")], [*looping(300), END]):
            found = [event async for event in guard.watch(sent(attempt))]
        return found[-1]

    assert asyncio.run(work()) == Answer([*looping(300), END]).end


def test_pieces_without_text_do_not_count() -> None:
    plain = Answer([*looping(300), END])
    held = Answer([each for event in looping(300) for each in (Text("", raw=b"x"), event)] + [END])
    assert held.end == plain.end


def test_without_a_guard_everything_passes() -> None:
    items = [*looping(300), END]
    assert Answer(items, loops=False).events == items


@pytest.mark.parametrize("name", ["chat", "chat_thought", "chat_calls", "chat_n2", "completion_prompts"])
def test_an_answer_without_fault_passes_as_it_is(name: str) -> None:
    answer = Answer(events(name), one_call=False)
    assert answer.events == events(name) and answer.n_ends == 0


def test_one_call_is_enough_where_one_was_asked_for() -> None:
    recorded = events("chat_call")
    assert {event.position for event in recorded if isinstance(event, Call)} == {0, 1}, "the model made two"
    answer = Answer(recorded, one_call=True)
    assert {event.position for event in answer.events if isinstance(event, Call)} == {0}
    assert answer.end.reason == "tool_calls" and answer.end.cut is None and answer.n_ends == 1
    first = [event for event in recorded if not isinstance(event, (Call, End)) or getattr(event, "position", 1) == 0]
    assert answer.events[:-1] == first
    (call,) = folded(answer.events).choice.calls
    assert call.text == '{\n    "city": "Paris"\n}'


def test_one_call_that_stays_alone_ends_by_itself() -> None:
    items = [Call(0, "c", "f", "{}"), END]
    answer = Answer(items, one_call=True)
    assert answer.events == items and answer.n_ends == 0


def test_time_runs_out_and_says_so() -> None:
    async def work() -> None:
        ended = asyncio.Event()

        async def end() -> None:
            ended.set()

        async def until_ended() -> Any:
            yield Text("a")
            await ended.wait()
            yield Text("b")
            yield END

        guard = Guard(end, LoopGuard, one_call=False)
        timer = asyncio.create_task(guard.end_after(0.001))
        found = [event async for event in guard.watch(until_ended())]
        timer.cancel()
        assert found == [Text("a"), Text("b"), End("stop", tokens=COUNTS, cut=Cut("time"))]
        assert Cut("time").as_field() == {"finish_reason": "time"}

    asyncio.run(asyncio.wait_for(work(), 30))


def test_a_loop_that_was_found_first_stays_the_reason() -> None:
    async def work() -> None:
        n_ends = 0

        async def end() -> None:
            nonlocal n_ends
            n_ends += 1

        guard = Guard(end, LoopGuard, one_call=False)
        source = guard.watch(sent([*looping(300), END]))
        found = []
        async for event in source:
            if isinstance(event, End):
                await guard.end_after(0)
            found.append(event)
        assert n_ends == 1 and found[-1].cut.reason == "repetition"

    asyncio.run(work())
