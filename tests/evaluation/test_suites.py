"""The suites that come with edgellm: every check tells right answers from wrong ones.

`answers/SUITE.jsonl` has, for each item, answers that are right and answers that are wrong.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from edgellm.evaluation.checkers import checker
from edgellm.evaluation.item import Item
from edgellm.evaluation.suite import OURS, Suite, read_suite
from edgellm.evaluation.verdict import GivenAnswer

ANSWERS = Path(__file__).parent / "answers"
SUITES = {path.stem: read_suite(path) for path in sorted(OURS.glob("*.toml"))}
# Suites whose items are generated, or ask for nothing but an end: tests of their own grade their answers.
WRITTEN = ("five-kinds", "instructions", "json", "probes", "speed-feel", "endless")


def examples(name: str) -> dict[str, dict[str, Any]]:
    """The examples of answers to a suite's items, by the item's id."""
    lines = (ANSWERS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return {each["item"]: each for each in map(json.loads, lines)}


def given(example: str | dict[str, Any]) -> GivenAnswer:
    return GivenAnswer(example) if isinstance(example, str) else GivenAnswer(**example)


def items(*names: str) -> list[Any]:
    return [pytest.param(name, item, id=f"{name}/{item.id}") for name in names for item in SUITES[name].items]


EXAMPLES = {name: examples(name) for name in WRITTEN}


def test_there_are_eight_suites() -> None:
    assert sorted(SUITES) == sorted([*WRITTEN, "arithmetic", "needle"])


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
class TestSuite:
    def test_it_says_what_it_is_good_for_and_what_not(self, suite: Suite) -> None:
        assert suite.licence == "MIT"
        assert suite.title
        assert "Good for" in suite.about and "Not good for" in suite.about

    def test_nobody_has_checked_it_yet(self, suite: Suite) -> None:
        assert suite.n_checked == 0
        assert "No person has checked" in " ".join(suite.about.split())

    def test_ids_are_unique_and_every_item_has_a_category(self, suite: Suite) -> None:
        assert len({item.id for item in suite.items}) == len(suite.items)
        assert all(item.category and item.prompt.strip() for item in suite.items)

    def test_both_languages_are_asked_alike(self, suite: Suite) -> None:
        counts = {language: sum(item.language == language for item in suite.items) for language in ("en", "zh")}
        assert sum(counts.values()) == len(suite.items)
        assert abs(counts["en"] - counts["zh"]) <= 1

    def test_every_check_opens(self, suite: Suite) -> None:
        for item in suite.items:
            checker(item.check)

    def test_no_prompt_is_asked_twice(self, suite: Suite) -> None:
        assert len({item.prompt for item in suite.items}) == len(suite.items)


def test_prompts_that_ran_for_ever_are_asked() -> None:
    looping = GivenAnswer("The temperature rises because the temperature rises. " * 30, "repetition")
    for name in ("five-kinds/knowledge-en-11", "five-kinds/knowledge-zh-12", "five-kinds/analysis-en-04"):
        suite, _, item_id = name.partition("/")
        (item,) = [item for item in SUITES[suite].items if item.id == item_id]
        assert checker(item.check).check(looping).score == 0


def test_five_kinds_has_a_dozen_of_each_kind_and_language() -> None:
    groups = [(item.category, item.language) for item in SUITES["five-kinds"].items]
    assert len(set(groups)) == 10
    assert all(groups.count(group) == 12 for group in groups)


@pytest.mark.parametrize("name", WRITTEN)
def test_every_example_belongs_to_an_item(name: str) -> None:
    assert list(EXAMPLES[name]) == [item.id for item in SUITES[name].items]


@pytest.mark.parametrize(("name", "item"), items(*WRITTEN))
def test_only_right_answers_are_right(name: str, item: Item) -> None:
    grader, example = checker(item.check), EXAMPLES[name][item.id]
    assert example["right"] and example["wrong"]
    for right in example["right"]:
        verdict = grader.check(given(right))
        assert verdict.score == 1, (right, verdict)
    # A small model may say nothing, or the question once more. The loose checks of two suites let that pass.
    echo = [item.prompt] * (name not in ("endless", "speed-feel"))
    for wrong in ["", *echo, *example["wrong"]]:
        verdict = grader.check(given(wrong))
        assert verdict.score == 0, (wrong, verdict)
