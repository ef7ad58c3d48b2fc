"""Which questions have one answer: pairs of questions with the cosines of MiniLM, and the reasons one by one."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from edgellm.cache.agreement import agree
from edgellm.cache.decision import decide
from edgellm.cache.facts import facts
from edgellm.cache.question_facts import normalised

PAIRS: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
]


def hit_rate(lang: str, *, same: bool) -> float:
    group = [pair for pair in PAIRS if pair["lang"] == lang and pair["same"] is same]
    return sum(decide(pair["a"], pair["b"], pair["cosine"]).hit for pair in group) / len(group)


@pytest.mark.parametrize(("lang", "least"), [("en", 0.65), ("zh", 0.5)])
def test_paraphrases_are_found_and_near_misses_are_not(lang: str, least: float) -> None:
    assert hit_rate(lang, same=True) >= least
    assert hit_rate(lang, same=False) <= 0.03


def test_other_questions_of_a_filled_cache_are_not_taken_for_the_same() -> None:
    """Half of the questions in Chinese against each other; without vectors, which English needs."""
    asked = sorted({pair["a"] for pair in PAIRS if pair["lang"] == "zh"})[::2]
    assert not [(one, other) for one, other in combinations(asked, 2) if decide(one, other, None).hit]


def test_the_order_of_two_questions_does_not_matter() -> None:
    for pair in PAIRS:
        there, back = decide(pair["a"], pair["b"], pair["cosine"]), decide(pair["b"], pair["a"], pair["cosine"])
        assert (there.hit, there.similarity) == (back.hit, back.similarity), pair["id"]


def test_a_question_is_the_same_as_itself() -> None:
    for text in (pair[side] for pair in PAIRS for side in "ab"):
        decision = decide(text, f"  {text.upper() if text.isascii() else text}  ", None)
        assert decision.hit and decision.similarity == 1.0 and decision.chance_to_ask == 0.0


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("Is the TB-80 loud?", "Is the TB-90 loud?", "names differ: tb80, tb90"),
        ("Give me 3 reasons.", "Give me 4 reasons.", "numbers differ: 3, 4"),
        ("What does 5 kg cost?", "What does 5 lb cost?", "units differ"),
        ("Is it allowed?", "Isn't it allowed?", "negated"),
        ("Translate it into french.", "Translate it into dutch.", "languages differ"),
        ("How do I mount the disk?", "How do I unmount the disk?", "alternatives that exclude each other"),
        ("Is the form complete?", "Is the form incomplete?", "opposites"),
        ("Who came to the party?", "Why did they come to the party?", "one asks"),
        ("Convert it from miles to points.", "Convert it from points to miles.", "exchanged"),
        ("Does the dog see the cat?", "Does the cat see the dog?", "another order"),
        ("How do I wash the coat?", "How do I wash the hat?", "only this differs: coat, hat"),
        ("Wie lange dauert es?", "Wie lange dauert das?", "only compared as they stand"),
        ("How long is it?", "它有多长？", "different languages"),
        ("Where is the key?", "Which planet has rings?", "too little in common"),
        ("从甲地到乙地多远？", "从乙地到甲地多远？", ""),
        ("有几个人来？", "没有几个人来？", "negated"),
    ],
)
def test_reasons(one: str, other: str, reason: str) -> None:
    decision = decide(one, other, 0.99)
    assert not decision.hit and reason in decision.reason


def test_numbers_are_read_in_words_digits_and_characters() -> None:
    assert facts("Give me twenty five of the third kind.").numbers == ("25", "3")
    assert facts("It costs 1,389.00 euros").numbers == ("1389.00",)
    assert facts("第十五页和 20 页").numbers == ("15", "20")
    assert decide("Give me two examples.", "Give me 2 examples.", 0.9).hit


def test_versions_are_not_rounded() -> None:
    assert not decide("What is new in 3.1?", "What is new in 3.10?", 0.99).hit


def test_without_vectors_english_is_not_compared_and_chinese_is() -> None:
    assert not decide("How do I delete my account?", "Steps to remove my account", None).hit
    assert decide("怎么导出数据？", "如何导出我的数据", None).hit


def test_hostile_questions_are_read_in_bounds() -> None:
    for text in (
        "",
        "?" * 10_000,
        "a" * 1_000_000,
        "一" * 1_000_000,
        "\x00\ud800",
        "不" * 5000,
        "1" * 100_000,
        "‮'’-" * 999,
    ):
        facts(text)
        assert decide(text, "What is it?", 0.9).hit is False
    assert normalised("Ｗｈａｔ  is\nit？") == "what is it"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("It is 24 months.", "The warranty is 24 months.", True),
        ("It is 24 months.", "The warranty is 12 months.", False),
        ("Yes, it is waterproof.", "No, it is not waterproof.", False),
        ("The capital is Paris.", "Paris is the capital of France.", True),
        ("The capital is Paris.", "The capital is Rome.", False),
        ("", "The capital is Rome.", False),
    ],
)
def test_answers_agree(one: str, other: str, same: bool) -> None:
    assert agree(one, other) is same
