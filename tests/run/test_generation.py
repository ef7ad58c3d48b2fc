"""The generation loop on a scripted engine: every way an answer ends, and what is computed for it."""

import pytest

from edgellm.engine.base import Sampling
from edgellm.engine.fake import FakeContext, FakeModel
from edgellm.errors import PromptTooLong
from edgellm.run.generation import Event, Finished, Limits, Prefill, Text, generate

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
    assert text_of(events) == "Hello!" and events[-1] == Finished("stop")


def test_characters_split_over_tokens_come_out_whole() -> None:
    model = FakeModel(["né 世界 🌍"])
    events = answer(model, opened(model), "x")
    assert text_of(events) == "né 世界 🌍"
    assert all("\ufffd" not in event.text for event in events if isinstance(event, Text))


def test_a_character_cut_by_the_limit_is_marked_not_lost() -> None:
    model = FakeModel(["世"])
    events = answer(model, opened(model), "x", Limits(max_tokens=2))
    assert text_of(events) == "\ufffd" and events[-1] == Finished("length")


@pytest.mark.parametrize(("limit", "expected"), [(0, ""), (1, "a"), (3, "abc"), (6, "abcdef"), (-1, "abcdef")])
def test_the_token_limit(limit: int, expected: str) -> None:
    model = FakeModel(["abcdef"])
    events = answer(model, opened(model), "x", Limits(max_tokens=limit))
    assert text_of(events) == expected
    assert events[-1] == Finished("stop" if limit == -1 else "length")


def test_the_context_ends_the_answer_with_every_token_that_fits() -> None:
    model = FakeModel(["a" * 100])
    context = opened(model, n_ctx=20)
    events = answer(model, context, "x" * 10)
    assert events[-1] == Finished("context")
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
    assert events[-1] == Finished("interrupted") and len(context.tokens) == 16
    asked = iter([False] * 4 + [True])
    events = answer(model, context, "x" * 40, Limits(interrupted=lambda: next(asked)))
    assert events[-1] == Finished("interrupted") and text_of(events) == "abc"
