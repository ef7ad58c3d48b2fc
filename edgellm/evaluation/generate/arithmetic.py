"""Sums, products, remainders, fractions, percentages, brackets, word problems and division by zero, from a seed.

    Arithmetic(seed=1, digits=(1, 2), each=1).items()

The four basic operations are graded: both operands have so many digits, and that is the item's category. The other
forms are categories of their own. All answers are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import Field

from edgellm.evaluation.generate.seeded_random import SeededRandom
from edgellm.evaluation.generate.word_problems import word_problem
from edgellm.evaluation.item import Check, Item
from edgellm.models.sampling_fields import StrictModel

Language = Literal["en", "zh"]
# A question and its check.
Question = tuple[str, Check]
_REMAINDER = r"(?i)(?:remainder|\br|余数?|…+|\.{3,}|·{3,})\s*(?:of|is|=|:|：|为|是|等于)?\s*"
_BY_ZERO_WORDS = (
    "undefined", "not defined", "cannot be divided", "cannot divide", "can't divide", "can not divide", "not possible",
    "impossible", "not allowed", "no answer", "no value", "no result", "no solution", "meaningless", "no meaning",
    "does not exist", "无意义", "没有意义", "无定义", "没有定义", "未定义", "不能", "不可以", "不存在", "无解",
)  # fmt: skip


class Arithmetic(StrictModel):
    """Parameters: digits of the operands, and how many items there are of each operation, digits and language."""

    seed: int = 1
    digits: Annotated[tuple[Annotated[int, Field(ge=1, le=12)], ...], Field(min_length=1, max_length=12)] = (1, 2, 3, 4)
    each: Annotated[int, Field(ge=1, le=100)] = 2
    languages: tuple[Language, ...] = ("en", "zh")

    def items(self) -> list[Item]:
        """The items, always the same ones for the same parameters."""
        return [item for language in self.languages for item in self._in_language(language)]

    def _in_language(self, language: Language) -> Iterator[Item]:
        for n_digits in self.digits:
            category = f"{n_digits} digit{'s' if n_digits > 1 else ''}"
            for name, operation in OPERATIONS.items():
                yield from self._some(f"{name}-{n_digits}", category, language, _graded(operation, n_digits))
        for name, (category, form) in FORMS.items():
            yield from self._some(name, category, language, form)

    def _some(self, name: str, category: str, language: Language, form: Form) -> Iterator[Item]:
        for number in range(1, self.each + 1):
            item_id = f"{name}-{language}-{number}"
            prompt, check = form(SeededRandom(f"arithmetic/{self.seed}/{item_id}"), language)
            yield Item(item_id, prompt, check, category, language)


Form = Callable[[SeededRandom, Language], Question]
Operation = Callable[[SeededRandom, Language, int], Question]


def _graded(operation: Operation, n_digits: int) -> Form:
    return lambda draw, language: operation(draw, language, n_digits)


def _number(value: int | Fraction) -> Check:
    """The check of an exact number."""
    return {"kind": "number", "value": int(value) if value == int(value) else str(value)}


def _compute(expression: str, language: Language) -> str:
    """The question for the value of an expression."""
    return f"What is {expression}?" if language == "en" else f"{expression}等于多少？"


def _sum(draw: SeededRandom, language: Language, n_digits: int) -> Question:
    a, b = draw.number(n_digits), draw.number(n_digits)
    return _compute(f"{a} + {b}", language), _number(a + b)


def _difference(draw: SeededRandom, language: Language, n_digits: int) -> Question:
    a, b = draw.number(n_digits), draw.number(n_digits)
    return _compute(f"{a} - {b}", language), _number(a - b)


def _product(draw: SeededRandom, language: Language, n_digits: int) -> Question:
    a, b = draw.number(n_digits), draw.number(n_digits)
    return _compute(f"{a} × {b}", language), _number(a * b)


def _remainder(draw: SeededRandom, language: Language, n_digits: int) -> Question:
    a, b = sorted((draw.number(n_digits), draw.number(max(1, n_digits - 1))), reverse=True)
    prompt = f"What is the remainder when {a} is divided by {b}?" if language == "en" else f"{a}除以{b}，余数是多少？"
    # "47 ÷ 6 = 7 remainder 5" gives two numbers, and the quotient comes first.
    labelled = {"kind": "pattern", "pattern": f"{_REMAINDER}{a % b}(?![0-9])"}
    unlabelled = {"kind": "not", "of": [{"kind": "pattern", "pattern": f"{_REMAINDER}[0-9]"}]}
    bare = {"kind": "all", "of": [unlabelled, _number(a % b)]}
    return prompt, {"kind": "any", "of": [labelled, bare]}


def _fraction(draw: SeededRandom, language: Language) -> Question:
    (b, d), sign = draw.some(range(2, 13), 2), draw.pick("+-")
    one, two = Fraction(draw.integer(1, b - 1), b), Fraction(draw.integer(1, d - 1), d)
    hint = " Give the answer as a fraction." if language == "en" else "请用分数回答。"
    return _compute(f"{one} {sign} {two}", language) + hint, _number(one + two if sign == "+" else one - two)


def _percentage(draw: SeededRandom, language: Language) -> Question:
    percent, whole = draw.integer(1, 19) * 5, draw.integer(2, 50) * 20
    expression = f"{percent}% of {whole}" if language == "en" else f"{whole}的{percent}%"
    return _compute(expression, language), _number(percent * whole // 100)


def _order(draw: SeededRandom, language: Language) -> Question:
    a, b, c, d = (draw.integer(2, 20) for _ in range(4))
    expression, value = draw.pick([
        (f"{a} + {b} × {c}", a + b * c),
        (f"({a} + {b}) × {c}", (a + b) * c),
        (f"{a} × {b} - {c} × {d}", a * b - c * d),
        (f"{a} - ({b} - {c}) × {d}", a - (b - c) * d),
        (f"{a * b} ÷ {a} + {c}", b + c),
    ])  # fmt: skip
    return _compute(expression, language), _number(value)


def _by_zero(draw: SeededRandom, language: Language) -> Question:
    return _compute(f"{draw.number(2)} ÷ 0", language), {"kind": "contains", "any": list(_BY_ZERO_WORDS)}


def _zero(draw: SeededRandom, language: Language) -> Question:
    return _compute(f"0 ÷ {draw.number(2)}", language), _number(0)


OPERATIONS: dict[str, Operation] = {
    "sum": _sum,
    "difference": _difference,
    "product": _product,
    "remainder": _remainder,
}
# A category and a form for each name.
FORMS: dict[str, tuple[str, Form]] = {
    "fraction": ("fractions", _fraction),
    "percentage": ("percentages", _percentage),
    "order": ("order of operations", _order),
    "word-problem": ("word problems", word_problem),
    "by-zero": ("zero", _by_zero),
    "zero": ("zero", _zero),
}
