"""The tool `calculator`: exact arithmetic with percentages, fractions and units.

calculator().call({"expression": "15% of 80"})  ->  ToolResult("15% of 80 = 12")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgellm.errors import BadRequest
from edgellm.tools.builtin.arithmetic import compute
from edgellm.tools.tool import Risk, Tool, ToolResult

DESCRIPTION = (
    "Computes an arithmetic expression exactly: + - * / ^, mod for the remainder, brackets, percentages, fractions, "
    "sqrt, units. Examples: 12 * (3 + 4), 15% of 80, 17 mod 5, 1/2 + 1/3, 5 km in miles."
)
PARAMETERS = {
    "type": "object",
    "properties": {
        "expression": {"type": "string", "minLength": 1, "maxLength": 200, "description": "for example 12 * (3 + 4)"}
    },
    "required": ["expression"],
    "additionalProperties": False,
}
# A number as `Quantity.text` writes it; a fraction has its decimal beside it.
_VALUE = re.compile(r"(?<![\w^])-?\d+(?:\.\d+)?(?:/\d+)?(?:e[+-]?\d+)?")

EXAMPLES = tuple(
    (question, {"expression": expression})
    for question, expression in (
        ("What is 15% of 80?", "15% of 80"),
        ("What is the remainder when 17 is divided by 5?", "17 mod 5"),
        ("What is 12 × (3 + 4)?", "12 * (3 + 4)"),
        ("What is 2/3 - 1/4?", "2/3 - 1/4"),
        ("Tom has 30 pens, loses 12 and buys 5 boxes of 8. How many has he now?", "30 - 12 + 5 * 8"),
        ("How many miles are 5 km?", "5 km in miles"),
        ("What is 6 ÷ 0?", "6 / 0"),
        ("What is 48 + 17?", "48 + 17"),
        ("How much is 7 times 13?", "7 * 13"),
        ("Convert 20 degrees Celsius to Fahrenheit.", "20 C in F"),
        ("How many grams are 3 ounces?", "3 oz in g"),
        ("What is the mean of 3, 5 and 10?", "mean(3, 5, 10)"),
        ("There are 8 bags with 25 apples in each. How many apples are there in all?", "8 * 25"),
        ("A bag costs 60 and is reduced by 20%. What does it cost now?", "60 - 20%"),
        ("A bus has 40 seats, 12 are free and 3 people leave. How many sit there?", "40 - 12 - 3"),
        ("What is 50 - 72?", "50 - 72"),
        ("What is 3 × 4 - 2 × 9?", "3 * 4 - 2 * 9"),
        ("What is (7 + 2) × 5?", "(7 + 2) * 5"),
        ("48 + 17等于多少？", "48 + 17"),
        ("63 - 90等于多少？", "63 - 90"),
        ("12 × 30等于多少？", "12 * 30"),
        ("84 ÷ 4 + 5等于多少？", "84 / 4 + 5"),
        ("(7 + 2) × 5等于多少？", "(7 + 2) * 5"),
        ("2/3 - 1/4等于多少？请用分数回答。", "2/3 - 1/4"),
        ("6 ÷ 0等于多少？", "6 / 0"),
        ("小明有30支笔，送人12支，又买了5盒，每盒8支。小明现在有多少支笔？", "30 - 12 + 5 * 8"),
        ("90除以7，余数是多少？", "90 mod 7"),
        ("80的15%等于多少？", "15% of 80"),
    )
)
# Two numbers with an operator between them, a percentage of something, and words of arithmetic beside a number.
SIGNS = (
    r"\d\)?\s*[-+*/×÷^−]\s*[(√]*\d|\d\)?\s*[-+*/×÷^−]\s*\(|√\s*\d"
    r"|\d\s*(?:%|percent\b|per cent\b)\s*(?:of|的)|的\s*\d+\s*%|\d.*余数"
    r"|(?i:square root of \d|\d.*\bdivided by\b|\bremainder\b.*\d|\d\s*(?:plus|minus|times)\s+\d)"
)


def calculator() -> Tool:
    """The tool."""
    return Tool("calculator", DESCRIPTION, PARAMETERS, Risk.NOTHING, _call, examples=EXAMPLES, signs=SIGNS)


def _call(arguments: Mapping[str, Any]) -> ToolResult:
    expression = " ".join(str(arguments["expression"]).split()).removesuffix("=").strip()
    try:
        value = compute(expression)
    except BadRequest as error:
        return ToolResult(f"{expression} has no result: {error.what}.", error=True)
    text = value.text
    return ToolResult(f"{expression} {'=' if value.is_exact else '≈'} {text}", values=tuple(_VALUE.findall(text)))
