"""Words that an answer must have or must not have, sets, and patterns."""

from typing import Any

import pytest

from tests.evaluation.checkers.grade import right, verdict

CONTAINS: dict[str, Any] = {"kind": "contains", "all": ["Paris", ["colour", "color"]], "none": ["London"]}
COLOURS: dict[str, Any] = {"kind": "set", "values": ["red", "green", "blue"]}
CHINESE: dict[str, Any] = {"kind": "set", "values": ["红", "绿", "蓝"]}
PRIMES: dict[str, Any] = {"kind": "set", "values": [2, 3, 5]}
SLOW = {"kind": "pattern", "pattern": "^(a|aa)+$"}


@pytest.mark.parametrize("text", ["Paris has a colour.", "**PARIS**: color", "Ｐａｒｉｓ, colour", "Color? Paris!"])
def test_contained(text: str) -> None:
    assert right(CONTAINS, text)


@pytest.mark.parametrize(
    "text", ["Paris", "Parisian colour", "not Paris; colour", "It isn't Paris. Colour.", "Paris, London, color"]
)
def test_not_contained(text: str) -> None:
    assert not right(CONTAINS, text)


def test_any_word_of_several_and_ideographs() -> None:
    check = {"kind": "contains", "any": ["北京", "Beijing"]}
    assert right(check, "首都是北京。")
    assert right(check, "It is Beijing")
    assert not right(check, "不是北京，是上海")


def test_a_verdict_names_what_is_missing() -> None:
    assert verdict(CONTAINS, "London").why == "Paris, colour or color is missing; London must not be there"


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (COLOURS, "red, blue and green"), (COLOURS, "Green, red, blue."),
        (COLOURS, "The colours are: red, blue, green."),
        (COLOURS, "- red\n- green\n- blue"), (COLOURS, "1. Red\n2. Green\n3. Blue"), (COLOURS, "{red, green, blue}"),
        (COLOURS, "red, green, and blue"), (COLOURS, '"red", "green", "blue"'),
        (CHINESE, "红、绿和蓝"), (CHINESE, "答案：红，绿，蓝。"), (CHINESE, "1、红\n2、蓝\n3、绿"),
        (PRIMES, "5, 3, 2"), (PRIMES, "{2,3,5}"), (PRIMES, "答案：二、三、五"), (PRIMES, "2 and 3 and 5"),
        (PRIMES, "The answer is 2, 3 and 5."), (PRIMES, "Primes: 2, 3, 5, 5"), (PRIMES, "1. 2\n2. 3\n3. 5"),
    ],
)  # fmt: skip
def test_sets_in_any_order(check: dict[str, Any], text: str) -> None:
    assert right(check, text), verdict(check, text)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (COLOURS, "red, green"), (COLOURS, "red, green, blue, yellow"), (COLOURS, ""), (COLOURS, "red green blue"),
        (CHINESE, "红、绿、黄"), (PRIMES, "2, 3, 5, 7"), (PRIMES, "2, 3"), (PRIMES, "235"),
    ],
)  # fmt: skip
def test_wrong_sets(check: dict[str, Any], text: str) -> None:
    assert not right(check, text)


def test_a_set_among_other_words_needs_the_wrong_ones() -> None:
    check = {**COLOURS, "others": ["yellow", "black"]}
    assert right(check, "Light is made of red and green, and of blue too.")
    assert not right(check, "Light is made of red, green, blue and yellow.")


def test_keywords_are_counted() -> None:
    check = {"kind": "keywords", "present": ["sea"], "absent": ["boat"], "times": {"wave": 2, "浪": 1}}
    assert right(check, "A wave, a wave, the sea. 浪")
    assert not right(check, "A wave, the sea. 浪")
    assert not right(check, "A wave, a wave, the sea, a boat. 浪")
    assert not right(check, "A wave, a wave, the seal. 浪")


def test_patterns_match_somewhere_or_the_whole() -> None:
    check = {"kind": "pattern", "pattern": "\\d{4}-\\d{2}"}
    assert right(check, "In 2024-05 it began")
    assert right({**check, "whole": True}, " 2024-05\n")
    assert not right({**check, "whole": True}, "In 2024-05")
    assert verdict(check, "In 2024-05 it began").seen == "2024-05"


def test_a_pattern_that_backtracks_without_end_is_stopped() -> None:
    assert "too long" in verdict(SLOW, "a" * 5000 + "b").why
