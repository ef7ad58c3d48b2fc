"""The clock at a fixed moment."""

from datetime import datetime, timezone
from typing import Any

import pytest

from edgellm.tools.builtin.clock import EXAMPLES, clock
from edgellm.tools.toolbox import Toolbox

NOW = datetime(2026, 11, 29, 23, 30, tzinfo=timezone.utc)
TOOLBOX = Toolbox([clock(lambda: NOW)])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"zone": "Tokyo"}, "It is 08:30 in Tokyo, on Monday, 30 November 2026 (2026-11-30, UTC+0900)."),
        ({"zone": "New York"}, "It is 18:30 in New York, on Sunday, 29 November 2026 (2026-11-29, UTC-0500)."),
        ({"zone": "UTC", "date": "today"}, "2026-11-29 is a Sunday: Sunday, 29 November 2026, today."),
        ({"zone": "UTC", "date": "2026-12-24"}, "2026-12-24 is a Thursday: Thursday, 24 December 2026, in 25 days."),
        ({"date": "2026-03-01", "until": "2026-05-15"}, "From Sunday, 1 March 2026 to Friday, 15 May 2026 there are "
         "75 days (10 weeks and 5 days)."),
        ({"date": "2024-02-28", "days": 2}, "2 days after Wednesday, 28 February 2024 is Friday, 1 March 2024."),
        ({"zone": "UTC", "days": -21}, "21 days before Sunday, 29 November 2026 is Sunday, 8 November 2026."),
    ],
)  # fmt: skip
def test_answers(arguments: dict[str, Any], text: str) -> None:
    assert TOOLBOX.call("clock", arguments).text == text


@pytest.mark.parametrize(
    "arguments",
    [{"date": "2026-02-30"}, {"zone": "Nowhere"}, {"date": "tomorrow"}, {"days": 10**9}, {"zone": "../etc/passwd"},
     {"date": "9999-12-31", "days": 100000}],
)  # fmt: skip
def test_wrong_arguments_are_one_sentence(arguments: dict[str, Any]) -> None:
    found = TOOLBOX.call("clock", arguments)
    assert found.error and found.text.endswith(".")


def test_every_example_is_a_call() -> None:
    assert not [asked for asked, given in EXAMPLES if TOOLBOX.call("clock", given).error]
