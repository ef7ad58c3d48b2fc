"""Generated needles: lengths and depths are as asked, no sentence comes twice, and only right answers are right."""

import re
from typing import Any

import pytest

from edgellm.evaluation.checkers import checker
from edgellm.evaluation.generate import generate
from edgellm.evaluation.generate.filler import filler, length
from edgellm.evaluation.generate.seeded_random import SeededRandom
from edgellm.evaluation.item import Item
from edgellm.evaluation.verdict import GivenAnswer

TABLE: dict[str, Any] = {
    "kind": "needle",
    "english_words": [200, 1000],
    "chinese_characters": [200, 1000],
    "depths": [0, 30, 100],
}
ITEMS = generate(TABLE)
FACT = re.compile(r"The code of the (\w+) locker is (\d+)\.|(\w\w)储物柜的密码是(\d+)。")


def facts(item: Item) -> dict[str, str]:
    found = [[each for each in groups if each] for groups in FACT.findall(item.prompt)]
    return dict(found)


def grade(item: Item, answer: str) -> float:
    return checker(item.check).check(GivenAnswer(answer)).score


def asked(item: Item) -> list[str]:
    question = item.prompt.split("\n\n")[-1]
    return [locker for locker in facts(item) if locker in question]


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.id)
class TestItem:
    def test_right_answers_are_right(self, item: Item) -> None:
        codes = [facts(item)[locker] for locker in asked(item)]
        assert codes
        assert grade(item, ", ".join(codes)) == 1
        assert grade(item, " and ".join(f"the code of the {x} locker is {facts(item)[x]}" for x in asked(item))) == 1
        assert grade(item, "、".join(f"{x}储物柜的密码是{facts(item)[x]}" for x in asked(item)) + "。") == 1

    def test_wrong_answers_are_wrong(self, item: Item) -> None:
        codes = [facts(item)[locker] for locker in asked(item)]
        others = [code for code in facts(item).values() if code not in codes]
        wrongs = ["", "1000", "I do not know.", *others, *(codes[:-1] if len(codes) > 1 else []), codes[0][::-1] + "1"]
        assert [grade(item, wrong) for wrong in wrongs] == [0] * len(wrongs)

    def test_the_text_is_as_long_as_its_category_says(self, item: Item) -> None:
        text = FACT.sub("", item.prompt.partition("\n\n")[2].rpartition("\n\n")[0])
        wanted = int(item.category.split()[0])
        assert wanted <= length(text) <= wanted + 40

    def test_no_sentence_comes_twice(self, item: Item) -> None:
        text = item.prompt.partition("\n\n")[2].rpartition("\n\n")[0]
        sentences = [each.strip() for each in re.split(r"(?<=[.。])(?!\s*Hale)", text) if each.strip()]
        assert len(sentences) == len(set(sentences))

    def test_only_the_facts_have_numbers(self, item: Item) -> None:
        assert set(re.findall(r"\d+", item.prompt)) == set(facts(item).values())


@pytest.mark.parametrize("depth", [0, 30, 100])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_fact_lies_at_its_depth(language: str, depth: int) -> None:
    item = next(item for item in ITEMS if item.id == f"{language}-1000-at-{depth}")
    text = item.prompt.partition("\n\n")[2].rpartition("\n\n")[0]
    found = FACT.search(text)
    assert found
    assert abs(100 * found.start() / len(text) - depth) < 5


def test_several_facts_are_spread_over_the_text() -> None:
    item = next(item for item in ITEMS if item.id == "en-1000-all-4")
    places = [100 * found.start() / len(item.prompt) for found in FACT.finditer(item.prompt)]
    assert [round(place / 25 + 0.5) for place in places] == [1, 2, 3, 4]
    assert len(set(facts(item).values())) == len(facts(item)) == 4


def test_a_seed_gives_the_same_texts_everywhere() -> None:
    assert generate(TABLE) == ITEMS
    assert generate(TABLE | {"seed": 2}) != ITEMS
    first = filler(SeededRandom("a"), "en", 20)[0]
    assert first == "When market day came, Mrs. Hale put a whistle away and thought about bees."


@pytest.mark.parametrize("language", ["en", "zh"])
def test_filler_is_long_enough_and_never_repeats_itself(language: str) -> None:
    sentences = filler(SeededRandom("long"), language, 20_000)
    assert len(sentences) == len(set(sentences))
    assert length("".join(sentences)) >= 20_000
