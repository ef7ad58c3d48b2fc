"""An answer as it streams, with a line of live numbers below it on a terminal.

    answer = show_answer(model.stream("What is a ternary weight?"), live=True)

On a terminal lines break between words. The status line is in the row below the cursor: it is erased before each piece
of text and drawn again after it, with the cursor saved in between. When the text fills its row to the last column, the
terminal is about to wrap, and moving the cursor would cancel that; then the line waits for the next piece. Off a
terminal only the text is printed, as it is.
"""

from __future__ import annotations

import shutil
import sys
import time
from contextlib import nullcontext
from types import TracebackType

from edgellm.run.answer import Answer, AnswerStream
from edgellm.run.events import Call, Drafted, Event, Looped, Prefill, Returned, Text
from edgellm.run.loops import Loop
from edgellm.run.telemetry import Meter, Stats
from edgellm.ui.console import UNBOUNDED, is_terminal, note, printable
from edgellm.ui.cursor import ESC, Cursor
from edgellm.ui.tool_lines import show_call, show_returned
from edgellm.units import consumption, duration, rate, size

REFRESH_SECONDS = 0.1
# From so many tokens a pass on, the live line shows them.
LEAST_SHOWN = 1.05
ERASE_BELOW = f"{ESC}[J"
# Index and reverse index: make sure that there is a row below, without changing the column.
ROOM_BELOW = f"{ESC}D{ESC}M"
SAVE, RESTORE, DOWN = f"{ESC}7", f"{ESC}8", f"{ESC}D\r"
DIM, PLAIN = f"{ESC}[2m", f"{ESC}[0m"


class AnswerView:
    """Prints the text of one answer to stdout; with `live`, the numbers of its meter below."""

    def __init__(self, meter: Meter, *, live: bool = True) -> None:
        self._meter = meter
        terminal = is_terminal(sys.stdout)
        self._live = live and terminal
        self._cursor = Cursor(_columns() if terminal else UNBOUNDED)
        self._drawn = 0.0
        self._drawn_kind: type[Event] | None = None
        self._status = ""
        self._status_shown = False

    def __enter__(self) -> AnswerView:
        return self

    def show(self, event: Event) -> None:
        """Print the text of an event, and the numbers below."""
        if isinstance(event, Drafted):  # counted by the meter, and shown with the next text
            return
        text = event.text if isinstance(event, Text) else ""
        if sys.stdout.isatty():
            text = printable(text)
        if self._cursor.width < UNBOUNDED and _columns() != self._cursor.width:
            self._cursor.resize(_columns())
        erased, text = self._erased(), self._cursor.write(text)
        self._write(f"{erased}{text}{self._below(event)}" if self._live else text)

    def pause(self) -> None:
        """Move to a new line, so that something else can be printed."""
        self._write(self._erased() + self._cursor.new_line())

    def _erased(self) -> str:
        """The codes that erase the status line, if it is shown."""
        shown, self._status_shown = self._status_shown, False
        return ERASE_BELOW if shown else ""

    def _below(self, event: Event) -> str:
        """The codes that draw the status line in the row below."""
        now = time.monotonic()
        kind = type(event)
        # A new kind of event is drawn at once: a short answer takes no longer than a refresh.
        if now - self._drawn >= REFRESH_SECONDS or kind is not self._drawn_kind:
            self._status = self._status_text(event)
            self._drawn, self._drawn_kind = now, kind
        if self._cursor.column >= self._cursor.width:
            return ""
        self._status_shown = True
        return f"{ROOM_BELOW}{SAVE}{DOWN}{DIM}{self._status[: self._cursor.width - 1]}{PLAIN}{RESTORE}"

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
        if kind in (BrokenPipeError, SystemExit):  # the reader is gone
            return
        self.pause()


def show_answer(stream: AnswerStream, *, live: bool, retry: bool = False, quiet: bool = False) -> Answer:
    """Print an answer as it comes; returns the whole, which ends where a repetition began.

    On a terminal a repetition stays on the screen. Elsewhere an answer that may go on from before one (`retry`) is
    printed at its end. However the printing ends, the stream is closed. Calls of tools are lines on stderr, unless
    `quiet`.
    """
    delayed = retry and not is_terminal(sys.stdout)
    with stream, nullcontext() if delayed else AnswerView(stream.meter, live=live) as view:
        for event in stream.events():
            if isinstance(event, Call | Returned):
                if view:
                    view.pause()
                if not quiet:
                    show_call(event) if isinstance(event, Call) else show_returned(event)
                continue
            if view:
                view.show(event)
            if isinstance(event, Looped):
                if view:
                    view.pause()
                what = "going on from before the loop" if event.retrying else "stopped"
                note(f"[{what}: {_described(event.loop)}]")
    if delayed:
        sys.stdout.write(stream.text if stream.text.endswith("\n") else f"{stream.text}\n")
    return stream.answer


def _columns() -> int:
    return shutil.get_terminal_size().columns


def _described(loop: Loop) -> str:
    shown = printable(loop.shown).strip()
    what = f'"{shown}"' if shown else "a blank"
    return f"{what} came {loop.repetitions} times"


def status_line(
    stats: Stats, rate_now: float | None = None, repeated: int | None = None, *, saved: str = "", width: int = 0
) -> str:
    """Rate, time to first token, context and memory on one line of `width` cells, the terminal's by default.

    Args:
        repeated: how often the last phrase came; the line then says whether the answer is in a loop.
        saved: where the answer is saved.
    """
    context = f"{stats.context_used:,}/{stats.n_ctx:,}"
    parts = {
        "loop": f"repeats x{repeated}" if repeated and repeated > 1 else "",
        "rate": rate(stats.decode_rate if rate_now is None else rate_now),
        "drafts": f"{stats.tokens_per_pass:.1f} a pass" if stats.tokens_per_pass >= LEAST_SHOWN else "",
        "first": f"first token {duration(stats.ttft_seconds)}",
        "disk": f"{stats.restored_tokens:,} from disk" if stats.restored_tokens else "",
        "context": f"context {context}",
        "memory": f"memory {size(stats.resident_bytes)}, {size(stats.available_bytes)} available",
        "no loop": "no loop" if repeated == 1 else "",
        "saved": saved,
    }
    # What a narrow terminal does with less of: whether there is a loop and where it is saved stay in sight.
    shorter = (
        ("memory", f"memory {size(stats.resident_bytes)}"), ("disk", ""), ("first", ""), ("memory", ""),
        ("context", context), ("drafts", ""),
    )  # fmt: skip
    columns = width or _columns()
    for name, text in (("rate", parts["rate"]), *shorter):
        parts[name] = text
        line = "  ".join(filter(None, parts.values()))
        if len(line) < columns:
            break
    return line[: columns - 1]


def final_lines(stats: Stats, threads: str) -> str:
    """All numbers of an answer, for `--stats`, and with how many threads it was computed."""
    computed = stats.prompt_tokens - stats.reused_tokens
    disk = f", {stats.restored_tokens:,} of them from disk" if stats.restored_tokens else ""
    reused = f" ({stats.reused_tokens:,} more were in the cache{disk})" if stats.reused_tokens else ""
    dropped = f" ({stats.dropped_tokens:,} of them repetition)" if stats.dropped_tokens else ""
    drafts = ""
    if stats.drafted_tokens:
        share = f"{stats.accepted_tokens:,} of {stats.drafted_tokens:,} drafted tokens were right"
        drafts = f"drafts   {share}, {stats.tokens_per_pass:.2f} tokens a pass\n"
    return (
        f"prompt   {computed:,} tokens in {duration(stats.prefill_seconds)}, {rate(stats.prefill_rate)}{reused}\n"
        f"answer   {stats.completion_tokens:,} tokens{dropped} in {duration(stats.decode_seconds)}, "
        f"{rate(stats.decode_rate)}, ended by {stats.finish_reason}\n{drafts}"
        f"latency  first token {duration(stats.ttft_seconds)}, loading {duration(stats.load_seconds)}\n"
        f"memory   {size(stats.resident_bytes)} resident, {size(stats.peak_resident_bytes)} at most, "
        f"{size(stats.available_bytes)} available; context {stats.context_used:,}/{stats.n_ctx:,}\n"
        f"cpu      {consumption(stats.cores_used, stats.energy_joules, stats.completion_tokens)}; {threads}"
    )
