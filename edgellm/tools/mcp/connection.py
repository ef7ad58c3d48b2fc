"""One MCP server, for an event loop: started when it is needed, asked for its tools, called, and started again.

    connection = McpConnection(config, logs=settings.logs, environ=os.environ)
    for tool in await connection.tools(): ...
    result = await connection.call("read_file", {"path": "notes.txt"})

Nothing that a server does raises anything but `McpFailed`, and a call that was under way when its server died is not
made again: it may have had its effect.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
from mcp import ClientSession, MCPError
from mcp.client._transport import TransportStreams
from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT, CallToolResult, Implementation, PaginatedRequestParams
from mcp.types import Tool as ListedTool
from pydantic import ValidationError

from edgellm.errors import EdgellmError
from edgellm.tools.mcp.address import reached
from edgellm.tools.mcp.config import ServerConfig
from edgellm.tools.mcp.faults import McpFailed
from edgellm.tools.mcp.log import ServerLog
from edgellm.tools.mcp.program import STOPPED, McpProgram, spoken
from edgellm.version import __version__

MOST_TOOLS, MOST_PAGES = 500, 50
# Starts within this time; a server that needs more is not started again.
MOST_STARTS, START_WINDOW = 4, 60.0
# What a server that has answered too late once may take to show that it lives.
LIFE_SECONDS = 2.0
END_SECONDS = 6.0


class _Session(ClientSession):
    """The SDK's session; results are not checked by the server's own schema, whose patterns may run without end."""

    async def validate_tool_result(self, name: str, result: CallToolResult) -> None:
        """Accept it."""


class McpConnection:
    """A server and what connects us to it; its methods are for one event loop."""

    def __init__(
        self,
        config: ServerConfig,
        *,
        logs: Path,
        environ: Mapping[str, str],
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """Nothing is started yet. `transport` makes the connections to an address in place of the usual one."""
        self.config = config
        self._environ, self._transport = environ, transport
        self._log = ServerLog(logs, config.name)
        self._session: _Session | None = None
        self._program: McpProgram | None = None
        self._running: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._starts: deque[float] = deque(maxlen=MOST_STARTS)
        self._starting = asyncio.Lock()

    async def tools(self) -> list[ListedTool]:
        """The tools that it offers, as it describes them.

        Raises:
            McpFailed: it cannot be started or reached, or its list does not end.
        """
        session = await self._open()
        found: list[ListedTool] = []
        cursor: str | None = None
        try:
            for _ in range(MOST_PAGES):
                page = await asyncio.wait_for(
                    session.list_tools(params=PaginatedRequestParams(cursor=cursor)), self.config.start_seconds
                )
                found += page.tools
                cursor = page.next_cursor
                if not cursor or len(found) > MOST_TOOLS:
                    break
        except Exception as error:
            raise await self._failed("does not list its tools", error, self.config.start_seconds) from error
        if cursor or len(found) > MOST_TOOLS:
            raise McpFailed(
                f"the MCP server {self.config.name} lists tools without end", why=f"{MOST_TOOLS} are the most"
            )
        return found

    async def call(self, name: str, arguments: Mapping[str, Any]) -> CallToolResult:
        """Call a tool, within the server's time.

        Raises:
            McpFailed: it cannot be started, takes too long, dies, or refuses.
        """
        session = await self._open()
        seconds = self.config.call_seconds
        try:
            # The session's own limit tells the server that nobody waits any more; ours also holds if it reads nothing.
            return await asyncio.wait_for(session.call_tool(name, dict(arguments), seconds), seconds + LIFE_SECONDS)
        except Exception as error:
            raise await self._failed(f"did not do {name}", error, seconds) from error

    async def close(self) -> None:
        """End the server, or the connection to it."""
        self._stop.set()
        if self._running is not None:
            if self._session is None:  # it is still being started
                self._running.cancel()
            done, _ = await asyncio.wait([self._running], timeout=END_SECONDS)
            if not done:
                self._running.cancel()
                await asyncio.wait([self._running], timeout=END_SECONDS)
        self._running = self._session = None

    async def _open(self) -> _Session:
        """The session; a new one if the server is not running."""
        async with self._starting:
            if self._session is not None and self._running is not None:
                if not self._running.done() and not self._stop.is_set():
                    return self._session
                await self.close()
            if self.config.fault:
                raise McpFailed(f"the MCP server {self.config.name} is not used", why=self.config.fault)
            now = time.monotonic()
            if len(self._starts) == MOST_STARTS and now - self._starts[0] < START_WINDOW:
                why = f"it had to be started {MOST_STARTS} times within {START_WINDOW:.0f} s" + self._last_words()
                raise McpFailed(f"the MCP server {self.config.name} is not started again", why=why)
            self._starts.append(now)
            self._stop = asyncio.Event()
            ready: asyncio.Future[_Session] = asyncio.get_running_loop().create_future()
            self._running = asyncio.create_task(self._run(ready))
            try:
                self._session = await asyncio.wait_for(asyncio.shield(ready), self.config.start_seconds)
            except Exception as error:
                if not isinstance(error, McpFailed):
                    what = "cannot be started" if self.config.command else "cannot be reached"
                    error = await self._failed(what, error, self.config.start_seconds)
                await self.close()
                raise error from None
            return self._session

    async def _run(self, ready: asyncio.Future[_Session]) -> None:
        """Hold the connection open until it is to stop, or breaks; all in one task, as the SDK's scopes need it."""
        try:
            async with AsyncExitStack() as stack:
                streams: TransportStreams
                if self.config.command:
                    self._program = await stack.enter_async_context(spoken(self.config, self._log, self._environ))
                    streams = self._program.streams
                else:
                    streams = await stack.enter_async_context(reached(self.config, self._transport))
                session = await stack.enter_async_context(
                    _Session(*streams, client_info=Implementation(name="edgellm", version=__version__))
                )
                await _greet(session)
                ready.set_result(session)
                await self._stop.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error if isinstance(error, Exception) else McpFailed("it was stopped"))
                ready.exception()  # nobody may wait for it any more
            elif not isinstance(error, Exception):
                raise

    async def _failed(self, what: str, error: Exception, seconds: float) -> McpFailed:
        """What went wrong, in one line; a server that is out of order is started again by the next call.

        `seconds` is the time that it had.
        """
        error = _innermost(error)
        subject = f"the MCP server {self.config.name}"
        if isinstance(error, McpFailed):
            return error
        code = error.error.code if isinstance(error, MCPError) else None
        is_late = code == REQUEST_TIMEOUT or isinstance(error, asyncio.TimeoutError)
        is_open = self._session is not None
        if is_late and is_open and await self._lives():
            return McpFailed(f"{subject} {what}", why=f"{seconds:g} s were not enough")
        if is_late or code == CONNECTION_CLOSED or not is_open or "Session terminated" in str(error):
            await asyncio.sleep(0.05)  # a program's exit status comes just after the end of its output
            self._stop.set()
            if self._program is not None and self._program.fault not in ("", STOPPED):
                return McpFailed(f"{subject} {what}", why=self._program.fault + self._last_words())
        if is_late:
            return McpFailed(f"{subject} {what}", why=f"it gave no answer within {seconds:g} s" + self._last_words())
        return McpFailed(f"{subject} {what}", why=_words(error) + ("" if is_open else self._last_words()))

    async def _lives(self) -> bool:
        """Whether it answers anything at all."""
        if self._session is None:
            return False
        try:
            await asyncio.wait_for(self._session.list_tools(), LIFE_SECONDS)
        except Exception:
            return False
        return True

    def _last_words(self) -> str:
        return f"; its last words: {self._log.last_words}" if self._log.last_words else ""


async def _greet(session: ClientSession) -> None:
    """Agree on a version: the newest protocol has no greeting, the others begin with one."""
    try:
        await session.discover()
    except (MCPError, RuntimeError, ValueError):
        await session.initialize()


def _innermost(error: BaseException) -> Exception:
    """The first error inside of groups, which the SDK's tasks raise."""
    inner = getattr(error, "exceptions", None)
    while inner:
        error = inner[0]
        inner = getattr(error, "exceptions", None)
    return error if isinstance(error, Exception) else EdgellmError(str(error))


def _words(error: Exception) -> str:
    """An error of anybody's making, as one printable line."""
    if isinstance(error, ValidationError):
        first_fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(each) for each in first_fault["loc"])
        text = f"its answer breaks the protocol: {where}: {first_fault['msg']}"
    else:
        text = str(error).strip() or type(error).__name__
    first = next((line for line in text.splitlines() if line.strip()), "")
    return "".join(each if each.isprintable() else " " for each in first)[:300]
