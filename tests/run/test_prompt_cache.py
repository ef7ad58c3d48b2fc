"""When prompts are taken from disk and kept there, on a scripted engine; for the real one see engine/test_states.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.engine.fake import FakeContext, FakeModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import EngineError
from edgellm.models.fit.memory import RunPlan
from edgellm.models.local.prompt_files import PromptFiles
from edgellm.run import prompt_cache
from edgellm.run.batching import Batcher, Job
from edgellm.run.events import Event, Prefill, Text
from edgellm.run.generation import Limits, generate
from edgellm.run.loader import LoadedModel
from edgellm.run.message import Message
from edgellm.run.prompt_cache import PromptCache, SharedPrompt
from edgellm.run.session import Session
from edgellm.run.telemetry import Meter

DOCUMENT = "a long document that somebody asks about again and again. " * 4
GREEDY = Sampling(temperature=0)


class SlowModel(FakeModel):
    """A model that takes `seconds` of the test's clock for each token of a prompt."""

    def __init__(self, seconds: float = 0.01, answers: tuple[str, ...] = ("Hello!",)) -> None:
        super().__init__(answers)
        self.seconds, self.now = seconds, 0.0

    def clock(self) -> float:
        return self.now

    def context(self, n_ctx: int = 1000) -> FakeContext:
        return SlowContext(self, n_ctx, 64)


class SlowContext(FakeContext):
    """Lets the clock run while it computes."""

    def decode(self, tokens: list[int]) -> None:  # type: ignore[override]
        super().decode(tokens)
        assert isinstance(self._model, SlowModel)
        self._model.now += self._model.seconds * len(tokens)


@pytest.fixture
def files(tmp_path: Path) -> PromptFiles:
    return PromptFiles(tmp_path, 1_000_000)


def opened(files: PromptFiles, model: SlowModel, *, whole: bool = False, room: int = 1 << 30) -> PromptCache:
    return PromptCache(files, "key", bytes_per_token=1, whole=whole, room=lambda: room, clock=model.clock)


def ask(
    prompts: PromptCache, model: SlowModel, context: FakeContext, text: str, *, in_chat: bool = False
) -> list[Event]:
    prompt = model.tokenize(text)
    events = generate(model, context, prompt, GREEDY, Limits(loop_guard=False))
    return [*prompts.answer(context, prompt, events, in_chat=in_chat)]


def restored(events: list[Event]) -> int:
    return max(event.restored for event in events if isinstance(event, Prefill))


def sizes(files: PromptFiles) -> list[int]:
    return sorted(len(kept.tokens) for _, kept in files.all() if kept)


def test_a_prompt_is_read_once_even_by_another_process(files: PromptFiles) -> None:
    model = SlowModel()
    prompts, context = opened(files, model), model.context()
    assert restored(ask(prompts, model, context, f"{DOCUMENT}Who?")) == 0
    prompts.settle()
    assert sizes(files) == [len(DOCUMENT) + len("Who?Hello!")]
    later, context = opened(files, model), model.context()
    events = ask(later, model, context, f"{DOCUMENT}What?")
    assert restored(events) == len(DOCUMENT) + len("Wh") and sum(context.decoded) < 20
    assert "".join(event.text for event in events if isinstance(event, Text)) == "Hello!"
    again = ask(later, model, context, f"{DOCUMENT}What?")
    assert restored(again) == 0, "it is in the cache now"
    later.settle()
    assert len(sizes(files)) == 1, "the same document with another question is not written again"


def test_what_is_computed_in_no_time_is_not_kept(files: PromptFiles) -> None:
    model = SlowModel(seconds=0.001)
    prompts = opened(files, model)
    ask(prompts, model, model.context(), DOCUMENT)
    ask(prompts, model, model.context(), "Hi")
    prompts.settle()
    assert sizes(files) == []


def test_only_a_chat_is_kept_for_its_answers(files: PromptFiles) -> None:
    question, story = "Tell me a long story about the river and the sea.", "Once upon a time. " * 30
    for in_chat in (False, True):
        model = SlowModel(seconds=0.005, answers=(story,))
        prompts = opened(files, model)
        ask(prompts, model, model.context(), question, in_chat=in_chat)
        prompts.settle()
        assert len(sizes(files)) == in_chat
    assert restored(ask(prompts, model, model.context(), "Tell me a long story about the river.")) > 32


def test_what_is_read_no_faster_than_computed_is_computed(files: PromptFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SlowModel()
    prompts = opened(files, model)
    ask(prompts, model, model.context(), DOCUMENT)
    prompts.settle()
    monkeypatch.setattr(prompt_cache, "READ_RATE", 100)
    assert restored(ask(prompts, model, model.context(), DOCUMENT)) == 0
    monkeypatch.undo()
    assert restored(ask(opened(files, model, room=10), model, model.context(), DOCUMENT)) == 0, "there is no memory"
    assert restored(ask(prompts, model, model.context(), DOCUMENT)) == len(DOCUMENT) - 1


def test_a_chat_is_kept_when_it_has_grown_and_at_its_end(files: PromptFiles) -> None:
    model = SlowModel()
    prompts, context, text = opened(files, model), model.context(), DOCUMENT
    ask(prompts, model, context, text)
    prompts.wait()
    before = sizes(files)
    text += "Hello! and a question as long as this one is"
    ask(prompts, model, context, text)
    prompts.wait()
    assert sizes(files) == before
    prompts.settle()
    assert sizes(files) == [len(text) + len("Hello!")]


def test_an_answer_that_is_left_early_is_kept_and_one_that_fails_is_not(files: PromptFiles) -> None:
    model = SlowModel()
    prompts, context = opened(files, model), model.context()
    prompt = model.tokenize(DOCUMENT)
    events = prompts.answer(context, prompt, generate(model, context, prompt, GREEDY, Limits()))
    next(event for event in events if isinstance(event, Text))
    events.close()
    prompts.settle()
    assert sizes(files) == [len(DOCUMENT)]

    def failing() -> Iterator[Event]:
        yield Prefill(500, 500, 0)
        raise EngineError("the computation failed")

    with pytest.raises(EngineError):
        list(prompts.answer(context, [1] * 500, failing()))
    prompts.settle()
    assert sizes(files) == [len(DOCUMENT)]


def test_a_context_that_was_closed_meanwhile_is_left_alone(files: PromptFiles) -> None:
    model = SlowModel()
    prompts, context = opened(files, model), model.context()
    prompt = model.tokenize(DOCUMENT)
    events = prompts.answer(context, prompt, generate(model, context, prompt, GREEDY, Limits()))
    next(event for event in events if isinstance(event, Text))
    prompts.settle()
    events.close()
    prompts.settle()
    assert sizes(files) == []


def test_a_state_that_cannot_be_truncated_is_used_as_a_whole_or_not_at_all(files: PromptFiles) -> None:
    model = SlowModel()
    prompts = opened(files, model, whole=True)
    ask(prompts, model, model.context(), DOCUMENT)
    prompts.settle()
    assert restored(ask(prompts, model, model.context(), DOCUMENT)) == 0
    assert restored(ask(prompts, model, model.context(), f"{DOCUMENT}Hello! And?")) == len(DOCUMENT) + len("Hello!")


def test_a_shorter_context_does_not_take_a_longer_prompt(files: PromptFiles) -> None:
    model = SlowModel()
    prompts = opened(files, model)
    ask(prompts, model, model.context(), DOCUMENT)
    prompts.settle()
    assert restored(ask(prompts, model, model.context(n_ctx=200), DOCUMENT[:150])) == 0


def loaded(files: PromptFiles, model: FakeModel, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """A model whose files take nothing from a GGUF file, which a scripted one does not have."""
    found = LoadedModel("fake", model, RunPlan(n_ctx=1000, n_batch=64))
    prompts = PromptCache(files, "key", bytes_per_token=1, clock=model.clock if isinstance(model, SlowModel) else None)  # type: ignore[arg-type]
    monkeypatch.setattr(LoadedModel, "prompts", prompts)
    found._prompts = prompts
    return found


def test_what_is_private_neither_uses_nor_leaves_anything(files: PromptFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SlowModel(answers=("one", "two", "three"))
    model.open_context = lambda **_: model.context()  # type: ignore[method-assign,assignment,misc]
    found = loaded(files, model, monkeypatch)
    secret = [Message(role="user", content=DOCUMENT)]
    for private in (True, False, True):
        session = Session(found, private=private)
        meter, turn = Meter(n_ctx=1000), session.turn(secret)
        list(meter.watch(session.answer(turn, GREEDY, Limits())))
        assert meter.stats().restored_tokens == 0
        assert len(sizes(files)) <= (not private)
        if private:
            found.context.keep(0)
        else:
            found._prompts.settle()  # type: ignore[union-attr]
            [(path, kept)] = files.all()
            path.unlink()
            assert kept
    found.close()
    assert sizes(files) == []


def test_a_batch_takes_its_common_beginning_from_disk_and_keeps_it(files: PromptFiles) -> None:
    model = SlowModel()

    def batch(texts: list[str]) -> tuple[int, list[str]]:
        sequences = model.open_sequences(n_seq=2, n_ctx=500, n_batch=500, n_threads=1)
        prompts = opened(files, model)
        shared = SharedPrompt(prompts, sequences)
        batcher = Batcher(model, sequences, shared=shared, clock=model.clock)
        waiting, answers = [Job(n, model.tokenize(text), GREEDY) for n, text in enumerate(texts)], []
        while waiting or batcher.busy:
            while waiting and batcher.busy < 2:
                batcher.admit(waiting.pop(0))
            model.now += 3
            answers += [result.text for result in batcher.step()]
            model.now += 0
        prompts.measured(100, 1)
        shared.keep()
        return shared.restored, answers

    texts = [f"{DOCUMENT}{name}" for name in ("north", "south", "east")]
    n_restored, before = batch(texts)
    assert n_restored == 0 and sizes(files) == [len(DOCUMENT)]
    n_restored, after = batch(texts)
    assert n_restored == len(DOCUMENT) and after == before and sizes(files) == [len(DOCUMENT)]
    assert batch([f"{DOCUMENT}alone"])[0] == len(DOCUMENT) and sizes(files) == [len(DOCUMENT)]
