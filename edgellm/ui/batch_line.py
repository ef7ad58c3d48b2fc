"""The live line of a batch under way, for the verbs that run one.

with progress() as report:
    tally = watch_batch(((tally, "") for tally in tallies), report, quiet=False)
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from edgellm.batch.tally import Tally
from edgellm.machine import memory
from edgellm.progress import Progress, Report
from edgellm.ui.console import note
from edgellm.units import clock, rate, size

REFRESH_SECONDS = 0.1


def watch_batch(steps: Iterable[tuple[Tally, str]], report: Report, *, quiet: bool) -> Tally:
    """Run a batch with a line of live numbers, a text of the caller's before them; returns the last tally."""
    shown, tally = 0.0, Tally(0, 0)
    try:
        for tally, text in steps:
            if tally.resumed and tally.seconds and not shown and not quiet:
                left = tally.n_rows - tally.resumed
                note(f"resuming: {tally.resumed:,} of {tally.n_rows:,} done, {left:,} to go")
            if (now := time.monotonic()) - shown < REFRESH_SECONDS:
                continue
            shown = now
            report(Progress("answering", tally.done, tally.n_rows, "rows", _figures(tally, text)))
    except (KeyboardInterrupt, SystemExit):
        note(f"stopped: {tally.done:,} of {tally.n_rows:,} rows are done; the same command goes on from there")
        raise
    return tally


def _figures(tally: Tally, text: str) -> str:
    if tally.n_nodes is None:
        places = f"{tally.busy}/{tally.n_slots} slots"
    else:
        places = f"{tally.n_nodes} node{'s' * (tally.n_nodes != 1)}, {tally.n_slots} slots"
    parts = [text, rate(tally.rate), places]
    if tally.server is None and tally.n_nodes is None:  # else it is not this process that computes
        parts.append(size(memory.resident()))
    if tally.seconds_left is not None:
        parts.append(f"{clock(tally.seconds_left)} left")
    if tally.failed:
        parts.append(f"errors {tally.failed:,}")
    return "  ".join(filter(None, parts))
