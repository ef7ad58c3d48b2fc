"""Child processes of an event loop: how they start, exchange lines with us, and end.

child = await AsyncChild.start(module("edgellm.serve.scoring.worker"), name="the scorer", errors=log)
async for line in child.lines(): ...
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from typing import IO

from edgellm.machine.child import GRACE_SECONDS, Message, Program, cannot_start, frame


class AsyncChild:
    """A process for an event loop; its `lines` must be read all the time, because a full pipe would stop it."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self.name = name
        self._process = process

    @classmethod
    async def start(
        cls, program: Program, *, name: str, errors: IO[bytes] | int, interactive: bool = False, most: int = 1 << 16
    ) -> AsyncChild:
        """Start it: `errors` is where its errors go, `most` the longest line in bytes.

        An `interactive` one is sent messages and ends with its input, another has no input and ends by SIGTERM.

        Raises:
            ChildFailed: it cannot be started.
        """
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *program.command, stdin=pipe if interactive else nothing, stdout=pipe, stderr=errors,
                env=program.env, cwd=program.cwd, start_new_session=True, limit=most,
            )  # fmt: skip
        except OSError as error:
            raise cannot_start(name, error) from error
        return cls(process, name)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait until it ends; its exit status."""
        return await self._process.wait()

    def send(self, message: Message) -> None:
        """Write one request, soon; if the child is dead, the end of its `lines` reports that."""
        if self._process.stdin is not None:
            self._process.stdin.write(frame(message))

    async def lines(self) -> AsyncIterator[bytes]:
        """Its output line by line until it ends; one that is too long comes in pieces without a newline."""
        async for line in _lines(self._process.stdout):
            yield line

    async def error_lines(self) -> AsyncIterator[bytes]:
        """The lines of its errors, if they go to a pipe; as `lines`."""
        async for line in _lines(self._process.stderr):
            yield line

    async def drained(self) -> None:
        """Return when it has read what it was sent."""
        if self._process.stdin is not None:
            await self._process.stdin.drain()

    def end_group(self, number: signal.Signals) -> None:
        """Send a signal to it and to what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill it; `wait` and the end of its `lines` tell when it is gone."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def release(self) -> None:
        """Close its pipes: a process that it left behind may still hold the other ends. Call it when it is over."""
        transport = getattr(self._process, "_transport", None)  # nothing public closes them
        if transport is not None:
            transport.close()

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """End it, by force after `grace` seconds."""
        if grace and self._process.stdin is not None:
            self._process.stdin.close()
        elif grace and self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), grace)
        except asyncio.TimeoutError:
            self.kill()
            await self._process.wait()


async def _lines(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    while stream is not None:
        try:
            yield await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                yield error.partial
            return
        except asyncio.LimitOverrunError as error:
            yield await stream.readexactly(error.consumed)
