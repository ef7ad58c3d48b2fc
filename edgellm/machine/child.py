"""Child processes: how they start, exchange lines of JSON with us, time out, die, and end together with us.

    with Child(module("edgellm.measure.bench.worker"), name="the worker") as child:
        child.send({"load": {"path": "model.gguf"}})
        child.receive(limit=60)["seconds"]

`Child` blocks its thread; `async_child` has the same for an event loop. Every child has a session of its own, so that
Ctrl-C reaches only us. A module of ours reads its requests with `requests`, answers through `open_answers`, and ends
with its input, hence with us; any other program can be `tethered`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from edgellm.errors import EdgellmError, EngineError
from edgellm.machine import launch
from edgellm.machine.process import usage
from edgellm.settings import PACKAGE

TICK_SECONDS = 0.2
# The first one comes sooner: a short program is over before the second.
FIRST_TICK_SECONDS = 0.01
GRACE_SECONDS = 2.0
# More than any child prints between two lines, or as a list of results.
MOST_OUTPUT = 4 << 20
STDERR_TAIL = 4000
Message = dict[str, Any]


class ChildFailed(EngineError):
    """A child process cannot start, died, gave no answer in time, or gave one that makes no sense."""


class WaitInterrupted(Exception):
    """The user wants to stop."""


@dataclass(frozen=True, slots=True)
class Program:
    """A command with its environment and working directory; None: ours."""

    command: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: Path | None = None


def module(name: str, *arguments: str, env: Mapping[str, str] | None = None) -> Program:
    """A module of edgellm, run by this interpreter; paths among its arguments must be absolute."""
    env = dict(os.environ if env is None else env)
    # `-m` puts the working directory first in the module path: this one holds nothing but packages.
    return Program([sys.executable, "-m", name, *arguments], env, PACKAGE.parent)


def tethered(command: Sequence[str], env: Mapping[str, str] | None = None) -> Program:
    """A program that reads no input and still ends when we end; on Linux only, even when we are killed."""
    return Program([sys.executable, "-I", launch.__file__, str(os.getpid()), *command], env)


@dataclass(frozen=True, slots=True)
class WaitHooks:
    """Called several times a second while we wait for a child: `interrupted` may stop it, `tick` may show progress."""

    interrupted: Callable[[], bool] = lambda: False
    tick: Callable[[], None] = lambda: None


NO_HOOKS = WaitHooks()


class Child:
    """A process with a pipe to its input and pipes from its output and errors; leaving the block kills it."""

    def __init__(self, program: Program, *, name: str, hooks: WaitHooks = NO_HOOKS) -> None:
        """Start it; `name` is how errors call it. ChildFailed if that is impossible."""
        self.name = name
        self._hooks = hooks
        self._output = b""
        self._errors = b""
        self._peak: int | None = None
        self._next_tick, self._pause = 0.0, FIRST_TICK_SECONDS
        try:
            self._process = subprocess.Popen(
                program.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=program.env, cwd=program.cwd, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise cannot_start(name, error) from error
        pipes = (self._process.stdin, self._process.stdout, self._process.stderr)
        self._pipes = self._stdin, self._stdout, self._stderr = cast("tuple[IO[bytes], IO[bytes], IO[bytes]]", pipes)
        self._selector = selectors.DefaultSelector()
        for stream in (self._stdout, self._stderr):
            os.set_blocking(stream.fileno(), False)
            self._selector.register(stream, selectors.EVENT_READ)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def peak_resident(self) -> int | None:
        """The most resident bytes it had, sampled while we waited for it; None where the system does not report it."""
        return self._peak

    def send(self, message: Message) -> None:
        """Write one request; if the child is dead, reading its answer reports that."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(frame(message))
            self._stdin.flush()

    def receive(self, limit: float = math.inf) -> Message:
        """The next line of its output as an object.

        Raises:
            ChildFailed: it died, sent nothing for `limit` seconds, too long a line, or one that is no object.
            EdgellmError: the error that the child reports.
            WaitInterrupted: the user wants to stop.
        """
        message = parse(self.line(limit), self.name)
        if "error" in message:
            raise as_raised(message["error"])
        return message

    def poll(self, seconds: float) -> Message | None:
        """As `receive`, if a line comes within so many seconds; None otherwise."""
        end = time.monotonic() + seconds
        while b"\n" not in self._output:
            if self._is_at_end:
                raise self._died()
            left = end - time.monotonic()
            if not self._read_ready(max(0.0, left)) and left <= 0:
                return None
        return self.receive()

    def line(self, limit: float = math.inf) -> bytes:
        """The next line of its output; raises as `receive` does."""
        self._pump(limit, lambda: b"\n" in self._output)
        line, _, self._output = self._output.partition(b"\n")
        return line

    def read(self, size: int, limit: float = math.inf) -> bytes:
        """The next `size` bytes of its output; raises as `receive` does."""
        self._pump(limit, lambda: len(self._output) >= size)
        data, self._output = self._output[:size], self._output[size:]
        return data

    def everything(self, limit: float = math.inf) -> bytes:
        """All its output until it ends by itself, with exit status 0; raises as `receive` does."""
        self._stdin.close()
        self._pump(limit, lambda: self._is_at_end)
        if self._wait() != 0:
            raise self._died()
        return self._output

    def finish(self, limit: float = math.inf) -> int:
        """Close its input, read until it ends or `limit` seconds are over, and return its exit status.

        What it printed is in `output` and `errors`, also after an error.

        Raises:
            ChildFailed: it takes too long, or prints too much.
            WaitInterrupted: the user wants to stop.
        """
        self._stdin.close()
        self._pump(limit, lambda: self._is_at_end)
        code = self._wait()
        while self._selector.get_map() and self._read_ready(0):
            pass
        return code

    @property
    def output(self) -> bytes:
        """What it printed and nobody has taken."""
        return self._output

    @property
    def errors(self) -> bytes:
        """The end of its errors."""
        return self._errors

    def close(self) -> None:
        """Kill it and what it started: it has nothing to lose."""
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

    @property
    def _is_at_end(self) -> bool:
        return self._stdout not in self._selector.get_map()

    def _pump(self, limit: float, done: Callable[[], bool]) -> None:
        """Read what it prints until `done`."""
        end = time.monotonic() + limit
        while not done():
            if self._is_at_end:
                raise self._died()
            if self._hooks.interrupted():
                raise WaitInterrupted
            now = time.monotonic()
            if now > end:
                why = f"it was given {limit:.0f} s" + self._last_words()
                raise ChildFailed(f"{self.name} gives no answer", why=why, seconds=round(limit))
            if now >= self._next_tick:
                self._next_tick = now + self._pause
                self._pause = min(2 * self._pause, TICK_SECONDS)
                self._hooks.tick()
                self._sample_memory()
            self._read_ready(self._pause)

    def _read_ready(self, seconds: float) -> bool:
        """Read what is there, or comes within that time; False if nothing did."""
        ready = self._selector.select(seconds)
        for key, _ in ready:
            data = os.read(key.fd, 1 << 16)
            if not data:
                self._selector.unregister(key.fileobj)
            elif key.fileobj is self._stderr:
                self._errors = (self._errors + data)[-STDERR_TAIL:]
            else:
                self._output += data
        if len(self._output) > MOST_OUTPUT:
            raise ChildFailed(f"{self.name} does not stop printing", why=f"{MOST_OUTPUT >> 20} MiB are too much")
        return bool(ready)

    def _sample_memory(self) -> None:
        """Remember the highest peak of its memory; the system forgets it with the process."""
        with contextlib.suppress(ProcessLookupError):
            self._peak = max(self._peak or 0, usage(self.pid).peak_resident_bytes)

    def _wait(self) -> int:
        try:
            return self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
            return self._process.wait()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def _died(self) -> ChildFailed:
        code = self._wait()
        while self._selector.get_map() and self._read_ready(0):
            pass
        return ChildFailed(f"{self.name} failed", why=how_it_ended(code) + self._last_words(), status=code)

    def _last_words(self) -> str:
        lines = [line for line in self._errors.decode(errors="replace").splitlines() if line.strip()]
        return f"; its last words: {lines[-1].strip()[:300]}" if lines else ""


def requests() -> Iterator[Message]:
    """In the child: its requests, until the parent closes the pipe."""
    return map(json.loads, sys.stdin.buffer)


def open_answers() -> Callable[..., None]:
    """In the child: `answer(message, data=b"")` on what is standard output now; other output goes to standard error."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(message: Message, data: bytes = b"") -> None:
        output.write(frame(message) + data)
        output.flush()

    return answer


def frame(message: Message) -> bytes:
    """A message as a line."""
    return json.dumps(message, allow_nan=False).encode() + b"\n"


def parse(line: bytes, name: str) -> Message:
    """The message in a line from the child `name`; ChildFailed if there is none."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise ChildFailed(f"{name} gave no sensible answer", why=repr(line[:100]))
    return message


def describe(error: EdgellmError) -> Message:
    """An error as a message; `as_raised` makes it one again."""
    return {"code": error.code, "message": error.what, "why": error.why, "try": error.hint, "facts": error.facts}


def as_raised(described: Message) -> EdgellmError:
    """The error that a child described, of the class it had there."""
    kinds: list[type[EdgellmError]] = [EdgellmError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    kind = next((kind for kind in kinds if kind.code == described["code"]), EngineError)
    return kind(described["message"], why=described["why"], hint=described["try"], **described["facts"])


def how_it_ended(code: int) -> str:
    """The exit status of a process in words."""
    if code >= 0:
        return f"it ended with exit status {code}"
    name = signal.Signals(-code).name if -code in {*signal.Signals} else str(-code)
    memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
    return f"it was ended by {name}{memory}"


def cannot_start(name: str, error: OSError) -> ChildFailed:
    """The error of a program that the system does not start."""
    return ChildFailed(f"{name} cannot be started", why=error.strerror or str(error))
