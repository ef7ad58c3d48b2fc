"""Calls that the embedded model makes, whose chat template knows no tools: each must be JSON of the tool's schema."""

import json
from collections.abc import Iterator

import jsonschema
import pytest

import edgellm
from edgellm.settings import Settings
from edgellm.tools.builtin.calculator import calculator
from edgellm.tools.builtin.clock import clock

SUMS = [f"What is {first} {sign} {second}?" for first, second in ((17, 25), (144, 12), (3.5, 8)) for sign in "+-*/"]
SHARES = [f"What is {percent} % of {whole}?" for percent in (5, 17.5, 40) for whole in (200, 1260)]
DATES = [f"How many days are there from 2026-0{first}-03 to 2026-1{last}-20?" for first in (1, 5) for last in (0, 2)]
QUESTIONS = [*SUMS, *SHARES, *DATES]
TOOLS = {tool.name: tool for tool in (calculator(), clock())}

pytestmark = [pytest.mark.engine, pytest.mark.model]


@pytest.fixture
def model(with_engine: Settings) -> Iterator[edgellm.OpenModel]:
    with edgellm.open("smollm2", n_ctx=2048) as opened:
        yield opened


def called(model: edgellm.OpenModel, question: str, seed: int) -> int:
    """Ask with both tools; the number of calls, all checked. There is none where it ran into the limit."""
    answer = model.ask(question, tools=[*TOOLS], temperature=0.8, seed=seed, max_tokens=80)
    assert answer.calls or answer.finish_reason == "length"
    for call in answer.calls:
        jsonschema.validate(json.loads(call.arguments), TOOLS[call.name].parameters)
    return len(answer.calls)


def test_every_call_is_valid(model: edgellm.OpenModel) -> None:
    chosen = QUESTIONS[::3]
    assert sum(called(model, question, seed=1) > 0 for question in chosen) >= len(chosen) - 3


@pytest.mark.soak
def test_a_hundred_calls_are_valid(model: edgellm.OpenModel) -> None:
    n_calls = [called(model, question, seed) for seed in range(5) for question in QUESTIONS]
    assert sum(n_calls) >= 100
