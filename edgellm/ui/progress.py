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
from contextlib import ExitStack
from datetime import timedelta

from rich.cells import cell_len
from rich.console import Console
from rich.progress import DownloadColumn, ProgressColumn, Task, TaskID
from rich.progress import Progress as RichProgress
from rich.text import Text

from edgellm.progress import Progress, Report, silent
from edgellm.ui.console import is_terminal, stderr, with_bar
from edgellm.units import size

PATIENCE_SECONDS = 1.0
LINE_SECONDS = 5.0
LEAST_BAR, MOST_BAR = 6, 40


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Report]:
    """A report function while the operation lasts; nothing is shown before the first report."""
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


def lasting(*, quiet: bool = False) -> Report:
    """A report function for what outlives one operation, an open collection for example.

    The bar of a stage goes when the stage is done, so that an answer may follow.
    """
    stages = ExitStack()
    current: list[Report] = []

    def report(event: Progress) -> None:
        if not current:
            current.append(stages.enter_context(progress(quiet=quiet)))
        current[0](event)
        if event.done == event.total:
            stages.close()
            current.clear()

    return report


class _Line(ProgressColumn):
    """The whole line of a stage, as it fits into the terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Text:
        done = None if task.total is None else task.completed / max(1, task.total)
        clock = f"{timedelta(seconds=int(task.elapsed or 0))}"
        return bar_line(task.description, done, _shown(task), clock, task.fields["detail"], self._console.width - 1)


def _shown(task: Task) -> str:
    """Bytes, steps or per cent, whichever the stage counts."""
    if task.total is None or not task.completed:
        return ""
    if task.fields["unit"] == "B":
        return DownloadColumn().render(task).plain
    return f"{task.completed:.0f}%" if task.fields["unit"] == "%" else f"{task.completed:.0f}/{task.total:.0f}"


def bar_line(stage: str, done: float | None, amount: str, elapsed: str, detail: str, width: int) -> Text:
    """A stage, a bar for `done` from 0 to 1, and figures, in so many cells.

    When they do not all fit, the bar becomes shorter, the time goes, then the bar, and the stage's name is cut in its
    middle; the figures stay.
    """
    figures = "  ".join(filter(None, (amount, detail)))
    room = width - cell_len(figures) - 2
    if cell_len(stage) > room:
        half = max(3, room // 2 - 1)
        stage = f"{stage[:half]}…{stage[-half:]}"
    spare = room - cell_len(stage) - 2
    if elapsed and spare >= LEAST_BAR + len(elapsed) + 2:
        figures, spare = "  ".join(filter(None, (amount, elapsed, detail))), spare - len(elapsed) - 2
    line = Text(f"{stage}  ", no_wrap=True)
    if done is not None and spare >= LEAST_BAR:
        cells = min(spare, MOST_BAR)
        full = min(cells, max(0, round(done * cells)))
        line.append("━" * full, style="bar.complete").append("━" * (cells - full), style="bar.back").append("  ")
    line.append(figures)
    line.truncate(width, overflow="ellipsis")
    return line


class _Bars:
    """One bar at a time, the present stage's; a finished operation leaves nothing behind."""

    def __init__(self) -> None:
        self._console = stderr()
        self._bars = RichProgress(_Line(self._console), console=self._console, transient=True)
        self._shown = contextlib.ExitStack()
        self._is_closed = False
        self._began = time.monotonic()
        self._task: TaskID | None = None
        self._stage = ""

    def close(self) -> None:
        """Remove the bar; what is reported later is not shown."""
        self._is_closed = True
        self._shown.close()

    def __call__(self, event: Progress) -> None:
        if self._is_closed:
            return
        if not self._bars.live.is_started:
            if time.monotonic() - self._began < PATIENCE_SECONDS:
                return
            self._shown.enter_context(with_bar(self._console))
            self._shown.enter_context(self._bars)
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
