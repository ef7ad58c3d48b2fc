"""Conversations with the embedded model on the real engine: what is computed, and what the guard does to an answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.engine.base import Sampling
from edgellm.engine.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine
from edgellm.models.memory import RunPlan
from edgellm.run.generation import Finished, Limits, Looped, Prefill, Text
from edgellm.run.session import Session

pytestmark = [pytest.mark.engine, pytest.mark.model]


@pytest.fixture(scope="module")
def session(engine: InstalledEngine, smollm2: Path) -> Iterator[Session]:
    model = LlamaEngine(engine).load(smollm2)
    session = Session(model, RunPlan(n_ctx=1024, n_batch=128), n_threads=2, system="")
    yield session
    session.close()
    model.close()


def test_every_turn_computes_only_what_is_new(session: Session) -> None:
    """At a temperature that draws tokens which the answer's text, tokenized anew, would not fall into."""
    session.restart()
    held = 0
    for seed, question in enumerate(["Invent five long names.", "Invent five more.", "你好", "Thanks 🌍"]):
        events = list(session.ask(question, Sampling(temperature=1.8, min_p=0, seed=seed), Limits(max_tokens=40)))
        reused = next(event.reused for event in events if isinstance(event, Prefill))
        assert reused == held
        held = len(session.context.tokens)
    assert len(session.messages) == 9


def test_a_retry_ends_the_loop_and_the_chat_goes_on_from_what_was_kept(session: Session) -> None:
    session.restart()
    events = list(session.ask("Write a long poem about the sea.", Sampling(temperature=0), Limits(320, retry=True)))
    looped = next(event for event in events if isinstance(event, Looped))
    assert looped.retrying and isinstance(events[-1], Finished)
    answer = session.messages[-1]["content"]
    assert answer.count(looped.loop.unit) <= 3
    pieces = [event.text for event in events[: events.index(looped)] if isinstance(event, Text)]
    assert answer.startswith("".join(pieces[: looped.kept_tokens]))
    held = len(session.context.tokens)
    events = list(session.ask("Thanks.", Sampling(temperature=0), Limits(max_tokens=4)))
    assert next(event.reused for event in events if isinstance(event, Prefill)) == held


def test_a_seed_repeats_an_answer(session: Session) -> None:
    answers = []
    for seed in (7, 7, 8):
        session.restart()
        list(session.ask("Tell me a story.", Sampling(temperature=1.5, seed=seed), Limits(max_tokens=24)))
        answers.append(session.messages[-1]["content"])
    assert answers[0] == answers[1] != answers[2]
