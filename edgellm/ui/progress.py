"""Progress of long operations: a bar on a terminal, one plain line every few seconds elsewhere.

    with progress() as report:
        build(settings, stack, report=report)

What is over within a second shows nothing.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.progress import BarColumn, DownloadColumn, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from edgellm.progress import Progress, Report, silent
from edgellm.ui.console import is_terminal, stderr
from edgellm.ui.units import size

PATIENCE_SECONDS = 1.0
LINE_SECONDS = 5.0


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Report]:
    """A report function for as long as the operation lasts; nothing shows before the first report."""
    if quiet:
        yield silent
    elif is_terminal(sys.stderr):
        bars = _Bars()
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield _Lines()


class _Amount(ProgressColumn):
    """Bytes, steps or per cent, whichever the stage counts."""

    def render(self, task: Task) -> Text:
        if task.total is None or not task.completed:
            return Text("")
        if task.fields["unit"] == "B":
            return DownloadColumn().render(task)
        return Text(
            f"{task.completed:.0f}%" if task.fields["unit"] == "%" else f"{task.completed:.0f}/{task.total:.0f}"
        )


class _Bars:
    """One bar at a time, the present stage's; a finished operation leaves nothing behind."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            _Amount(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}"),
        )
        self._bars = RichProgress(*columns, console=stderr(), transient=True)
        self._began = time.monotonic()
        self._task: TaskID | None = None
        self._stage = ""

    def close(self) -> None:
        """Remove the bar."""
        self._bars.stop()

    def __call__(self, event: Progress) -> None:
        if not self._bars.live.is_started:
            if time.monotonic() - self._began < PATIENCE_SECONDS:
                return
            self._bars.start()
        new_stage = self._task is None or event.stage != self._stage
        if new_stage or self._task is None:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(event.stage, total=event.total, unit=event.unit, detail=event.detail)
            self._stage = event.stage
        self._bars.update(
            self._task,
            completed=event.done,
            total=event.total,
            refresh=new_stage,
            unit=event.unit,
            detail=event.detail,
        )


class _Lines:
    """A line when a stage begins, and then at most one every few seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._began = time.monotonic()
        self._last = 0.0

    def __call__(self, event: Progress) -> None:
        now = time.monotonic()
        if now - self._began < PATIENCE_SECONDS or (event.stage == self._stage and now - self._last < LINE_SECONDS):
            return
        self._stage, self._last = event.stage, now
        amount = _amount(event, event.total) if event.total and event.done else ""
        detail = f"  {event.detail}" if event.detail else ""
        stderr().print(Text(f"{event.stage}{amount}{detail}"))


def _amount(event: Progress, total: int) -> str:
    if event.unit == "B":
        return f"  {size(event.done)} of {size(total)}"
    return f"  {event.done}%" if event.unit == "%" else f"  {event.done}/{total}"
