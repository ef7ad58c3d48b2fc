"""Word problems of one or two steps in English and Chinese, whose numbers are drawn.

word_problem(draw, "en")  ->  ("A shelf holds 12 books. ...", {"kind": "number", "value": 60})
"""

from __future__ import annotations

from typing import Any

from edgellm.evaluation.generate.seeded_random import SeededRandom

# A problem in both languages, and its answer from the numbers a > b > c (2 to 60, c at most 9).
_PROBLEMS: tuple[tuple[str, str, str], ...] = (
    (
        "A shelf holds {a} books. How many books do {c} such shelves hold?",
        "一个书架放{a}本书。{c}个这样的书架一共放多少本书？",
        "product",
    ),
    (
        "{name} has {a} stamps and gives {b} of them away. Then {name} gets {c} new ones. How many stamps does {name} "
        "have now?",
        "{name}有{a}张邮票，送给别人{b}张，后来又得到{c}张。{name}现在有多少张邮票？",
        "change",
    ),
    (
        "A ticket costs {c} dollars for a child and {b} dollars for an adult. How many dollars do {c} children and one "
        "adult pay together?",
        "儿童票每张{c}元，成人票每张{b}元。{c}个儿童和一个成人一共要付多少元？",
        "tickets",
    ),
    (
        "{name} reads {b} pages on Monday and {c} pages more on Tuesday than on Monday. How many pages does {name} "
        "read on the two days together?",
        "{name}星期一读了{b}页书，星期二比星期一多读{c}页。{name}两天一共读了多少页？",
        "two_days",
    ),
    (
        "A train is {a} minutes late at first, makes up for {b} minutes and then loses {c} minutes again. How many "
        "minutes late is it now?",
        "一列火车先晚点{a}分钟，后来赶回{b}分钟，接着又耽误了{c}分钟。它现在晚点多少分钟？",
        "change",
    ),
    (
        "A rectangular garden is {a} metres long and {b} metres wide. What is its perimeter in metres?",
        "一个长方形花园长{a}米，宽{b}米。它的周长是多少米？",
        "perimeter",
    ),
)
_NAMES = {
    "en": ("Aisha", "Bruno", "Clara", "Dmitri", "Emeka", "Fatima"),
    "zh": ("小林", "小周", "小许", "小何", "小罗"),
}


def word_problem(draw: SeededRandom, language: str) -> tuple[str, dict[str, Any]]:
    """A problem and the check of its answer."""
    english, chinese, rule = draw.pick(_PROBLEMS)
    c = draw.integer(2, 9)
    b = draw.integer(c + 1, 30)
    a = draw.integer(b + 1, 60)
    value = {
        "product": a * c,
        "change": a - b + c,
        "tickets": c * c + b,
        "two_days": 2 * b + c,
        "perimeter": 2 * (a + b),
    }[rule]
    prompt = (english if language == "en" else chinese).format(name=draw.pick(_NAMES[language]), a=a, b=b, c=c)
    return prompt, {"kind": "number", "value": value}
