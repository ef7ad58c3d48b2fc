"""A process that is talked to, and never waited for in vain: it may die, hang, or print without end.

    with Child([sys.executable, "-m", "some.module"], name="the worker", env=os.environ, watch=watch) as child:
        child.send(b"hello\\n")
        child.line(limit=10)

It has a session of its own, so that Ctrl-C reaches only us; leaving the block ends it and whatever it started.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, cast

from edgellm.errors import EngineError
from edgellm.run.generation import never

TICK_SECONDS = 0.2
GRACE_SECONDS = 2.0
# More than anything that is said between two lines, or than any list of results.
MOST_OUTPUT = 4 << 20
STDERR_TAIL = 4000


def nothing() -> None:
    """Do nothing."""


class Stopped(Exception):
    """The user wants to stop."""


@dataclass(frozen=True, slots=True)
class Patience:
    """Asked several times a second while a child is waited for: `interrupted` may stop it, `tick` may show progress."""

    interrupted: Callable[[], bool] = never
    tick: Callable[[], None] = nothing


class Child:
    """One process with a pipe to its input and pipes from its output and errors."""

    def __init__(
        self, command: Sequence[str], *, name: str, env: Mapping[str, str], patience: Patience, cwd: Path | None = None
    ) -> None:
        self.name = name
        self._patience = patience
        self._output = b""
        self._errors = b""
        self._peak: int | None = None
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(env), cwd=cwd,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EngineError(f"{name} cannot be started", why=error.strerror or str(error)) from error
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._pipes = self._stdin, self._stdout, self._stderr = cast("tuple[IO[bytes], IO[bytes], IO[bytes]]", pipes)
        self._selector = selectors.DefaultSelector()
        for stream in (self._stdout, self._stderr):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)

    def send(self, line: bytes) -> None:
        """Write to its input; that it is dead shows when its answer is read."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(line)
            self._stdin.flush()

    def line(self, limit: float) -> bytes:
        """The next line of its output.

        Raises:
            EngineError: it died, gave no line for `limit` seconds, or too long a one.
            Stopped: the user wants to stop.
        """
        self._pump(limit, lambda: b"\n" in self._output)
        if b"\n" not in self._output:
            raise self._died()
        line, _, self._output = self._output.partition(b"\n")
        return line

    def everything(self, limit: float) -> bytes:
        """All its output until it ends by itself, with exit status 0; raises as `line` does."""
        self._stdin.close()
        self._pump(limit, lambda: False)
        if self._wait(GRACE_SECONDS) != 0:
            raise self._died()
        return self._output

    @property
    def peak_resident(self) -> int | None:
        """The most resident bytes that it had when it was looked at; None where the system does not tell."""
        return self._peak

    def close(self) -> None:
        """End it, and what it started, by force: it has nothing to lose."""
        if self._process.returncode is None:
            self._kill()
            self._process.wait()
        self._selector.close()
        for stream in self._pipes:
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _pump(self, limit: float, done: Callable[[], bool]) -> None:
        """Read what it writes until `done`, the end of its output, or an error."""
        end = time.monotonic() + limit
        while not done() and self._selector.get_map():
            if self._patience.interrupted():
                raise Stopped
            if time.monotonic() > end:
                why = f"it was given {limit:.0f} s" + self._last_words()
                raise EngineError(f"{self.name} gives no answer", why=why, seconds=round(limit))
            self._patience.tick()
            self._look()
            for key, _ in self._selector.select(TICK_SECONDS):
                self._read(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        data = os.read(key.fd, 1 << 16)
        if not data:
            self._selector.unregister(key.fileobj)
        elif key.fileobj is self._stderr:
            self._errors = (self._errors + data)[-STDERR_TAIL:]
        else:
            self._output += data
            if len(self._output) > MOST_OUTPUT:
                raise EngineError(f"{self.name} does not stop printing", why=f"{MOST_OUTPUT >> 20} MiB are too much")

    def _look(self) -> None:
        """Remember the highest peak of its memory; the system forgets it with the process."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            if found := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
                self._peak = max(self._peak or 0, int(found[1]) * 1024)

    def _wait(self, seconds: float) -> int:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._kill()
            return self._process.wait()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _died(self) -> EngineError:
        code = self._wait(GRACE_SECONDS)
        how = how_it_ended(code)
        return EngineError(f"{self.name} failed", why=how + self._last_words(), status=code)

    def _last_words(self) -> str:
        lines = [line for line in self._errors.decode(errors="replace").splitlines() if line.strip()]
        return f"; its last words: {lines[-1].strip()[:300]}" if lines else ""


def how_it_ended(code: int) -> str:
    """The exit status of a process in words."""
    if code >= 0:
        return f"it ended with exit status {code}"
    name = signal.Signals(-code).name if -code in {*signal.Signals} else str(-code)
    memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
    return f"it was ended by {name}{memory}"
