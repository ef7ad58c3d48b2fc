"""An answer as it streams, with a line of live numbers below it on a terminal.

    with AnswerView(meter) as view:
        for event in meter.watch(events): view.show(event)

The text itself is printed raw, so it scrolls, wraps and stays as usual. The status line lives in the row below
the cursor: it is erased before each piece of text and drawn again after it, with the cursor saved in between. While
the text fills its row to the last column, the terminal is about to wrap, and moving the cursor would make it forget
that: then the line waits for the next piece. Off a terminal there is only the text.
"""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

from rich.cells import cell_len

from edgellm.run.generation import Event, Prefill, Text
from edgellm.run.telemetry import Meter, Stats
from edgellm.ui.console import is_terminal, printable
from edgellm.ui.units import consumption, duration, rate, size

REFRESH_SECONDS = 0.1
TAB = 8
ESC = "\x1b"
ERASE_BELOW = f"{ESC}[J"
# Index and reverse index: make sure that a row below exists, without changing the column.
ROOM_BELOW = f"{ESC}D{ESC}M"
SAVE, RESTORE, DOWN = f"{ESC}7", f"{ESC}8", f"{ESC}D\r"
DIM, PLAIN = f"{ESC}[2m", f"{ESC}[0m"


class AnswerView:
    """Prints the text of one answer to stdout; with `live`, the numbers of its meter below."""

    def __init__(self, meter: Meter, *, live: bool = True) -> None:
        self._meter = meter
        self._live = live and is_terminal(sys.stdout)
        self._drawn = 0.0
        self._told: type[Event] | None = None
        self._status = ""
        self._status_shown = False
        self._column = 0
        self._line = ""  # what the cursor's line holds, for when the terminal changes its width
        self._width = 0

    def __enter__(self) -> AnswerView:
        return self

    def show(self, event: Event) -> None:
        """Print what is new."""
        text = event.text if isinstance(event, Text) else ""
        if sys.stdout.isatty():
            text = printable(text)
        width = shutil.get_terminal_size().columns
        if width != self._width:
            self._width, self._column = width, column_after(self._line, 0, width)
        self._column = column_after(text, self._column, width)
        self._line = (self._line + text).rpartition("\n")[2]
        self._write(f"{self._erased()}{text}{self._below(event, width)}" if self._live else text)

    def pause(self) -> None:
        """Leave the line, so that something else can be said."""
        self._write(self._erased() + ("\n" if self._column else ""))
        self._column, self._line = 0, ""

    def _erased(self) -> str:
        """What removes the status line, if there is one."""
        shown, self._status_shown = self._status_shown, False
        return ERASE_BELOW if shown else ""

    def _below(self, event: Event, width: int) -> str:
        """What draws the status line in the row below."""
        now = time.monotonic()
        kind = type(event)
        # What is done now is told at once: a short answer takes no longer than a refresh.
        if now - self._drawn >= REFRESH_SECONDS or kind is not self._told:
            self._status = self._status_text(event)
            self._drawn, self._told = now, kind
        if self._column >= width:
            return ""
        self._status_shown = True
        return f"{ROOM_BELOW}{SAVE}{DOWN}{DIM}{self._status[: width - 1]}{PLAIN}{RESTORE}"

    def _write(self, output: str) -> None:
        if output:
            sys.stdout.write(output)
            sys.stdout.flush()

    def _status_text(self, event: Event) -> str:
        prefill = self._meter.prefill
        if isinstance(event, Prefill) and prefill.done < prefill.total:
            return f"reading the prompt  {prefill.done:,}/{prefill.total:,} tokens"
        return status_line(self._meter.stats(), self._meter.rate_now, self._meter.repeated)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind in (BrokenPipeError, SystemExit):  # nobody reads any more
            return
        self.pause()


def column_after(text: str, column: int, width: int) -> int:
    """The column of the cursor after a text; `width` itself means: full, and about to wrap."""
    for character in text:
        cells = TAB - column % TAB if character == "\t" else cell_len(character)
        if character == "\n":
            column = 0
        elif column + cells <= width:
            column += cells
        else:
            # A tab stops at the edge; anything else goes to the next row.
            column = width if character == "\t" else cells
    return column


def status_line(stats: Stats, rate_now: float | None = None, repeated: int | None = None) -> str:
    """Rate, time to first token, context and memory on one line, and while it answers whether it repeats itself."""
    parts = [
        rate(stats.decode_rate if rate_now is None else rate_now),
        f"first token {duration(stats.ttft_seconds)}",
        f"context {stats.context_used:,}/{stats.n_ctx:,}",
        f"memory {size(stats.resident_bytes)}, {size(stats.available_bytes)} available",
    ]
    if repeated is not None:
        # In front when it matters: a narrow terminal cuts the end off.
        parts = [f"repeats x{repeated}", *parts] if repeated > 1 else [*parts, "no loop"]
    return "  ".join(parts)


def final_lines(stats: Stats) -> str:
    """All numbers of an answer, for `--stats`."""
    computed = stats.prompt_tokens - stats.reused_tokens
    reused = f" ({stats.reused_tokens:,} more were in the cache)" if stats.reused_tokens else ""
    dropped = f" ({stats.dropped_tokens:,} of them repetition)" if stats.dropped_tokens else ""
    return (
        f"prompt   {computed:,} tokens in {duration(stats.prefill_seconds)}, {rate(stats.prefill_rate)}{reused}\n"
        f"answer   {stats.completion_tokens:,} tokens{dropped} in {duration(stats.decode_seconds)}, "
        f"{rate(stats.decode_rate)}, ended by {stats.finish_reason}\n"
        f"latency  first token {duration(stats.ttft_seconds)}, loading {duration(stats.load_seconds)}\n"
        f"memory   {size(stats.resident_bytes)} resident, {size(stats.peak_resident_bytes)} at most, "
        f"{size(stats.available_bytes)} available; context {stats.context_used:,}/{stats.n_ctx:,}\n"
        f"cpu      {consumption(stats.cores_used, stats.energy_joules, stats.completion_tokens)}"
    )
