"""Which of the server's own tools a request asks for, in no protocol's words.

WantedTools(names=("web_search",))
WantedTools(servers=(WantedServer("files", tools=frozenset({"read_file"})),))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

# The built-in tool behind the search of OpenAI's and Anthropic's APIs.
WEB_SEARCH = "web_search"
# How a request may name an MCP server.
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,59}$")]


@dataclass(frozen=True, slots=True)
class WantedServer:
    """Tools of an MCP server: one of this server's own by its `label`, or one at an address that the client chose.

    `tools` are the ones to offer, by the names that the server gives them; None for all. `needs_approval` says which of
    them the client wants to be asked about before each call. `is_listed`: the client knows them already.
    """

    label: str
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    tools: frozenset[str] | None = None
    needs_approval: Callable[[str], bool] = lambda _: False
    is_listed: bool = False


@dataclass(frozen=True, slots=True)
class DecidedCall:
    """A call that the client was asked about, and its answer; `name` is the tool's at the server with that `label`."""

    id: str
    label: str
    name: str
    arguments: str
    approved: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class FirstCall:
    """What the model must call first: any tool, one named `tool`, or one of the server with that `label`."""

    tool: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class WantedTools:
    """What a request asks for.

    `names` must be there, `usual` are left out where they are not: clients send these to every server. `everything`
    stands for all built-in tools and those of the server's own MCP servers.
    """

    names: tuple[str, ...] = ()
    usual: tuple[str, ...] = ()
    everything: bool = False
    servers: tuple[WantedServer, ...] = ()
    first: FirstCall | None = None
    most_calls: int | None = None
    decided: tuple[DecidedCall, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.names or self.usual or self.everything or self.servers)
