"""`edgellm tools`: the tools that a model may call, what each may touch, and what is missing here."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.toolset import OpenTools, ToolStatus, open_tools, server_statuses, tool_statuses
from edgellm.ui import options
from edgellm.ui.console import note, print_table, printable
from edgellm.ui.options import QuietOutput
from edgellm.ui.progress import lasting
from edgellm.ui.render import render
from edgellm.workspace import workspace


def tools(
    servers: Annotated[
        list[str] | None, typer.Argument(help="MCP servers to start, to list their tools; mcp for all.")
    ] = None,
    mcp: options.McpFile = None,
    *,
    output: QuietOutput,
) -> list[ToolStatus]:
    """List the tools that a model may call, what each may touch, and what is missing here.

    What reads nothing runs at once; every other tool asks first, unless --allow or --yes-tools is given.

    \b
    Examples: edgellm tools
              edgellm tools files time
              edgellm chat smollm2 --tools calculator,clock
              edgellm run smollm2 --tools web_search:http://localhost:8888 --allow web_search "Who won?"
    """
    here = workspace()
    if not servers:
        return render(output, [*tool_statuses(here), *server_statuses(here, mcp)], _print)
    with open_tools(here, servers, mcp=mcp, lenient=True, report=lasting(quiet=output.silent)) as opened:
        return render(output, _found(opened), _print)


def _found(opened: OpenTools) -> list[ToolStatus]:
    """The tools of started servers, and the servers that cannot be used."""
    tools = [ToolStatus(each.name, each.risk.value, each.description, each.source, "") for each in opened.tools]
    failed = [ToolStatus(each.server, "", "", f"mcp:{each.server}", each.text) for each in opened.problems]
    return tools + failed


def _print(found: list[ToolStatus]) -> None:
    rows = [(each.name, each.risk, printable(each.missing) or "ready", each.description) for each in found]
    print_table(("TOOL", "RISK", "HERE", "WHAT"), rows, spare=("WHAT",), cut=True)
    note("next: edgellm chat --tools calculator,clock")
