"""`edgellm mcp`: an MCP server over standard input and output, for hosts that start it themselves, or over HTTP."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgellm.library import DEFAULT_EMBEDDER
from edgellm.mcp_http import PATH, address, serve_http
from edgellm.mcp_server import McpOffer, offered_tools, serve_stdio
from edgellm.serve.http.origins import Origins
from edgellm.serve.options import ServeOptions
from edgellm.settings import DEFAULT_MODEL
from edgellm.ui import options
from edgellm.ui.console import is_terminal, note
from edgellm.ui.flags import load_options
from edgellm.ui.model_names import model_names
from edgellm.ui.options import JsonOutput, LoadFlags
from edgellm.ui.render import render
from edgellm.workspace import workspace


@dataclass(frozen=True, slots=True)
class HostEntry:
    """What to write into a host's `mcp.json`, and the names of the tools that it will find."""

    mcpServers: dict[str, Any]  # noqa: N815, the name that hosts read
    tools: list[str]


def mcp(
    model: Annotated[
        str, typer.Option("--model", "-m", help="The model that answers.", autocompletion=model_names)
    ] = DEFAULT_MODEL,
    embed: Annotated[
        str, typer.Option("--embed", help="The model that embeds.", autocompletion=model_names)
    ] = DEFAULT_EMBEDDER,
    documents: Annotated[
        list[str] | None,
        typer.Option(
            "--docs", help="A collection of documents to offer; can be repeated. [default: all]", show_default=False
        ),
    ] = None,
    no_documents: Annotated[bool, typer.Option("--no-docs", help="Offer no documents.")] = False,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", min=1, help="Tokens of an answer, at most.")] = 1024,
    http: Annotated[
        str | None,
        typer.Option(
            "--http",
            metavar="[HOST:]PORT",
            help="Serve over HTTP, at http://HOST:PORT/mcp. [default host: 127.0.0.1]",
            show_default=False,
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", help="With --http: a key that hosts must send; can be repeated."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="With --http: another host name that hosts use for this server."),
    ] = None,
    allowed_origin: Annotated[
        list[str] | None,
        typer.Option("--allowed-origin", help="With --http: the origin of web pages that may use it."),
    ] = None,
    offline: options.Offline = False,
    *,
    load: LoadFlags,
    output: JsonOutput,
) -> HostEntry:
    """Be an MCP server: answer, search documents and embed for the program that started this one.

    It speaks over standard input and output until the input ends, or with --http over HTTP until Ctrl-C. With --json
    it only prints what to write into the host's mcp.json.

    \b
    Examples: edgellm mcp --json
              edgellm mcp -m bitnet-2b --docs manuals
              edgellm mcp --http 8790 --api-key "$KEY"
    """
    here = workspace(offline=offline)
    collections = () if no_documents else tuple(documents) if documents else None
    offer = McpOffer(here, model, embed, collections, max_tokens, load_options(load, None))
    tools = [tool.name for tool in offered_tools(offer)]
    if http is not None:
        return _over_http(offer, http, _guarded(api_key, allowed_host, allowed_origin), tools, output)
    entry = HostEntry({"edgellm": _entry(sys.argv)}, tools)
    if output.as_json:
        return render(output, entry, lambda _: None)
    if is_terminal(sys.stdin):
        note("waiting for an MCP host on standard input; Ctrl-D ends\nnext: edgellm mcp --json")
    serve_stdio(offer)
    return entry


def _guarded(keys: list[str] | None, hosts: list[str] | None, origins: list[str] | None) -> ServeOptions:
    """Who may use it over HTTP."""
    return ServeOptions(
        api_keys=frozenset(keys or ()),
        allowed_hosts=frozenset(name.lower() for name in hosts or ()),
        allowed_origins=Origins.of(origins or ()).patterns,
    )


def _over_http(offer: McpOffer, http: str, guarded: ServeOptions, tools: list[str], output: JsonOutput) -> HostEntry:
    """Serve over HTTP; with --json only print the entry, which names no key but where it goes."""
    options = address(http, guarded)
    headers = {"headers": {"Authorization": "Bearer ${KEY}"}} if options.api_keys else {}
    entry = HostEntry({"edgellm": {"url": f"{options.url}{PATH}", **headers}}, tools)
    if output.as_json:
        return render(output, entry, lambda _: None)
    reach = "only this machine can reach it" if options.is_local else f"reachable at {options.host}:{options.port}"
    lock = "with a key" if options.api_keys else "without a key"
    serve_http(offer, options, on_ready=lambda url: note(f"{url}   {reach}, {lock}; Ctrl-C ends it"))
    return entry


def _entry(words: list[str]) -> dict[str, Any]:
    """This very command, as a host has to start it from any directory."""
    program = shutil.which(words[0])
    start = [sys.executable, "-m", "edgellm"] if program is None or program.endswith(".py") else [program]
    command, *more = [str(Path(start[0]).absolute()), *start[1:], *(word for word in words[1:] if word != "--json")]
    return {"command": command, "args": more}
