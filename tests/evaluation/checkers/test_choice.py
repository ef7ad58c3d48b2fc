"""Choices: letters, words, and spellings in two languages."""

from typing import Any

import pytest

from tests.evaluation.checkers.grade import right

LETTERS: dict[str, Any] = {"kind": "choice", "answer": "B"}
YES: dict[str, Any] = {
    "kind": "choice", "answer": "yes", "choices": {"yes": ["是", "是的", "对"], "no": ["不是", "否", "不对", "错"]},
}  # fmt: skip
PLANETS: dict[str, Any] = {"kind": "choice", "answer": "Mars", "choices": ["Venus", "Mars", "Jupiter"]}


@pytest.mark.parametrize(
    "text",
    [
        "B", "b)", "(B)", "B.", "B. Paris", "**B**", "选B", "答案是Ｂ", "答案：（B）", "The answer is B.", "\\boxed{B}",
        "A nice question. The answer is (B) because A is wrong.", "I think B is right, since A has none.",
        "Not A but B",
        "Option B: Paris", "The correct answer is:\n\nB) Paris", "A is wrong, and C too.\nB", "B, because I read it.",
    ],
)  # fmt: skip
def test_the_letter_is_found(text: str) -> None:
    assert right(LETTERS, text)


@pytest.mark.parametrize(
    "text", ["", "A", "A or B", "B or C", "Both", "not B", "不选B", "E", "The answer is A, not B", "Bob"]
)
def test_other_letters_are_wrong(text: str) -> None:
    assert not right(LETTERS, text)


@pytest.mark.parametrize("text", ["Yes", "Yes, no doubt about it.", "是的", "是", "对。", "The answer is yes.", "YES!"])
def test_yes_in_both_languages(text: str) -> None:
    assert right(YES, text)


@pytest.mark.parametrize(
    "text", ["No.", "不是", "否", "错", "不对", "No, yes would be wrong.", "Perhaps.", "Yesterday"]
)
def test_no_in_both_languages(text: str) -> None:
    assert not right(YES, text)


def test_words_are_choices() -> None:
    assert right(PLANETS, "It is Mars.")
    assert right(PLANETS, "Venus is hot and Jupiter is far. The answer is Mars.")
    assert not right(PLANETS, "It is Mars or Venus.")
    assert not right(PLANETS, "It is not Mars.")
