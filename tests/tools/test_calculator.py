"""The calculator: exact, with units, and bounded whatever is typed."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.tools.builtin.arithmetic import compute
from edgellm.tools.builtin.calculator import calculator
from edgellm.tools.toolbox import Toolbox


def result(expression: str) -> str:
    return Toolbox([calculator()]).call("calculator", {"expression": expression}).text


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 * (3 + 4)", "84"), ("15% of 80", "12"), ("80 + 10%", "88"), ("80 - 25 %", "60"), ("20%", "0.2"),
        ("17 % 5", "2"), ("17 mod 5", "2"), ("-7 mod 3", "2"), ("1/2 + 1/3", "5/6 (about 0.8333333333)"),
        ("0.1 + 0.2", "0.3"), ("1,389.50 × 2", "2779"), ("-2^2", "-4"), ("2^-3", "0.125"), ("2^3^2", "512"),
        ("√16", "4"), ("sqrt(2.25)", "1.5"), ("5!", "120"), ("7 ÷ 2", "3.5"), ("7 // 2", "3"), ("3²+1", "10"),
        ("mean(3, 5, 10)", "6"), ("max(2, 7)", "7"), ("round(2.675, 2)", "2.68"), ("gcd(12, 18)", "6"),
        ("5 km in m", "5000 m"), ("2 ft in cm", "60.96 cm"), ("20 C in F", "68 F"), ("98.6 F in C", "37 C"),
        ("100 km / 2 h", "50 km/h"), ("3 h + 20 min in minutes", "200 minutes"), ("2 GiB in MiB", "2048 MiB"),
        ("1 kWh in J", "3600000 J"), ("（1＋2）× 3 =", "9"),
    ],
)  # fmt: skip
def test_values(expression: str, value: str) -> None:
    assert result(expression).endswith(f" = {value}")


def test_what_is_not_exact_says_so() -> None:
    assert result("sqrt(2)") == "sqrt(2) ≈ 1.4142135623731"
    assert result("5 km in miles") == "5 km in miles = 3.10685596118667 miles"


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("6 / 0", "divided by zero"), ("5 mod 0", "divided by zero"), ("0^-1", "divided by zero"),
        ("9**9**9", "1,200 digits"), ("10^5000", "1,200 digits"), ("2^2^2^2^2^2^2", "1,200 digits"),
        ("401!", "factorial"), ("1e9999", "too large"), ("__import__('os')", "cannot be read"),
        ("open", "is no number"), ("2 kg + 3 m", "different units"), ("5 km in kg", "different things"),
        ("sqrt(-1)", "no real root"), ("log(0)", "logarithm"), ("(1 + 2", "not closed"), ("3 *", "not complete"),
        ("max()", "not expected"), ("1 + " * 60, "wrong"), ("(" * 100, "deeply"), ("exp(99999)", "1,200 digits"),
        ("10 apples", "not expected"), ("", "wrong"),
    ],
)  # fmt: skip
def test_what_has_no_value_is_one_sentence(expression: str, why: str) -> None:
    began = time.monotonic()
    found = Toolbox([calculator()]).call("calculator", {"expression": expression})
    assert found.error and why in found.text and "\n" not in found.text
    assert time.monotonic() - began < 0.5


@given(st.text(alphabet="0123456789+-*/^%()., !eE√kmhin", max_size=60))
def test_no_text_hangs_or_breaks_it(expression: str) -> None:
    began = time.monotonic()
    assert Toolbox([calculator()]).call("calculator", {"expression": expression or "1"}).text
    assert time.monotonic() - began < 1


@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_are_exact(one: Fraction, other: Fraction) -> None:
    assert compute(f"({one}) + ({other})").number == one + other
    assert compute(f"({one}) * ({other})").number == one * other
