"""What can go wrong with MCP servers, as errors and as lines for the user.

raise McpFailed("the MCP server files did not do read_file", why="it ended with exit status 1")
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import EdgellmError, EngineError


class McpFailed(EdgellmError):
    """An MCP server cannot be started or reached, ended, or does not keep to the protocol."""

    code = "mcp-failed"


class McpMissing(EngineError):
    """The library for MCP is not installed."""

    code = "mcp-missing"


@dataclass(frozen=True, slots=True)
class McpProblem:
    """A server, or one of its tools, that cannot be used or only in part; `text` is one line.

    It `is_fatal` if nothing of the server can be used.
    """

    server: str
    text: str
    is_fatal: bool = False
