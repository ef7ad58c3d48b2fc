"""The tools that `edgellm serve --tools` runs for its clients: the built-in ones and those of MCP servers.

with served_tools(here, ["calculator", "files"], mcp=None, hosts=[], quiet=False) as tools:
    serve(..., tools=tools)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgellm.errors import UsageError
from edgellm.serve.tools.served import ServedTools, ToolOrigin
from edgellm.tools.mcp.hosts import McpHosts
from edgellm.tools.mcp.servers import require_sdk
from edgellm.toolset import open_tools, split_names
from edgellm.ui.progress import lasting
from edgellm.ui.tool_consent import note_problems
from edgellm.workspace import Workspace


@contextmanager
def served_tools(
    here: Workspace, words: Sequence[str], *, mcp: Path | None, hosts: Sequence[str], quiet: bool
) -> Iterator[ServedTools | None]:
    """The tools that these words name, open until the block ends; None where nothing was asked for.

    Args:
        words: as `--tools` takes them.
        mcp: the file of the MCP servers; None for the user's own.
        hosts: where clients may use MCP servers of their own choice.

    Raises:
        UsageError: there is no such tool, or something of it is missing.
        McpMissing: MCP servers are wanted, and the library is not installed.
    """
    names, permitted = split_names(words), McpHosts.of(hosts)
    if not names and mcp is not None:
        raise UsageError("--mcp has no effect without --tools", hint="--tools NAME, the name of a server in the file")
    if not names and not hosts:
        yield None
        return
    if hosts:
        require_sdk()
    with open_tools(here, names, mcp=mcp, lenient=True, report=lasting(quiet=quiet)) as opened:
        note_problems(opened.problems)
        origins = {name: ToolOrigin(*origin) for name, origin in opened.origins.items()}
        yield ServedTools(opened.tools, origins=origins, hosts=permitted, logs=here.settings.logs)
