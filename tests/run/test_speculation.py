"""Answers are the same to the byte with drafts and without, alone and beside others, however they end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest

from edgellm.engine.base import Context
from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.engine.sampling import Sampling
from edgellm.run.batching import Batcher, Job, Result
from edgellm.run.draft_costs import VNNI, DraftCosts
from edgellm.run.draft_lengths import MOST_SLOTS
from edgellm.run.events import Drafted, End, Event, Looped, Text
from edgellm.run.generation import Limits, generate
from edgellm.run.speculation import Speculation
from edgellm.run.structure import from_schema

pytestmark = pytest.mark.engine

# Passes of any length cost next to nothing, so that everything is drafted that has a match at all.
EAGER = DraftCosts(((1.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)))
N_CTX = 1024
STORY = (
    "The lighthouse keeper counted the ships twice. The ships were late, and the lamp was low. At noon the keeper "
    "polished the lamp, and at night the lamp counted the ships.\n"
)
PERSON = """{"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
"required": ["name", "age"], "additionalProperties": false}"""
PEOPLE = f'{{"type": "array", "items": {PERSON}, "minItems": 2, "maxItems": 3}}'
QUESTIONS = (
    f"Repeat this text word by word:\n{STORY}",
    "List the seasons as a table with columns season, months, weather.",
    "Write a short story about a lighthouse keeper.",
    f"Correct the spelling, and give the whole text again:\n{STORY.replace('ships', 'shipps')}",
    "Count from one to twenty in words.",
    "Translate to French: the ships are late, the lamp is low, the ships are late.",
    "Write a Python function that adds two numbers, then the same function with type hints.",
    "What is the capital of France? What is the capital of Spain?",
)


@dataclass(frozen=True)
class Ask:
    """An answer to compute."""

    question: str
    sampling: Sampling
    limits: Limits
    hint: str = ""


def asks(n_tokens: int) -> list[Ask]:
    """Each question in five forms: greedy, seeded, by a grammar, until a stop text, and with penalties."""
    found = []
    people = from_schema(PEOPLE)
    for number, question in enumerate(QUESTIONS):
        limits = Limits(max_tokens=n_tokens)
        seeded = Sampling(temperature=0.7, seed=number)
        found += [
            Ask(question, Sampling(temperature=0), limits),
            Ask(question, seeded, limits),
            Ask(question, people.constrain(seeded), limits, people.hint),
            Ask(question, Sampling(temperature=0), replace(limits, stop=(" the ", "\n\n"))),
            Ask(question, Sampling(temperature=0.9, seed=number, repeat_penalty=1.1, dry_multiplier=0.5), limits),
        ]
    return found


@pytest.fixture(scope="module")
def smol(llama: LlamaEngine, smollm2: Path) -> Iterator[LlamaModel]:
    model = llama.load(smollm2)
    yield model
    model.close()


@pytest.fixture(scope="module")
def context(smol: LlamaModel) -> Iterator[Context]:
    context = smol.open_context(n_ctx=N_CTX, n_batch=256, n_threads=2)
    yield context
    context.close()


def tokens_of(smol: LlamaModel, question: str) -> list[int]:
    return smol.tokenize(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n", special=True)


def speculation(smol: LlamaModel, hint: str = "", costs: DraftCosts | None = None) -> Speculation:
    # Copies: costs that have learnt would no longer be eager.
    return Speculation(DraftCosts((costs or EAGER).table), smol.tokenize(hint, bos=False) if hint else ())


def events_of(smol: LlamaModel, context: Context, ask: Ask, drafts: Speculation | None) -> list[Event]:
    context.keep(0)
    return list(generate(smol, context, tokens_of(smol, ask.question), ask.sampling, ask.limits, (), drafts))


def answer(events: list[Event]) -> list[Event]:
    """What a reader sees: texts with their tokens, loops, and why it ended."""
    return [event for event in events if isinstance(event, (Text, Looped, End))]


def accepted(events: list[Event]) -> int:
    return max((event.accepted for event in events if isinstance(event, Drafted)), default=0)


def check_same(smol: LlamaModel, context: Context, questions: list[Ask]) -> None:
    n_accepted = 0
    for ask in questions:
        plain = events_of(smol, context, ask, None)
        cached = list(context.tokens)
        drafted = events_of(smol, context, ask, speculation(smol, ask.hint))
        assert answer(drafted) == answer(plain), ask
        assert list(context.tokens) == cached, ask  # what was drafted and not accepted is gone
        n_accepted += accepted(drafted)
    assert n_accepted > 3 * len(questions)


def test_answers_are_the_same_with_drafts(smol: LlamaModel, context: Context) -> None:
    check_same(smol, context, asks(32)[::4])


@pytest.mark.soak
def test_two_hundred_answers_are_the_same_with_drafts(smol: LlamaModel, context: Context) -> None:
    check_same(smol, context, [replace(ask, limits=replace(ask.limits, max_tokens=n)) for n in (1, 17, 80, 150, 300)
                               for ask in asks(n)])  # fmt: skip


def batched(smol: LlamaModel, jobs: list[Job], n_slots: int, costs: DraftCosts | None) -> dict[int, Result]:
    sequences = smol.open_sequences(n_seq=n_slots, n_ctx=512, n_batch=256, n_threads=2)
    batcher, waiting, results = Batcher(smol, sequences, costs=costs), list(jobs), {}
    try:
        while waiting or batcher.busy:
            while waiting and batcher.busy < batcher.n_slots:
                batcher.admit(waiting.pop(0))
            for result in batcher.step():
                results[result.key] = result
    finally:
        sequences.close()
    return results


def jobs_of(smol: LlamaModel, questions: list[Ask]) -> list[Job]:
    hints = {ask.hint: tuple(smol.tokenize(ask.hint, bos=False)) if ask.hint else () for ask in questions}
    return [
        Job(
            key,
            tokens_of(smol, ask.question),
            ask.sampling,
            ask.limits.max_tokens,
            ask.limits.stop,
            hint=hints[ask.hint],
        )
        for key, ask in enumerate(questions)
    ]


def check_same_in_company(smol: LlamaModel, questions: list[Ask], n_slots: int) -> None:
    """Groups that begin together: the rows of prompts depend on what is read beside them, with drafts or without."""
    n_accepted = 0
    for start in range(0, len(questions), n_slots):
        jobs = jobs_of(smol, questions[start : start + n_slots])
        plain, drafted = batched(smol, jobs, n_slots, None), batched(smol, jobs, n_slots, DraftCosts(EAGER.table))
        for key, result in plain.items():
            assert (drafted[key].text, drafted[key].finish_reason) == (result.text, result.finish_reason), jobs[key]
            assert drafted[key].completion_tokens == result.completion_tokens
        n_accepted += sum(result.accepted_tokens for result in drafted.values())
    # With eight at once drafts begin when few are left.
    assert n_accepted > (0 if n_slots > MOST_SLOTS else len(questions))


def test_answers_in_slots_are_the_same_with_drafts(smol: LlamaModel) -> None:
    check_same_in_company(smol, asks(40)[::7], n_slots=2)


@pytest.mark.soak
@pytest.mark.parametrize("n_slots", [2, 3, 8])
def test_forty_answers_beside_others_are_the_same_with_drafts(smol: LlamaModel, n_slots: int) -> None:
    check_same_in_company(smol, asks(80), n_slots=n_slots)


@pytest.mark.parametrize("room", range(2, 12, 2))
def test_a_full_context_ends_an_answer_where_it_did(smol: LlamaModel, room: int) -> None:
    prompt = smol.tokenize("one two three. one two three. one two three. one two")
    n_ctx = len(prompt) + room
    ends = []
    for drafts in (None, speculation(smol)):
        context = smol.open_context(n_ctx=n_ctx, n_batch=64, n_threads=2)
        events = list(generate(smol, context, prompt, Sampling(temperature=0), Limits(loop_guard=False), (), drafts))
        ends.append(answer(events))
        assert len(context.tokens) < n_ctx
        context.close()
    assert ends[0] == ends[1]


def test_an_answer_that_is_left_keeps_no_drafts(smol: LlamaModel, context: Context) -> None:
    prompt = tokens_of(smol, QUESTIONS[0])
    greedy, limits = Sampling(temperature=0), Limits(max_tokens=60, loop_guard=False)
    for n_events in range(2, 30, 3):
        context.keep(0)
        events = generate(smol, context, prompt, greedy, limits, (), speculation(smol))
        texts: list[int] = []
        for event in events:  # how long the answer is depends on the CPU
            if isinstance(event, Text):
                texts.append(event.token)
            if len(texts) == n_events:
                break
        events.close()  # type: ignore[attr-defined]
        n_prompt = len(prompt)
        assert list(context.tokens[:n_prompt]) == prompt
        answered = list(context.tokens[n_prompt:])
        assert answered == texts[: len(answered)] and len(answered) >= len(texts) - 1


def test_an_interruption_is_asked_for_within_a_burst(smol: LlamaModel, context: Context) -> None:
    ask = Ask(QUESTIONS[0], Sampling(temperature=0), Limits(max_tokens=60))
    for after in (1, 5, 12, 13):
        asked = 0

        def interrupted(after: int = after) -> bool:
            nonlocal asked
            asked += 1
            return asked > after

        events = events_of(smol, context, replace(ask, limits=replace(ask.limits, interrupted=interrupted)),
                           speculation(smol))  # fmt: skip
        # Once before the prompt, then once for each token.
        assert sum(isinstance(event, Text) and event.token >= 0 for event in events) == after
        assert events[-1] == End("interrupted")


def test_an_answer_that_loops_goes_on_the_same(smol: LlamaModel, context: Context) -> None:
    prompt, greedy, seen = smol.tokenize("Yes, I am good. " * 12), Sampling(temperature=0), []
    for drafts in (None, speculation(smol)):
        context.keep(0)
        limits = Limits(max_tokens=400, retry=True)
        seen.append(answer(list(generate(smol, context, prompt, greedy, limits, (), drafts))))
    assert seen[0] == seen[1]
    assert any(isinstance(event, Looped) and event.retrying for event in seen[0])


def test_a_closed_context_is_left_alone(smol: LlamaModel) -> None:
    context = smol.open_context(n_ctx=256, n_batch=64, n_threads=1)
    prompt = smol.tokenize("one two three. one two three. one two three. one two")
    events = generate(smol, context, prompt, Sampling(temperature=0), Limits(loop_guard=False), (), speculation(smol))
    for _ in range(8):
        next(events)
    context.close()
    del events
    gc.collect()


def test_costs_decide_whether_anything_is_drafted(smol: LlamaModel, context: Context) -> None:
    never = DraftCosts(((2.0, 4.0, 8.0, 16.0), (2.0, 4.0, 8.0, 16.0)))
    ask = Ask(QUESTIONS[0], Sampling(temperature=0), Limits(max_tokens=60))
    events = events_of(smol, context, ask, speculation(smol, costs=never))
    assert not any(isinstance(event, Drafted) and event.drafted for event in events)
    n_accepted = n_observed = 0
    for question in QUESTIONS[:5]:  # which of them repeats something depends on the CPU
        drafts = speculation(smol, costs=DraftCosts(VNNI))
        found = events_of(smol, context, replace(ask, question=question), drafts)
        counts = [event for event in found if isinstance(event, Drafted)]
        assert all(later.drafted >= earlier.drafted for earlier, later in pairwise(counts))
        n_accepted += counts[-1].accepted if counts else 0
        n_observed += drafts.costs.n_observed
    assert n_accepted > 10 and n_observed > 0
