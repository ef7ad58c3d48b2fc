"""The tool `clock`: the date and time now, here or elsewhere, weekdays, differences and sums of dates.

clock().call({"date": "2026-12-24", "days": 10})  ->  ToolResult("10 days after ...")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from edgellm.errors import BadRequest
from edgellm.tools.tool import Risk, Tool, ToolResult

_DAY = {"type": "string", "pattern": "^(today|[0-9]{4}-[0-9]{2}-[0-9]{2})$"}
PARAMETERS = {
    "type": "object",
    "properties": {
        "zone": {"type": "string", "maxLength": 40, "description": "a city or time zone, for example Asia/Tokyo"},
        "date": {**_DAY, "description": "a day as 2026-12-24, or today"},
        "until": {**_DAY, "description": "a second day, for the days between"},
        "days": {"type": "integer", "minimum": -100000, "maximum": 100000, "description": "days to add to date"},
    },
    "additionalProperties": False,
}
EXAMPLES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("What time is it?", {}),
    ("What is today's date?", {}),
    ("What time is it in Tokyo?", {"zone": "Tokyo"}),
    ("What weekday is 24 December 2026?", {"date": "2026-12-24"}),
    ("How many days are there from 1 March 2026 to 15 May 2026?", {"date": "2026-03-01", "until": "2026-05-15"}),
    ("How many days are left until 31 December 2026?", {"date": "today", "until": "2026-12-31"}),
    ("What day of the week was 20 July 1969?", {"date": "1969-07-20"}),
    ("How many days have passed since 5 May 2025?", {"date": "2025-05-05", "until": "today"}),
    ("What date will it be in 60 days?", {"date": "today", "days": 60}),
    ("What date was it 3 weeks ago?", {"date": "today", "days": -21}),
    ("What date is 30 days after 10 January 2026?", {"date": "2026-01-10", "days": 30}),
)
SIGNS = (
    r"(?i:\bwhat(?:'s| is)? the time\b|\bwhat time is it\b|\btoday's date\b|\bwhat (?:day|date) is (?:it|today)\b"
    r"|\b(?:what|which) (?:week)?day (?:is|was|will)\b|\bwhat date is\b|\bhow many days\b.*\b(?:until|from|between)\b"
    r"|\bdays (?:after|before) \d)|几点|今天(?:是)?(?:几号|星期几|什么日子)|多少天"
)
MOST_ZONE = 40


def clock(now: Callable[[], datetime] = lambda: datetime.now(timezone.utc)) -> Tool:
    """The tool; `now` returns the time with its zone."""

    def call(arguments: Mapping[str, Any]) -> ToolResult:
        try:
            return _answer(arguments, now().astimezone(_zone(str(arguments.get("zone") or ""))))
        except (ValueError, OverflowError) as error:
            raise BadRequest("there is no such day", why=str(error)) from error

    description = (
        "Tells the date and time, here or in a city; weekdays, days between two dates, and dates some days later."
    )
    return Tool("clock", description, PARAMETERS, Risk.NOTHING, call, examples=EXAMPLES, signs=SIGNS)


def _answer(arguments: Mapping[str, Any], now: datetime) -> ToolResult:
    if not arguments.get("date") and not arguments.get("until"):
        where = f" in {arguments['zone']}" if arguments.get("zone") else ""
        if days := arguments.get("days"):
            return _after(now.date(), days)
        text = f"It is {now:%H:%M}{where}, on {_day(now.date())} ({now:%Y-%m-%d}, UTC{now:%z})."
        return ToolResult(text, values=(f"{now:%H:%M}", *_spellings(now.date()), f"{now:%Y}"))
    first = _read(str(arguments.get("date") or "today"), now.date())
    if until := arguments.get("until"):
        return _between(first, _read(str(until), now.date()))
    if days := arguments.get("days"):
        return _after(first, days)
    away = (first - now.date()).days
    when = "today" if not away else f"in {away:,} days" if away > 0 else f"{-away:,} days ago"
    text = f"{first.isoformat()} is a {first:%A}: {_day(first)}, {when}."
    return ToolResult(text, values=(f"{first:%A}", when))


def _read(text: str, today: date) -> date:
    return today if text == "today" else date.fromisoformat(text)


def _between(first: date, last: date) -> ToolResult:
    days = (last - first).days
    weeks, rest = divmod(abs(days), 7)
    also = f" ({weeks} weeks and {rest} days)" if weeks else ""
    text = f"From {_day(first)} to {_day(last)} there are {days:,} days{also}."
    return ToolResult(text, values=tuple(dict.fromkeys((f"{days:,}", str(days)))))


def _after(first: date, days: int) -> ToolResult:
    word = "after" if days > 0 else "before"
    day = first + timedelta(days=days)
    return ToolResult(f"{abs(days):,} days {word} {_day(first)} is {_day(day)}.", values=_spellings(day))


def _spellings(day: date) -> tuple[str, ...]:
    """How an answer may write a day."""
    return f"{day.day} {day:%B} {day.year}", f"{day:%B} {day.day}, {day.year}", day.isoformat()


def _day(day: date) -> str:
    return f"{day:%A}, {day.day} {day:%B} {day.year}"


def _zone(name: str) -> ZoneInfo | None:
    """The zone of that name or city; None for the one of this machine."""
    if not name.strip():
        return None
    wanted = name.strip().replace(" ", "_")[:MOST_ZONE].casefold()
    for zone in sorted(available_timezones()):
        if wanted in (zone.casefold(), zone.rpartition("/")[2].casefold()):
            try:
                return ZoneInfo(zone)
            except (ZoneInfoNotFoundError, OSError):
                break
    raise BadRequest(f"there is no time zone {name[:MOST_ZONE]!r}", why="a city or a name like Asia/Tokyo is needed")
