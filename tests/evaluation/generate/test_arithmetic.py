"""Generated arithmetic: the same items everywhere, and answers that are computed a second time."""

import ast
import re
from fractions import Fraction

import pytest

from edgellm.errors import UsageError
from edgellm.evaluation.checkers import checker
from edgellm.evaluation.generate import generate
from edgellm.evaluation.generate.seeded_random import SeededRandom
from edgellm.evaluation.item import Item
from edgellm.evaluation.verdict import GivenAnswer

ITEMS = [item for seed in (1, 2, 3) for item in generate({"kind": "arithmetic", "seed": seed, "each": 3})]
FULL_WIDTH = str.maketrans("0123456789", "０１２３４５６７８９")


def solved(item: Item) -> Fraction | None:
    """The value of what the prompt asks for, None for a division by zero; AssertionError for a word problem."""
    if found := re.search(r"remainder when (\d+) is divided by (\d+)|(\d+)除以(\d+)，余数", item.prompt):
        a, b = (int(each) for each in found.groups() if each)
        return Fraction(a % b)
    if found := re.search(r"(\d+)% of (\d+)", item.prompt):
        return Fraction(int(found[1]) * int(found[2]), 100)
    if found := re.search(r"(\d+)的(\d+)%", item.prompt):
        return Fraction(int(found[1]) * int(found[2]), 100)
    found = re.search(r"(?:What is )?([-+×÷/() 0-9]+)(?:\?|等于)", item.prompt)
    assert found
    return value(ast.parse(found[1].strip().replace("×", "*").replace("÷", "/"), mode="eval").body)


def value(node: ast.expr) -> Fraction | None:
    if isinstance(node, ast.Constant):
        return Fraction(str(node.value))
    assert isinstance(node, ast.BinOp)
    left, right = value(node.left), value(node.right)
    assert left is not None and right is not None
    if isinstance(node.op, ast.Div):
        return left / right if right else None
    return {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}[type(node.op)]


def grade(item: Item, answer: object) -> float:
    return checker(item.check).check(GivenAnswer(str(answer))).score


def test_answers_are_right_when_computed_a_second_time() -> None:
    for item in ITEMS:
        if item.category != "word problems":
            check_answers(item)


def check_answers(item: Item) -> None:
    answer = solved(item)
    if answer is None:
        assert grade(item, "It is undefined.") == grade(item, "没有意义，除数不能为零。") == 1
        assert grade(item, "0") == grade(item, "The answer is 1.") == grade(item, "无穷大") == 0
        return
    right = [answer, f"The answer is {answer}.", f"答案是{answer}。", str(answer).translate(FULL_WIDTH)]
    assert [grade(item, each) for each in right] == [1] * len(right), item
    wrong = [answer + 1, f"The answer is {answer - 1}.", f"It is not {answer} but {answer + 2}.", "I do not know."]
    assert [grade(item, each) for each in wrong] == [0] * len(wrong), item


def test_a_remainder_may_come_with_its_quotient() -> None:
    item = next(item for item in ITEMS if item.id == "remainder-2-en-1")
    assert item.prompt == "What is the remainder when 45 is divided by 8?"
    for right in ("45 ÷ 8 = 5 remainder 5", "45 = 5 × 8 + 5, so the remainder is 5.", "45÷8=5……5", "商是5，余数是5。"):
        assert grade(item, right) == 1, right
    for wrong in ("45 ÷ 8 = 5 remainder 3", "5 R 4", "45÷8=5……6", "商是5，余数是4。", "5.625"):
        assert grade(item, wrong) == 0, wrong


def test_word_problems_have_the_answers_of_their_numbers() -> None:
    problems = [item for item in ITEMS if item.category == "word problems"]
    assert len({re.sub(r"\d+", "", item.prompt) for item in problems}) > 10
    for item in problems:
        numbers = [int(each) for each in re.findall(r"\d+", item.prompt)]
        expected = {
            "shelf|书架": lambda n: n[0] * n[1],
            "stamps|邮票|late|晚点": lambda n: n[0] - n[1] + n[2],
            "ticket|儿童票": lambda n: n[0] * n[2] + n[1],
            "reads|读了": lambda n: n[0] + n[0] + n[1],
            "garden|花园": lambda n: 2 * n[0] + 2 * n[1],
        }
        (compute,) = [each for words, each in expected.items() if re.search(words, item.prompt)]
        assert item.check == {"kind": "number", "value": compute(numbers)}
        assert all(number > 0 for number in numbers)


def test_a_seed_gives_the_same_items_everywhere() -> None:
    first = generate({"kind": "arithmetic"})
    assert first == generate({"kind": "arithmetic", "seed": 1})
    assert [item.prompt for item in first[:3]] == ["What is 7 + 8?", "What is 6 + 4?", "What is 9 - 2?"]
    assert first != generate({"kind": "arithmetic", "seed": 2})


def test_more_items_do_not_change_the_first_ones() -> None:
    few = {item.id: item for item in generate({"kind": "arithmetic", "each": 1})}
    more = {item.id: item for item in generate({"kind": "arithmetic", "each": 3, "digits": [1, 2, 3, 4, 5]})}
    assert few.items() <= more.items()


def test_operands_have_the_digits_of_their_category() -> None:
    for item in generate({"kind": "arithmetic", "digits": [3, 7], "each": 10}):
        if item.id.startswith(("sum", "product", "difference")):
            sizes = {len(number) for number in re.findall(r"\d+", item.prompt)}
            assert sizes == {int(item.category.split()[0])}


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"kind": "arithmetics"}, "did you mean arithmetic"),
        ({}, "the kinds are arithmetic, needle"),
        ({"kind": "arithmetic", "digit": [1]}, "did you mean digits"),
        ({"kind": "arithmetic", "digits": [0]}, "digits.0"),
        ({"kind": "arithmetic", "digits": []}, "digits"),
        ({"kind": "arithmetic", "each": 10**9}, "each"),
        ({"kind": "arithmetic", "languages": ["xx"]}, "languages"),
        ({"kind": "needle", "depths": [101]}, "depths.0"),
        ({"kind": ["needle"]}, "did you mean needle"),
    ],
)
def test_a_wrong_table_is_refused_by_name(parameters: dict[str, object], why: str) -> None:
    with pytest.raises(UsageError) as caught:
        generate(parameters)
    assert why in caught.value.why


def test_draws_stay_in_their_range() -> None:
    draw = SeededRandom("any")
    assert {draw.integer(1, 6) for _ in range(500)} == {1, 2, 3, 4, 5, 6}
    assert sorted(draw.some("abc", 3)) == ["a", "b", "c"]
    assert all(10 <= draw.number(2) <= 99 for _ in range(100))
