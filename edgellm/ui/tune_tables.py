"""What `edgellm tune` found, for people.

show_record("smollm2", record)
show_records([TunedModel("smollm2", "", record)])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.models.local.tune_records import TuneRecord
from edgellm.run.draft_costs import ROWS
from edgellm.ui.console import note, print_fields, print_line, print_table
from edgellm.units import three_digits


@dataclass(frozen=True, slots=True)
class TunedModel:
    """What is remembered of a model; `obstacle` says why it is not used here and now, empty if it is."""

    model: str
    obstacle: str
    record: TuneRecord


def show_record(found: TunedModel) -> None:
    """Print what was tried, what was chosen, and what it is worth."""
    record = found.record
    rows = [
        (
            each.goal + (f" after {each.depth}" if each.depth else ""),
            each.tried,
            three_digits(each.rate),
            f"{each.ratio:.2f}x",
            str(each.rounds or "a look"),
            "chosen" if each.chosen else "",
        )
        for each in record.trials
    ]
    print_table(("GOAL", "TRIED", "TOK/S", "RATIO", "ROUNDS", ""), rows, right=(2, 3, 4), spare=("ROUNDS",))
    print_line("")
    is_default = record.tuning == record.default
    print_fields(
        [
            ("model", found.model),
            ("fastest", f"{record.tuning}{': the default' if is_default else ''}"),
            *([] if is_default else [("default", str(record.default)), ("gain", _gains(record))]),
            *([("drafts", _costs(record))] if record.draft_costs else []),
            ("machine", record.place.machine),
            ("measured", f"{_day(record)} with engine {record.place.stamp}"),
        ]
    )
    _note_doubts([found])


def show_records(found: Sequence[TunedModel]) -> None:
    """Print a line for each model."""
    if not found:
        note("no model was tuned yet; edgellm tune MODEL")
        return
    rows = [
        (each.model, str(each.record.tuning), _gains(each.record), _day(each.record), each.obstacle or "used")
        for each in found
    ]
    print_table(("MODEL", "FASTEST", "GAIN", "MEASURED", "STATE"), rows, spare=("MEASURED", "GAIN"))
    _note_doubts(found)


def _note_doubts(found: Sequence[TunedModel]) -> None:
    for each in found:
        if each.obstacle:
            note(f"{each.model}: not used: {each.obstacle}; edgellm tune {each.model} measures again")
        elif each.record.doubt:
            note(f"{each.model}: {each.record.doubt}; repeat it on a quiet machine: edgellm tune {each.model}")


def _gains(record: TuneRecord) -> str:
    return f"decode {record.decode_gain:.2f}x, prefill {record.prefill_gain:.2f}x"


def _costs(record: TuneRecord) -> str:
    costs = ", ".join(f"{rows} {cost:.1f}" for rows, cost in zip(ROWS, record.draft_costs[0], strict=False))
    return f"passes over {costs} times one token"


def _day(record: TuneRecord) -> str:
    return record.date[:10]
