"""A server that is a program: started, spoken to over its standard input and output, and ended with all it started.

    async with spoken(config, log, environ) as program:
        read, write = program.streams       # those of the SDK's ClientSession

The SDK has a transport of its own for this. Ours differs in what it bounds: a line, what comes without having been
asked for, and the log of its errors. A line that is no message goes to that log: many servers print a greeting.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from edgellm.machine.async_child import AsyncChild
from edgellm.machine.child import how_it_ended, tethered
from edgellm.tools.mcp.config import ServerConfig
from edgellm.tools.mcp.faults import McpFailed
from edgellm.tools.mcp.log import ServerLog

# One message: pictures come as text, and files whole.
MOST_LINE = 8 << 20
# Since something was sent last.
MOST_BYTES = 64 << 20
MOST_LINES = 20_000
# What it may take to end once its input is closed.
END_SECONDS = 2.0
# The fault of a server that we ended ourselves.
STOPPED = "it was stopped"


class McpProgram:
    """A running server; `fault` says why it is over, empty while it works."""

    def __init__(self, child: AsyncChild, log: ServerLog) -> None:
        self.fault = ""
        self.pid = child.pid
        self._child, self._log = child, log
        self._n_bytes = self._n_lines = 0
        to_us: tuple[
            MemoryObjectSendStream[SessionMessage | Exception], MemoryObjectReceiveStream[SessionMessage | Exception]
        ]
        to_it: tuple[MemoryObjectSendStream[SessionMessage], MemoryObjectReceiveStream[SessionMessage]]
        to_us, to_it = anyio.create_memory_object_stream(0), anyio.create_memory_object_stream(0)
        self._arriving, received = to_us
        sent, self._leaving = to_it
        self.streams = received, sent

    async def read(self) -> None:
        """Pass its messages on until it ends, or floods us."""
        async with self._arriving:
            async for line in self._child.lines():
                self._n_bytes += len(line)
                self._n_lines += 1
                if not line.endswith(b"\n") and len(line) >= MOST_LINE:
                    self.fault = f"it sent a message of more than {MOST_LINE >> 20} MiB"
                elif self._n_bytes > MOST_BYTES or self._n_lines > MOST_LINES:
                    self.fault = "it does not stop printing"
                if self.fault:
                    self._child.end_group(signal.SIGKILL)
                    return
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    self._log.add(line)
                    continue
                with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    await self._arriving.send(SessionMessage(message))
            self.fault = how_it_ended(await self._child.wait())

    async def write(self) -> None:
        """Send it what we have to say."""
        async with self._leaving:
            async for each in self._leaving:
                self._n_bytes = self._n_lines = 0
                self._child.send(each.message.model_dump(mode="json", by_alias=True, exclude_unset=True))
                with contextlib.suppress(OSError):  # its end is reported by `read`
                    await self._child.drained()

    async def keep_errors(self) -> None:
        """Log its errors until it ends."""
        async for line in self._child.error_lines():
            self._log.add(line)

    async def end(self) -> None:
        """End it in good order, then by force; then what it started."""
        self.fault = self.fault or STOPPED
        await self._child.stop(END_SECONDS)
        self._child.end_group(signal.SIGKILL)
        self._child.release()


@asynccontextmanager
async def spoken(config: ServerConfig, log: ServerLog, environ: Mapping[str, str]) -> AsyncIterator[McpProgram]:
    """Start a server's program; it ends with the block, or with us.

    Raises:
        McpFailed: there is no such program, or it cannot be started.
    """
    env = {**get_default_environment(), **config.env}
    program = shutil.which(config.command, path=env.get("PATH", environ.get("PATH")))
    if program is None:
        raise McpFailed(f"the MCP server {config.name} cannot be started", why=f"{config.command} is not installed")
    if config.cwd is not None and not Path(config.cwd).is_dir():
        raise McpFailed(f"the MCP server {config.name} cannot be started", why=f"there is no directory {config.cwd}")
    started = tethered([str(Path(program).absolute()), *config.args], env)
    child = await AsyncChild.start(
        replace(started, cwd=Path(config.cwd) if config.cwd else None), name=f"the MCP server {config.name}",
        errors=asyncio.subprocess.PIPE, interactive=True, most=MOST_LINE,
    )  # fmt: skip
    running = McpProgram(child, log)
    tasks = [asyncio.create_task(each) for each in (running.read(), running.write(), running.keep_errors())]
    try:
        yield running
    finally:
        await asyncio.shield(_ended(running, tasks))


async def _ended(running: McpProgram, tasks: list[asyncio.Task[None]]) -> None:
    await running.end()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
