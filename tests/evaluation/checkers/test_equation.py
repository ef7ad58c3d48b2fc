"""Solutions of equations: exact values, in any form, and all of them."""

from decimal import Decimal
from typing import Any

import pytest

from edgellm.evaluation.checkers.expression import NotAnExpression, values_of
from tests.evaluation.checkers.grade import right, verdict

TWO: dict[str, Any] = {"kind": "equation", "solutions": [1, "13/2"]}
ROOTS: dict[str, Any] = {"kind": "equation", "solutions": ["sqrt(2)", "-sqrt(2)"]}
NONE: dict[str, Any] = {"kind": "equation", "solutions": []}


@pytest.mark.parametrize(
    "text",
    [
        "x = 1 or x = 6.5", "x=1 或 x=6.5", "x₁=1，x₂=6.5", "x_1 = 13/2, x_2 = 1", "x = 1 or 13/2", "x ∈ {1, 6.5}",
        "The solutions are 1 and 6.5.", "解是 1 和 6.5", "x = (15 ± 11)/4", "$x = \\frac{15 \\pm \\sqrt{121}}{4}$",
        "x=1\nx=13/2", "First:\nx = (15+11)/4 = 26/4 = 6.5\nSecond:\nx = (15-11)/4 = 1", "x = 6 1/2 or x = 1",
        "The answer is x = 1 and x = 6.5.", "\\boxed{x = 1, \\frac{13}{2}}", "(x-1)(2x-13)=0, so x = 1 or x = 6.5",
        "Try x = 3.\nThat fails.\nIt does.\nx = 1 or x = 6.5", "答案：x=1，x=6.5",
        "得2x²-15x+13=0，所以x₁=1，x₂=13/2。", "x is 1, and x is 6.5",
        "x = 1; x = 6.50",
        "所以x=1，或者x=6.5。",
    ],
)  # fmt: skip
def test_both_solutions(text: str) -> None:
    assert right(TWO, text), verdict(TWO, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x = 1",
        "x = 1, x = 6",
        "2x = 13",
        "x = 1 or x = 6.5 or x = 0",
        "x = 1 or x = 6.5001",
        "x = y",
        "x = 1/0",
        "无解",
    ],
)
def test_not_both_solutions(text: str) -> None:
    assert not right(TWO, text)


def test_roots_are_exact() -> None:
    assert right(ROOTS, "x = ±√2")
    assert right(ROOTS, "x = √2 ≈ 1.414 or x = -√2 ≈ -1.414")
    assert right(ROOTS, "x = 2/sqrt(2), x = -sqrt(8)/2")
    assert not right(ROOTS, "x = 1.414 or x = -1.414")


def test_no_solution() -> None:
    assert right(NONE, "There are no real solutions.")
    assert right(NONE, "此方程无实数解。")
    assert not right(NONE, "x = 3")
    assert not right(NONE, "I do not know.")


def test_an_equation_is_solved_by_sympy() -> None:
    pytest.importorskip("sympy")
    assert right({"kind": "equation", "equation": "2x^2 - 15x + 13 = 0"}, "x = 1 or x = 6.5")
    assert right({"kind": "equation", "equation": "y^2 = 2", "variable": "y"}, "y = ±√2")
    assert right({"kind": "equation", "equation": "x^2 + 1 = 0"}, "no real solution")
    assert not right({"kind": "equation", "equation": "2(x - 3) = 8"}, "x = 6")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2^10", "1024"),
        ("-2^2", "-4"),
        ("2√9", "6"),
        ("(1+2)(3)", "9"),
        ("3 1/2", "3.5"),
        ("6.5 m", "6.5"),
        ("2^-1", "0.5"),
        ("--4", "4"),
    ],
)
def test_expressions(text: str, value: str) -> None:
    assert values_of(text) == [Decimal(value)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "2y",
        "__import__('os')",
        "9^9^9^9^9",
        "1/0",
        "sqrt(-1)",
        "(" * 1000,
        "1+" * 1000,
        "9" * 5000,
        "2^(1/2)",
        "9^999",
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(NotAnExpression):
        values_of(text)
