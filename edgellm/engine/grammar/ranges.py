"""Grammars of the numbers between two limits.

    integers(7, 42)  ->  '[7-9] | [1-3] [0-9] | "4" ([0-2])'

Numbers are written as people write them: without leading zeros, and, where there is a limit, without exponents.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from math import ceil, floor

# The most digits of an integer, or before and after a decimal point.
MAX_DIGITS = 16
LARGEST = 10**MAX_DIGITS - 1
ZERO = Decimal(0)
START = -1
EMPTY = ' | ""'
# The multiples of a larger number are not written out.
MAX_DIVISOR = 200


def integers(least: float | None, most: float | None) -> str | None:
    """The integers between two limits, both included; None if there are none with few enough digits."""
    low = -LARGEST if least is None else max(-LARGEST, ceil(least))
    high = LARGEST if most is None else min(LARGEST, floor(most))
    ways = []
    if low < 0 and (inner := _naturals(max(1, -high), -low)):
        ways.append(f'"-" ({inner})')
    if high >= 0 and (inner := _naturals(max(0, low), high)):
        ways.append(inner)
    return " | ".join(ways) or None


def numbers(least: float | None, most: float | None, places: int = MAX_DIGITS) -> str | None:
    """The decimal numbers between two limits, both included; None if there are none with few enough digits.

    Args:
        places: the most digits after the point.
    """
    low, high = (None if limit is None else Decimal(repr(limit)) for limit in (least, most))
    ways = []
    if low is None or low < 0:
        begin, end = ZERO if high is None else max(ZERO, -high), None if low is None else -low
        ways += [f'"-" ({inner})' for inner in _decimals(begin, end, places)]
    if high is None or high >= 0:
        ways += _decimals(ZERO if low is None else max(ZERO, low), high, places)
    return " | ".join(ways) or None


def multiples(divisor: int) -> dict[str, str]:
    """Rules for the multiples of a divisor, the first one is `start`.

    A rule stands for the remainder of the digits so far, and how many more there may be: without an end to them, a
    model that never comes to a multiple would write digits for ever.
    """
    rules: dict[str, str] = {}

    def rest(remainder: int, left: int) -> str:
        name = f"rest-{remainder}-{left}"
        if name not in rules:
            rules[name] = ""  # it is written only once
            rules[name] = " | ".join([*['""'] * (remainder == 0), *(digits(remainder, left) if left else ())])
        return name

    def digits(remainder: int, left: int) -> Iterator[str]:
        for digit in range(remainder == START, 10):
            after = (10 * max(remainder, 0) + digit) % divisor
            if _can_end(after, left - 1, divisor):
                yield f'"{digit}" {rest(after, left - 1)}'

    start = " | ".join(digits(START, len(str(divisor)) + 2))
    return {"start": f'"-"? ("0" | {start})', **rules}


def _can_end(remainder: int, left: int, divisor: int) -> bool:
    """Whether at most so many digits more can lead to a multiple."""
    return remainder == 0 or (-remainder * 10**left) % divisor < 10**left


def _naturals(low: int, high: int) -> str:
    """Natural numbers from low to high, by their number of digits."""
    ways: list[str] = []
    whole: list[int] = []
    for length in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (length - 1) if length > 1 else 0)
        last = min(high, 10**length - 1)
        if length > 1 and first == 10 ** (length - 1) and last == 10**length - 1:
            whole.append(length - 1)
        elif first <= last:
            ways += _between(str(first), str(last))
    if whole:
        ways.append(f"[1-9] [0-9]{{{whole[0]},{whole[-1]}}}")
    return " | ".join(ways)


def _between(low: str, high: str) -> Iterator[str]:
    """Digits from low to high, which have the same length."""
    if not low:
        yield '""'
        return
    n_rest = len(low) - 1
    if low[1:] == "0" * n_rest and high[1:] == "9" * n_rest:
        yield _digits(low[0], high[0]) + _any_digits(n_rest)
    elif low[0] == high[0]:
        yield f'"{low[0]}" ({" | ".join(_between(low[1:], high[1:]))})'
    else:
        first, last = int(low[0]), int(high[0])
        if low[1:] != "0" * n_rest:
            yield f'"{low[0]}" ({" | ".join(_between(low[1:], "9" * n_rest))})'
            first += 1
        whole_last = high[1:] == "9" * n_rest
        if first <= last - (not whole_last):
            yield _digits(str(first), str(last - (not whole_last))) + _any_digits(n_rest)
        if not whole_last:
            yield f'"{high[0]}" ({" | ".join(_between("0" * n_rest, high[1:]))})'


def _digits(low: str, high: str) -> str:
    return f'"{low}"' if low == high else f"[{low}-{high}]"


def _any_digits(count: int) -> str:
    return "" if count == 0 else " [0-9]" if count == 1 else f" [0-9]{{{count}}}"


def _decimals(low: Decimal, high: Decimal | None, places: int) -> list[str]:
    """Decimal numbers from low to high, neither negative; None: without an end."""
    first, last = int(low), LARGEST + 1 if high is None else int(high)
    low_part = _fraction(low)
    if first > LARGEST or (high is not None and high < low):
        return []
    if first == last and high is not None:
        return [f'"{first}" ({_fractions(low_part, _fraction(high), places)})']
    ways = [f'"{first}" ({_fractions(low_part, None, places)})']
    if first + 1 < last:
        ways.append(f'({_naturals(first + 1, min(last - 1, LARGEST))}) ("." [0-9]{{1,{places}}})?')
    if last <= LARGEST and high is not None:
        ways.append(f'"{last}" ({_fractions("", _fraction(high), places)})')
    return ways


def _fraction(value: Decimal) -> str:
    """The digits after the point, without zeros at the end."""
    return f"{value - int(value):f}".partition(".")[2].rstrip("0")[:MAX_DIGITS]


def _fractions(low: str, high: str | None, places: int) -> str:
    """What may follow the integer part: nothing, or a point and digits from low to high (None: to the end)."""
    digits = _at_least(low, places) if high is None else _within(low, high, places)
    return " | ".join([*['""'] * (not low), f'"." ({digits})'])


def _tail(places: int) -> str:
    return f"[0-9]{{0,{places}}}" if places > 0 else '""'


def _at_least(low: str, places: int) -> str:
    """Digits after the point that are no less than `low`."""
    if not low:
        return f"[0-9]{{1,{places}}}"
    ways = [] if low[0] == "9" else [f"{_digits(str(int(low[0]) + 1), '9')} {_tail(places - 1)}"]
    rest = f"({_at_least(low[1:], places - 1)})" if low[1:] else _tail(places - 1)
    return " | ".join([*ways, f'"{low[0]}" {rest}'])


def _within(low: str, high: str, places: int) -> str:
    """Digits after the point from low to high; both may be shorter than what is written."""
    if not high:
        return '"0"{1,4}'  # low is nothing, too
    first, last = low[:1] or "0", high[0]
    zeros = '"0"{0,4}'
    up_to_high = f'{_within("", high[1:], places - 1)} | ""' if high[1:] else zeros
    if first == last:
        both = _within(low[1:], high[1:], places - 1) if high[1:] else zeros
        return f'"{first}" ({both}{"" if low[1:] or not high[1:] else EMPTY})'
    rest = f"({_at_least(low[1:], places - 1)})" if low[1:] else _tail(places - 1)
    ways = [f'"{first}" {rest}']
    if int(first) + 1 < int(last):
        ways.append(f"{_digits(str(int(first) + 1), str(int(last) - 1))} {_tail(places - 1)}")
    return " | ".join([*ways, f'"{last}" ({up_to_high})'])
