"""All MCP servers of a user: started at once in a thread of their own, and their tools as tools of ours.

    with McpServers(read_servers(path, os.environ), logs=settings.logs, environ=os.environ) as servers:
        servers.start()
        servers.tools       # named SERVER_TOOL
        servers.problems    # a line for each server or tool that cannot be used

Every tool of a server may act, whatever it says of itself: the user is asked. What servers ask of us (to run a model,
to question the user) is not offered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgellm.progress import Progress, Report, silent
from edgellm.tools.mcp.config import ServerConfig
from edgellm.tools.mcp.faults import McpMissing, McpProblem
from edgellm.tools.mcp.schemas import Unfit, fit_description, fit_name, fit_schema
from edgellm.tools.tool import Risk, Tool, ToolResult

if TYPE_CHECKING:
    import httpx2
    from mcp.types import Tool as ListedTool

    from edgellm.tools.mcp.connection import McpConnection

MOST_NAME = 64
CLOSE_SECONDS = 15.0
Answer = TypeVar("Answer")


def require_sdk() -> None:
    """Raise `McpMissing` without the official SDK, which only this extra needs."""
    try:
        import mcp  # noqa: F401
    except ImportError as error:
        hint = "pip install 'edgellm[mcp]'"
        raise McpMissing("MCP servers need a library that is not installed", why=str(error), hint=hint) from error


class McpServers:
    """Servers and their tools; close it, or use it as a context manager. Its methods may be called in any thread."""

    def __init__(
        self,
        configs: Iterable[ServerConfig],
        *,
        logs: Path,
        environ: Mapping[str, str],
        transport: Callable[[], httpx2.AsyncBaseTransport] | None = None,
    ) -> None:
        """Nothing is started yet. `transport` makes the connections to addresses in place of the usual one."""
        self.configs = tuple(each for each in configs if not each.is_disabled)
        self.tools: list[Tool] = []
        self.problems: list[McpProblem] = []
        # The server and the name there of each tool, by its name here.
        self.origins: dict[str, tuple[str, str]] = {}
        self._logs, self._environ, self._transport = logs, environ, transport
        self._connections: list[McpConnection] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self, *, taken: Collection[str] = (), report: Report = silent) -> None:
        """Start all servers and list their tools; one that fails is a problem, and costs no other.

        Args:
            taken: names that tools must not get.
            report: called as servers become ready.

        Raises:
            McpMissing: the SDK is not installed.
        """
        if not self.configs:
            return
        require_sdk()
        from edgellm.tools.mcp.connection import McpConnection

        loop = self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=_run_loop, args=(loop,), name="mcp", daemon=True)
        self._thread.start()
        n_ready = 0

        async def listed(connection: McpConnection) -> list[ListedTool] | Exception:
            nonlocal n_ready
            try:
                return await connection.tools()
            except Exception as error:  # anybody's program
                return error
            finally:
                n_ready += 1
                report(Progress("starting MCP servers", n_ready, len(self.configs)))

        async def start() -> list[list[ListedTool] | Exception]:
            transport = self._transport
            self._connections = [
                McpConnection(
                    each, logs=self._logs, environ=self._environ, transport=transport() if transport else None
                )
                for each in self.configs
            ]
            return list(await asyncio.gather(*(listed(each) for each in self._connections)))

        report(Progress("starting MCP servers", 0, len(self.configs)))
        names, answers = set(taken), self._wait(start())
        for connection, found in zip(self._connections, answers, strict=True):
            config = connection.config
            self.problems += [McpProblem(config.name, note) for note in config.notes]
            if isinstance(found, Exception):
                why = getattr(found, "why", "")
                self.problems.append(McpProblem(config.name, f"{found}: {why}" if why else str(found), is_fatal=True))
                continue
            for tool in found:
                if not config.takes(tool.name):
                    continue
                try:
                    made = self._tool(connection, tool, names)
                except Unfit as unfit:
                    shown = "".join(each if each.isprintable() else "?" for each in tool.name)[:60]
                    self.problems.append(McpProblem(config.name, f"its tool {shown} is left out: {unfit}"))
                else:
                    names.add(made.name)
                    self.tools.append(made)
                    self.origins[made.name] = config.name, tool.name

    def close(self) -> None:
        """End all servers."""
        loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        self._loop = None

        async def end() -> None:
            await asyncio.gather(*(each.close() for each in self._connections), return_exceptions=True)

        try:
            with contextlib.suppress(FutureTimeout):  # what is left ends with us
                asyncio.run_coroutine_threadsafe(end(), loop).result(CLOSE_SECONDS)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(CLOSE_SECONDS)

    def __enter__(self) -> McpServers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tool(self, connection: McpConnection, listed: ListedTool, taken: Collection[str]) -> Tool:
        name, schema = fit_name(listed.name), fit_schema(listed.input_schema)
        server = connection.config.name

        def call(arguments: Mapping[str, Any]) -> ToolResult:
            from edgellm.tools.mcp.results import tool_result

            return tool_result(self._wait(connection.call(name, arguments)))

        description = fit_description(listed.description) or fit_description(listed.title) or name
        return Tool(tool_name(server, name, taken), description, schema, Risk.ACTS, call, f"mcp:{server}")

    def _wait(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """The result of work in the servers' own thread; Ctrl-C here ends it there."""
        if self._loop is None:
            work.close()
            raise McpMissing("the MCP servers have been stopped")
        future: Future[Answer] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise


def tool_name(server: str, tool: str, taken: Collection[str]) -> str:
    """The name of a server's tool here: SERVER_TOOL in letters, digits, `_` and `-`, that no other tool has."""
    first = plain_name(server)
    name = plain_name(tool)
    whole = name if name.startswith(f"{first}_") else f"{first}_{name}"
    if not re.match(r"[A-Za-z_]", whole):
        whole = f"_{whole}"
    if len(whole) > MOST_NAME:
        whole = f"{whole[: MOST_NAME - 7]}_{hashlib.sha256(f'{server}/{tool}'.encode()).hexdigest()[:6]}"
    candidates: Callable[[int], str] = lambda number: whole if number == 1 else f"{whole[: MOST_NAME - 4]}_{number}"  # noqa: E731
    number = 1
    while candidates(number) in taken:
        number += 1
    return candidates(number)


def plain_name(text: str) -> str:
    """A name in the characters that names of tools may have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_") or "tool"


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
