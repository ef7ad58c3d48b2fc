"""Calls of tools as lines on stderr, their results folded, and the sources below an answer.

show_call(Call(...))          # web_search(query=bridges) …
show_returned(Returned(...))  #   [1] Bridges of the world: ... (+7 lines)  0.8 s
print_sources(calls)
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from edgellm.run.events import Call, Returned
from edgellm.tools.record import CallRecord, call_line
from edgellm.ui.console import note, printable
from edgellm.units import duration

# Of a result on its line, in characters.
MOST_SHOWN = 100


def show_call(call: Call) -> None:
    """Say that a tool is called."""
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = {"": call.arguments}
    note(printable(call_line(call.name, arguments)))


def show_returned(returned: Returned) -> None:
    """Show the beginning of a result, and how long it took."""
    lines = [line for line in returned.text.splitlines() if line.strip()]
    first = " ".join(lines[0].split()) if lines else ""
    cut = first if len(first) <= MOST_SHOWN else f"{first[: MOST_SHOWN - 1]}…"
    more = f"  (+{len(lines) - 1} lines)" if len(lines) > 1 else ""
    notes = f"  [{'; '.join(returned.notes)}]" if returned.notes else ""
    note(printable(f"  {cut}{more}  {duration(returned.seconds)}{notes}"))


def print_calls(calls: Sequence[CallRecord]) -> None:
    """Show calls with their whole results."""
    for each in calls:
        note(printable(f"{each.line}  {duration(each.seconds)}"))
        for line in each.text.splitlines():
            note(printable(f"  {line}"))
        for source in each.sources:
            note(printable(f"  from {source.title}  {source.place}"))


def print_sources(calls: Sequence[CallRecord]) -> None:
    """Show where the results of the calls come from, each place once."""
    places = {each.place: each.title for call in calls if not call.error for each in call.sources}
    for number, (place, title) in enumerate(places.items(), 1):
        note(printable(f"[{number}] {' '.join(title.split())}  {place}"))
