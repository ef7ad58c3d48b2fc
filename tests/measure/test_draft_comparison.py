"""The prompts that drafts are measured on, and what is made of the answers."""

import json

import pytest

from edgellm.errors import UsageError
from edgellm.measure.draft_comparison import DraftedAnswer, WorkloadResult
from edgellm.measure.workloads import N_PROMPTS, NAMES, workload


@pytest.mark.parametrize("name", NAMES)
def test_every_workload_has_ten_prompts(name: str) -> None:
    prompts = workload(name)
    assert len(prompts) == N_PROMPTS and len(set(map(str, prompts))) == N_PROMPTS
    for prompt in prompts:
        roles = [message["role"] for message in prompt.messages]
        assert roles == ["user", "assistant", "user"] if name == "again" else roles == ["user"]
        assert all("{" + part + "}" not in str(prompt) for part in ("passage", "code"))
        assert (prompt.schema is not None) == (name == "json")
        assert prompt.schema is None or json.loads(prompt.schema)["type"] == "array"


def test_a_workload_that_is_not_there_has_a_guess() -> None:
    with pytest.raises(UsageError, match="no workload 'edti'") as raised:
        workload("edti")
    assert raised.value.why == "did you mean edit?"


def test_ratios_are_over_all_tokens_and_the_worst_is_of_long_answers() -> None:
    answers = [
        DraftedAnswer(20, 1.0, 2.0, 8, 1),
        DraftedAnswer(150, 9.0, 6.0, 60, 50),
        DraftedAnswer(150, 5.0, 4.0, 0, 0),
    ]
    found = WorkloadResult.of("edit", answers)
    assert (found.ratio, found.median, found.lowest) == (15 / 12, 1.25, 1.25)
    assert found.plain_rate == pytest.approx((320 - 3) / 15) and found.tokens_per_pass == pytest.approx(320 / 269)
    assert found.acceptance == 51 / 68
    assert WorkloadResult.of("chat", answers[:1]).lowest == 0.5
