"""Conversations with the embedded model on the real engine: what is computed, and what the guard does to an answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.chats.chat import Chat
from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import ContextTooLarge, PromptTooLong
from edgellm.models.fit.memory import RunPlan
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.events import End, Looped, Text
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadedModel

pytestmark = [pytest.mark.engine, pytest.mark.model]


@pytest.fixture(scope="module")
def model(engine: InstalledEngine, smollm2: Path) -> Iterator[LoadedModel]:
    weights = LlamaEngine(engine).load(smollm2)
    model = LoadedModel("smollm2", weights, RunPlan(n_ctx=1024, n_batch=128, n_threads=2))
    yield model
    model.close()


def chat_of(model: LoadedModel, limits: Limits, **asked: float) -> Chat:
    return Chat(model, AnswerOptions(asked, limits), system="")


def test_every_turn_computes_only_what_is_new(model: LoadedModel) -> None:
    """At a temperature that draws tokens which the answer's text, tokenized anew, would not fall into."""
    chat = chat_of(model, Limits(max_tokens=40), temperature=1.8, min_p=0)
    held = 0
    for seed, question in enumerate(["Invent five long names.", "Invent five more.", "你好", "Thanks 🌍"]):
        chat.set(seed=seed)
        assert chat.ask(question).stats.reused_tokens == held
        held = len(model.context.tokens)
    assert len(chat.messages) == 9


def test_a_retry_ends_the_loop_and_the_chat_goes_on_from_what_was_kept(model: LoadedModel) -> None:
    chat = chat_of(model, Limits(320, retry=True), temperature=0)
    stream = chat.stream("Write a long poem about the sea.")
    events = list(stream.events())
    looped = next(event for event in events if isinstance(event, Looped))
    assert looped.retrying and isinstance(events[-1], End)
    answer = chat.messages[-1]["content"]
    assert answer == stream.answer.text and answer.count(looped.loop.unit) <= 3
    pieces = [event.text for event in events[: events.index(looped)] if isinstance(event, Text)]
    assert answer.startswith("".join(pieces[: looped.kept_tokens]))
    held = len(model.context.tokens)
    chat.limit(Limits(max_tokens=4))
    assert chat.ask("Thanks.").stats.reused_tokens == held


def test_another_context_keeps_the_chat(engine: InstalledEngine, smollm2: Path) -> None:
    weights = LlamaEngine(engine).load(smollm2)
    model = LoadedModel("smollm2", weights, RunPlan(n_ctx=64, n_batch=64, n_threads=2))
    try:
        chat = chat_of(model, Limits(), temperature=0)
        full = chat.ask("Count from 1 to 100.")
        assert full.finish_reason == "context" and not chat.can_compact
        with pytest.raises(PromptTooLong):
            chat.ask("And then?")
        with pytest.raises(ContextTooLarge):
            model.resize(100_000)
        assert model.plan.n_ctx == 64 and model.largest_context() == 8192
        model.resize(512)
        chat.limit(Limits(max_tokens=8))
        again = chat.ask("And then?")
        assert again.stats.n_ctx == 512 and again.stats.prompt_tokens > 64 and len(chat.messages) == 5
        assert chat.can_compact and model.options.n_ctx == 512
    finally:
        model.close()


def test_an_answer_ends_before_a_stop_text(model: LoadedModel) -> None:
    chat = chat_of(model, Limits(stop=(" is",)), temperature=0)
    answer = chat.ask("What is the capital of France?")
    assert (answer.text, answer.finish_reason) == ("The capital of France", "stop")
    assert chat.messages[-1]["content"] == "The capital of France"
    chat.limit(Limits(max_tokens=4))
    assert chat.ask("Go on.").stats.prompt_tokens < 64  # without the tokens that were cut off


def test_a_seed_repeats_an_answer(model: LoadedModel) -> None:
    def story(seed: int) -> str:
        return chat_of(model, Limits(max_tokens=24), temperature=1.5, seed=seed).ask("Tell me a story.").text

    assert story(7) == story(7) != story(8)
