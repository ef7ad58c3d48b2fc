"""The tools that a server runs itself: those it was started with, and those that one request may use.

    served = ServedTools(tools, origins={"files_read": ToolOrigin("files", "read")}, logs=settings.logs)
    async with served.open(WantedTools(names=("calculator",))) as asked:
        asked.toolbox.call("calculator", '{"expression": "2 + 2"}')

Who starts the server decides: what it was started with runs without a question. A client may name an MCP server by its
address only where the operator permits that host.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edgellm.run.events import Returned
from edgellm.serve.http.problems import Problem
from edgellm.serve.tools.wanted import WantedServer, WantedTools
from edgellm.suggest import did_you_mean
from edgellm.tools.choice import ToolChooser
from edgellm.tools.consent import Consent
from edgellm.tools.mcp.config import ServerConfig
from edgellm.tools.mcp.hosts import AddressRefused, McpHosts
from edgellm.tools.mcp.servers import McpServers
from edgellm.tools.tool import OWN, Tool
from edgellm.tools.toolbox import Toolbox

# Calls at once; each waits for a network or another program most of its time.
N_CALLS = 16
# Requests with MCP servers at addresses that clients chose, at once; and such servers of one request.
N_CHOSEN, MOST_CHOSEN = 8, 8
START_SECONDS, CALL_SECONDS = 20.0, 60.0

log = logging.getLogger("edgellm.serve")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ToolOrigin:
    """Whose tool it is, as clients know it: the label of its server, and its name there."""

    label: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolList:
    """The tools of one server, for clients; with `error` it could not list them."""

    label: str
    tools: tuple[tuple[str, Tool], ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class AskedTools:
    """The tools of one request; `missing` are the usual ones that are not here.

    `lists` are those that the client is to be shown.
    """

    toolbox: Toolbox
    origins: Mapping[str, ToolOrigin]
    lists: tuple[ToolList, ...] = ()
    missing: tuple[str, ...] = ()
    wanted: WantedTools = field(default_factory=WantedTools)

    def origin(self, name: str) -> ToolOrigin:
        """Whose tool that is."""
        return self.origins.get(name) or ToolOrigin(OWN, name)

    def may_be_first(self, name: str) -> bool:
        """Whether a tool is one of those that must be called first."""
        first = self.wanted.first
        if first is None or not (first.tool or first.label):
            return True
        origin = self.origin(name)
        if first.label:
            return origin.label == first.label and first.tool in ("", origin.name)
        return name == first.tool

    def needs_approval(self, name: str) -> bool:
        """Whether the client wants to be asked before a tool runs."""
        origin = self.origin(name)
        return name not in self.wanted.names and any(
            each.needs_approval(origin.name) for each in self.wanted.servers if each.label == origin.label
        )

    def named(self, label: str, name: str) -> str:
        """The name in the toolbox of a tool that clients know by the label of its server and its name there."""
        return next((tool.name for tool in self.toolbox if self.origin(tool.name) == ToolOrigin(label, name)), name)


class ServedTools:
    """The tools of a server, by name; a client may use MCP servers at `hosts`."""

    def __init__(
        self,
        tools: Sequence[Tool],
        *,
        origins: Mapping[str, ToolOrigin] | None = None,
        hosts: McpHosts | None = None,
        logs: Path,
    ) -> None:
        self.tools = {tool.name: tool for tool in tools}
        # Which tool fits a question: by its words, unless somebody can compare meanings.
        self.choose = ToolChooser()
        self._origins = dict(origins or {})
        self._hosts = hosts or McpHosts()
        self._logs = logs
        self._threads = ThreadPoolExecutor(N_CALLS, "tools")
        self._chosen = asyncio.Semaphore(N_CHOSEN)

    @property
    def labels(self) -> list[str]:
        """The labels of the MCP servers here, and that of the built-in tools."""
        return [OWN, *dict.fromkeys(origin.label for origin in self._origins.values())]

    async def work(self, do: Callable[[], Found]) -> Found:
        """Do something in a thread of the tools' own."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, do)

    @asynccontextmanager
    async def open(self, wanted: WantedTools) -> AsyncIterator[AskedTools]:
        """The tools that a request asks for; servers that it names by address are left again at the end.

        Raises:
            Problem: there is no such tool or label, or the address is not permitted.
        """
        names = list(self.tools) if wanted.everything else [self._known(name) for name in wanted.names]
        names += [name for name in wanted.usual if name in self.tools]
        lists: list[ToolList] = []
        chosen: list[WantedServer] = []
        for server in wanted.servers:
            if server.url and server.label not in self.labels:
                self._permit(server)
                chosen.append(server)
                continue
            found = self._of_label(server)
            names += [tool.name for _, tool in found]
            if not server.is_listed:
                lists.append(ToolList(server.label, tuple(found)))
        if len(chosen) > MOST_CHOSEN:
            message = f"tools: {len(chosen)} MCP servers by address are too many; {MOST_CHOSEN} are the most"
            raise Problem(400, message, code="bad-field", field="tools")
        missing = tuple(name for name in wanted.usual if name not in self.tools)
        tools = [self.tools[name] for name in dict.fromkeys(names)]
        if not chosen:
            yield self._asked(tools, self._origins, lists, missing, wanted)
            return
        async with self._chosen:
            remote = McpServers(
                map(_config, chosen), logs=self._logs, environ=os.environ, transport=self._hosts.transport
            )
            try:
                await self.work(lambda: remote.start(taken=list(self.tools)))
                origins = {**self._origins, **{name: ToolOrigin(*each) for name, each in remote.origins.items()}}
                lists += [_listed(server, remote, origins) for server in chosen if not server.is_listed]
                kept = [tool for tool in remote.tools if _is_wanted(chosen, origins[tool.name])]
                yield self._asked([*tools, *kept], origins, lists, missing, wanted)
            finally:
                await self.work(remote.close)

    def note(self, returned: Returned, tool: Tool | None) -> None:
        """Log a call, without its arguments and its result."""
        outcome = "failed" if returned.error else "done"
        name, source = (tool.name, tool.source) if tool else ("unknown", "nobody")
        log.info("tool %s of %s: %s in %.2f s, %d characters", name, source, outcome, returned.seconds,
                 len(returned.text))  # fmt: skip

    def close(self) -> None:
        """End what the threads do."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _asked(
        self, tools: list[Tool], origins: Mapping[str, ToolOrigin], lists: list[ToolList], missing: tuple[str, ...],
        wanted: WantedTools,
    ) -> AskedTools:  # fmt: skip
        asked = AskedTools(Toolbox(tools, Consent(everything=True)), origins, tuple(lists), missing, wanted)
        if wanted.first is not None and tools and not any(asked.may_be_first(tool.name) for tool in tools):
            first = wanted.first
            message = f"tool_choice: there is no tool {first.tool or 'at all'!r} here" + (
                f" with the label {first.label!r}" if first.label else ""
            )
            raise Problem(400, message, code="bad-field", field="tool_choice")
        return asked

    def _permit(self, server: WantedServer) -> None:
        try:
            self._hosts.check(server.url, server.label)
        except AddressRefused as error:
            message = f"{error.what}: {error.why}" if error.why else error.what
            raise Problem(403, message, code=error.code, field="tools") from error

    def _known(self, name: str) -> str:
        if name in self.tools:
            return name
        guess = did_you_mean(name, self.tools)
        known = f"did you mean {guess}?" if guess else f"there are {', '.join(self.tools) or 'none'}"
        raise Problem(
            400, f"this server runs no tool {name[:64]!r}; {known}", code="unknown-tool", field="server_tools"
        )

    def _of_label(self, server: WantedServer) -> list[tuple[str, Tool]]:
        """The tools of one of our own servers, each with its name there."""
        if server.label not in self.labels:
            message = f"there is no MCP server with the label {server.label[:64]!r} here, only {', '.join(self.labels)}"
            raise Problem(400, message, code="unknown-mcp-server", field="tools")
        found = [
            (origin.name, tool)
            for tool in self.tools.values()
            if (origin := self._origins.get(tool.name) or ToolOrigin(OWN, tool.name)).label == server.label
        ]
        return [each for each in found if server.tools is None or each[0] in server.tools]


def _config(server: WantedServer) -> ServerConfig:
    return ServerConfig(
        server.label, url=server.url, headers=server.headers, start_seconds=START_SECONDS, call_seconds=CALL_SECONDS,
        only=server.tools,
    )  # fmt: skip


def _listed(server: WantedServer, remote: McpServers, origins: Mapping[str, ToolOrigin]) -> ToolList:
    tools = [(origins[tool.name].name, tool) for tool in remote.tools if origins[tool.name].label == server.label]
    errors = [each.text for each in remote.problems if each.server == server.label]
    return ToolList(server.label, tuple(tools), "; ".join(errors)[:500] if not tools else "")


def _is_wanted(chosen: Sequence[WantedServer], origin: ToolOrigin) -> bool:
    return any(origin.label == each.label for each in chosen)
