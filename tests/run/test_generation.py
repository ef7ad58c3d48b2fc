"""The generation loop on a scripted engine: every way an answer ends, and what is computed for it."""

import pytest

from edgellm.engine.fake import FakeContext, FakeModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import PromptTooLong
from edgellm.run.events import NO_TOKEN, End, Event, Looped, Prefill, Text
from edgellm.run.generation import Limits, generate

GREEDY = Sampling(temperature=0)


def opened(model: FakeModel, n_ctx: int = 100, n_batch: int = 16) -> FakeContext:
    return model.open_context(n_ctx=n_ctx, n_batch=n_batch, n_threads=1)


def answer(model: FakeModel, context: FakeContext, prompt: str, limits: Limits | None = None) -> list[Event]:
    return list(generate(model, context, model.tokenize(prompt), GREEDY, limits or Limits()))


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


def test_ends_when_the_model_stops() -> None:
    model = FakeModel(["Hello!"])
    events = answer(model, opened(model), "Hi")
    assert text_of(events) == "Hello!" and events[-1] == End("stop")


def test_characters_split_over_tokens_come_out_whole() -> None:
    model = FakeModel(["né 世界 🌍"])
    events = answer(model, opened(model), "x")
    assert text_of(events) == "né 世界 🌍"
    assert all("\ufffd" not in event.text for event in events if isinstance(event, Text))


def test_a_character_cut_by_the_limit_is_marked_not_lost() -> None:
    model = FakeModel(["世"])
    events = answer(model, opened(model), "x", Limits(max_tokens=2))
    assert text_of(events) == "\ufffd" and events[-1] == End("length")


@pytest.mark.parametrize(("limit", "expected"), [(0, ""), (1, "a"), (3, "abc"), (6, "abcdef"), (-1, "abcdef")])
def test_the_token_limit(limit: int, expected: str) -> None:
    model = FakeModel(["abcdef"])
    events = answer(model, opened(model), "x", Limits(max_tokens=limit))
    assert text_of(events) == expected
    assert events[-1] == End("stop" if limit == -1 else "length")


def test_the_context_ends_the_answer_with_every_token_that_fits() -> None:
    model = FakeModel(["a" * 100])
    context = opened(model, n_ctx=20)
    events = answer(model, context, "x" * 10)
    assert events[-1] == End("context")
    assert len(context.tokens) == 19 and text_of(events) == "a" * 10


def test_a_prompt_that_does_not_fit_is_refused_with_both_counts_and_nothing_is_computed() -> None:
    model = FakeModel()
    context = opened(model, n_ctx=20)
    with pytest.raises(PromptTooLong, match="the prompt has 20 tokens, the context holds 20"):
        answer(model, context, "x" * 20)
    assert context.tokens == []
    with pytest.raises(PromptTooLong, match="empty"):
        answer(model, context, "")


def test_only_what_is_new_is_computed() -> None:
    model = FakeModel(["one", "two"])
    context = opened(model)
    answer(model, context, "shared prefix, first")
    context.decoded.clear()
    events = answer(model, context, "shared prefix, second")
    assert next(event for event in events if isinstance(event, Prefill)).reused == len("shared prefix, ")
    assert context.decoded[0] == len("second")


def test_the_same_prompt_again_computes_its_last_token() -> None:
    model = FakeModel(["one", "two"])
    context = opened(model)
    answer(model, context, "same")
    context.decoded.clear()
    assert text_of(answer(model, context, "same")) == "two"
    assert context.decoded[0] == 1


def test_a_long_prompt_is_read_in_batches_and_told() -> None:
    model = FakeModel()
    context = opened(model, n_batch=16)
    events = answer(model, context, "x" * 40)
    assert [event.done for event in events if isinstance(event, Prefill)] == [0, 16, 32, 40]


def test_interrupted_while_reading_the_prompt_and_while_answering() -> None:
    model = FakeModel(["abcdef"])
    context = opened(model, n_batch=16)
    asked = iter([False, True])
    events = answer(model, context, "x" * 40, Limits(interrupted=lambda: next(asked)))
    assert events[-1] == End("interrupted") and len(context.tokens) == 16
    asked = iter([False] * 4 + [True])
    events = answer(model, context, "x" * 40, Limits(interrupted=lambda: next(asked)))
    assert events[-1] == End("interrupted") and text_of(events) == "abc"


LOOP = "Why? " + "Because it is so. " * 60


def test_an_endless_repetition_ends_the_answer_and_is_cut_off() -> None:
    model = FakeModel([LOOP])
    events = answer(model, opened(model, n_ctx=2000), "x")
    looped = next(event for event in events if isinstance(event, Looped))
    assert events[-1] == End("repetition") and not looped.retrying
    assert looped.loop.repetitions >= 3 and "Because it is so" in looped.loop.unit
    assert text_of(events)[: looped.kept_tokens] in ("Why? Because it is so. ", "Why? Because it is so.", LOOP[:22])
    assert len(text_of(events)) < len(LOOP) / 2
    assert max(event.repeated for event in events if isinstance(event, Text)) >= 3


def test_without_the_guard_it_goes_on() -> None:
    model = FakeModel([LOOP])
    events = answer(model, opened(model, n_ctx=2000), "x", Limits(loop_guard=False))
    assert text_of(events) == LOOP and events[-1] == End("stop")


def test_a_retry_goes_on_from_before_the_loop_with_penalties_and_only_once() -> None:
    model = FakeModel([LOOP, "And that is all.", LOOP])
    context = opened(model, n_ctx=2000)
    samplings: list[Sampling] = []
    open_sampler = context.open_sampler
    context.open_sampler = lambda sampling, history=(): samplings.append(sampling) or open_sampler(sampling, history)  # type: ignore[method-assign, misc, func-returns-value]
    events = answer(model, context, "x", Limits(retry=True))
    at = next(n for n, event in enumerate(events) if isinstance(event, Looped))
    kept = text_of(events[:at])[: events[at].kept_tokens]  # type: ignore[union-attr]
    assert events[at].retrying and events[-1] == End("stop")  # type: ignore[union-attr]
    assert text_of(events[at:]) == "And that is all."
    assert bytes(context.tokens).decode() == f"x{kept}And that is all."
    assert samplings[0] == GREEDY and samplings[1].dry_multiplier > 0 and samplings[1].repeat_penalty > 1
    again = FakeModel([LOOP, LOOP])
    events = answer(again, opened(again, n_ctx=2000), "x", Limits(retry=True))
    assert [event.retrying for event in events if isinstance(event, Looped)] == [True, False]
    assert events[-1] == End("repetition")


def test_a_retry_within_a_character_stays_whole() -> None:
    model = FakeModel(["\u4e16\u754c" * 200, "\u4eba"])
    events = answer(model, opened(model, n_ctx=2000), "x", Limits(retry=True))
    assert "\ufffd" not in text_of(events)


def test_a_time_limit_ends_reading_and_answering() -> None:
    model = FakeModel(["a"])
    events = answer(model, opened(model), "x" * 40, Limits(max_seconds=0.0))
    assert events[-1] == End("time") and text_of(events) == ""
    events = answer(model, opened(model), "x" * 40, Limits(max_seconds=100.0))
    assert events[-1] == End("stop")


def test_an_answer_goes_on_after_what_there_is_of_it() -> None:
    model = FakeModel(["\u4e16"])
    context = opened(model)
    begun = [model.tokenize("\u754c")[0]]
    events = list(generate(model, context, model.tokenize("q"), GREEDY, Limits(max_tokens=1), begun))
    assert context.tokens[:2] == [ord("q"), begun[0]]
    assert isinstance(events[-2], Text) and events[-2].token == NO_TOKEN
