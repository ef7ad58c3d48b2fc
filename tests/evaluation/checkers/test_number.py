"""The final number of an answer, as people and models write it in English and Chinese."""

from typing import Any

import pytest

from edgellm.evaluation.checkers.units import conversion, is_known
from tests.evaluation.checkers.grade import right, verdict

RIGHT: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"value": 51},
        [
            "51", "51.0", "It's 51.", "17 * 3 = 51", "**51**", "$51$", "５１", "The answer is 51 apples.", "五十一",
            "fifty-one", "The answer is fifty-one.", "答案是51。", "答案：五十一", "答：51个", "\\boxed{51}, not 3",
            "The answer is not 50 but 51.", "51, not 50", "是51，而不是50", "答案不是50而是51",
            "1. Take 17*3.\n2. It is 51",
            "Step 1: take 17.\nAnswer: 17 + 34 = 51", "Answer:\n\n51", "The answer to 17*3 is 51.",
            "51\n\nBecause 17 + 17 + 17 counts 3 times.", "So 17 × 3 = 51", "结果等于 51", "**Answer:** 51",
            "The answer is 51 because 3 boxes hold 17 each.", "第一步：17乘以3。\n第二步：得到51", "= +51", "（51）",
        ],
    ),
    ({"value": -5}, ["-5", "−5", "–5", "minus five", "negative 5", "负五", "零下5度", "x = -5", "it is -5", "= - 5"]),
    ({"value": 320}, ["320", "三百二十", "三百二", "3.2e2", "3.2 × 10^2", "3.2×10²", "3.2 \\times 10^{2}"]),
    ({"value": 10000}, ["1万", "一万", "10,000", "10 000", "１０，０００", "ten thousand", "10 thousand"]),
    ({"value": 12345678}, ["一千二百三十四万五千六百七十八", "12,345,678", "1234.5678万"]),
    ({"value": 105000000}, ["一亿零五百万", "1.05亿", "105 million"]),
    ({"value": 2024}, ["二零二四年", "2024年", "二〇二四"]),
    ({"value": 3005}, ["三千零五"]),
    ({"value": 0}, ["0", "zero", "零", "-0"]),
    ({"value": "1/4"}, ["1/4", "0.25", "25%", "¼", "四分之一", "a quarter", "\\frac{1}{4}", "2/8", "1/8 + 1/8 = 1/4."]),
    ({"value": 1.5}, ["1½", "1 1/2", "3/2", "一个半", "one and a half", "1.5", "1.50"]),
    ({"value": 25, "unit": "%"}, ["25%", "25 percent", "百分之二十五", "25", "25 %"]),
    (
        {"value": 90, "unit": "min"},
        [
            "90 minutes", "90分钟", "1.5 hours", "1 hour 30 minutes", "1 hour and 30 minutes", "1小时30分钟",
            "1小时30分",
            "一个半小时", "90", "It takes 2 buses 90 minutes.", "5400 s",
        ],
    ),
    ({"value": 1.5, "unit": "km"}, ["1500 m", "1.5千米", "1,500 metres", "1.5公里", "1500米", "1.5km"]),
    ({"value": 72, "unit": "km/h"}, ["72 km/h", "20 m/s", "72公里/小时"]),
    ({"value": 3.5, "unit": "元"}, ["3.5元", "3元5角", "¥3.5", "350分", "3块5毛"]),
    ({"value": 3.14, "tolerance": 0.01}, ["3.1416", "三点一四", "pi is about 3.14"]),
]  # fmt: skip
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    (
        {"value": 51},
        ["", "50", "-51", "151", "5 1", "The answer is 51 or 52", "答案是51或52", "not 51", "不是51", "x51", "5.1"],
    ),
    ({"value": 51}, ["The answer is not 51 but 52.", "51 is not it. 17 + 17 = 34", "51/2", "51 million", "no number"]),
    ({"value": -5}, ["5", "- 5", "10 - 5", "10-5"]),
    ({"value": 25, "unit": "%"}, ["1/4", "0.25", "25 kg"]),
    ({"value": 90, "unit": "min"}, ["90 seconds", "90 km", "1 hour"]),
    ({"value": 1.5, "unit": "km"}, ["1.5 m", "1.5 kg", "15 km", "150 m"]),
    ({"value": 1}, ["一共很多", "统一的看法", "十分好", "第三"]),
    ({"value": 3.14, "tolerance": 0.01}, ["3.2", "314"]),
]


def pairs(table: list[tuple[dict[str, Any], list[str]]]) -> list[Any]:
    return [pytest.param(check, text, id=f"{check['value']}-{text}") for check, texts in table for text in texts]


@pytest.mark.parametrize(("check", "text"), pairs(RIGHT))
def test_right_numbers(check: dict[str, Any], text: str) -> None:
    assert right({"kind": "number", **check}, text), verdict({"kind": "number", **check}, text)


@pytest.mark.parametrize(("check", "text"), pairs(WRONG))
def test_wrong_numbers(check: dict[str, Any], text: str) -> None:
    assert not right({"kind": "number", **check}, text)


def test_a_verdict_shows_the_number_that_was_taken_and_the_right_one() -> None:
    found = verdict({"kind": "number", "value": 3, "unit": "km"}, "First 2 km, so the answer is 2.5 km.")
    assert (found.score, found.seen, found.why) == (0.0, "2.5 km", "3 km is right")


def test_units_of_one_kind_convert_exactly() -> None:
    assert conversion("mile", "km") * 1000 == conversion("miles", "m")
    assert conversion("小时", "min") == 60
    assert conversion("kg", "km") is None
    assert is_known("Hours")
    assert not is_known("apples")
