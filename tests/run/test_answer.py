"""Answers as they stream, and the options that they are made with."""

import json
from collections.abc import Generator

import pytest

from edgellm.engine.sampling import OPTIONS, Sampling, SamplingArguments
from edgellm.errors import AnswerMismatch, UsageError
from edgellm.run.answer import AnswerStream
from edgellm.run.answer_options import AnswerOptions, check_option
from edgellm.run.events import End, Event, FinishReason, Looped, Prefill, Text
from edgellm.run.generation import Limits
from edgellm.run.loops import Loop
from edgellm.run.structure import Structure
from edgellm.run.telemetry import Meter, Stats


class Engine:
    """Events from a list; remembers whether they were read to the end or closed."""

    def __init__(self, *events: Event) -> None:
        self.planned = events
        self.closed = False

    def events(self) -> Generator[Event, None, None]:
        try:
            yield from self.planned
        finally:
            self.closed = True


def stream(*events: Event, structure: Structure | None = None) -> tuple[AnswerStream, Engine, list[Stats]]:
    engine, ended = Engine(*events), list[Stats]()
    made = AnswerStream(
        engine.events(), Meter(n_ctx=100), sampling=Sampling(), structure=structure, on_end=ended.append
    )
    return made, engine, ended


def said(*pieces: str, reason: FinishReason = "stop") -> list[Event]:
    return [Prefill(3, 3, 0), *map(Text, pieces), End(reason)]


def test_pieces_and_then_the_whole() -> None:
    answer, engine, ended = stream(*said("Hel", "", "lo"))
    assert list(answer) == ["Hel", "lo"]
    whole = answer.answer
    assert (whole.text, whole.finish_reason, str(whole)) == ("Hello", "stop", "Hello")
    assert whole.stats.completion_tokens == 3 and whole.stats.prompt_tokens == 3
    assert engine.closed and [stats.finish_reason for stats in ended] == ["stop"]
    assert list(answer) == [] and answer.answer.text == "Hello"  # once over, it stays over


def test_the_whole_can_be_read_at_once_or_after_some_pieces() -> None:
    assert stream(*said("a", "b"))[0].answer.text == "ab"
    answer, *_ = stream(*said("a", "b"))
    events = answer.events()
    next(events), next(events)
    assert answer.text == "a" and answer.answer.text == "ab"


def test_leaving_early_ends_it() -> None:
    answer, engine, ended = stream(*said("a", "b", "c"))
    for piece in answer:
        assert piece == "a"
        break
    assert engine.closed and ended == []
    assert (answer.answer.text, answer.answer.finish_reason) == ("a", "interrupted")
    unread, engine, _ = stream(*said("a"))
    unread.close()
    assert unread.answer.finish_reason == "interrupted" and unread.answer.text == ""


def test_a_repetition_is_no_part_of_the_answer() -> None:
    loop = Looped(Loop("ab", 9, 1), 1, False)
    answer, *_ = stream(Prefill(1, 1, 0), Text("a"), Text("b"), Text("b"), loop, End("repetition"))
    assert list(answer) == ["a", "b", "b"] and answer.answer.text == "a"
    assert answer.answer.finish_reason == "repetition"


def test_the_form_is_checked_at_the_end_unless_it_was_stopped() -> None:
    structure = Structure("root ::= [^]*", '{"type": "object"}')
    answer, *_ = stream(*said("[]"), structure=structure)
    with pytest.raises(AnswerMismatch):
        list(answer)
    answer, *_ = stream(*said('{"a"', reason="interrupted"), structure=structure)
    assert list(answer) == ['{"a"']
    assert json.loads("".join(stream(*said('{"a": 1}'), structure=structure)[0])) == {"a": 1}


def test_arguments_become_options() -> None:
    options = AnswerOptions.of(
        {"temperature": 0, "seed": 7, "max_tokens": 5, "limits": Limits(loop_guard=False), "max_seconds": 2},
    )
    assert options.sampling(None) == Sampling(temperature=0.0, seed=7)
    assert options.limits == Limits(5, max_seconds=2, loop_guard=False)
    whole = AnswerOptions.of({"sampling": Sampling(top_k=3, seed=1), "top_p": 0.5}).sampling(None)
    assert (whole.top_k, whole.top_p, whole.seed) == (3, 0.5, 1)
    seeds = {AnswerOptions().sampling(None).seed for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize(
    ("name", "value", "message", "why"),
    [
        ("temprature", 1, "no sampling option 'temprature'", "did you mean temperature?"),
        ("temperature", 9, "temperature is a number from 0 to 5, not 9", ""),
        ("temperature", float("nan"), "temperature is a number", ""),
        ("top_k", 1.5, "top_k is a whole number", ""),
        ("top_p", "0.5", "top_p is a number from 0 to 1, not '0.5'", ""),
        ("top_p", True, "top_p is a number", ""),
        ("seed", -2, "seed is a", ""),
        ("grammar", 1, "no sampling option 'grammar'", ""),
    ],
)
def test_what_is_refused(name: str, value: float, message: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_option(name, value)
    assert message in caught.value.what and why in caught.value.why


def test_every_sampling_option_is_a_keyword_argument() -> None:
    assert {*SamplingArguments.__annotations__} == {*OPTIONS, "seed"}
