"""`edgellm stop`: end a server in good order, or by force when it does not end."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options


def stop(
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="The server on this port. [default: the only one]")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All servers.")] = False,
    wait: Annotated[
        float | None,
        typer.Option("--wait", min=0, help="Seconds until it is ended by force. [default: 10 more than it may drain]"),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Stop a server: answers under way may end, then its workers go. Workers that a killed server left are ended too.

    \b
    Examples: edgellm stop
              edgellm stop --port 8080
              edgellm stop --all --wait 5
    """
    from edgellm.errors import UsageError
    from edgellm.serve.running import abandoned, end_orphans, find, running
    from edgellm.serve.running import stop as end
    from edgellm.ui.console import note, print_json

    if everything and port is not None:
        raise UsageError("--all and --port do not go together", hint="edgellm stop --all")
    directory = workspace().settings.servers
    orphans = sum(end_orphans(server) for server in abandoned(directory))
    servers = running(directory)
    if orphans and not quiet and not as_json:
        note(f"ended {orphans} workers of a server that was killed")
    chosen = servers if everything or (not servers and orphans and port is None) else [find(servers, port)]
    stopped = []
    for server in chosen:
        if not quiet and not as_json:
            note(f"stopping {server.url}: answers under way may end within {server.drain_seconds:.0f} s")
        stopped.append({"pid": server.process.pid, "url": server.url, "forced": not end(directory, server, wait)})
    if as_json:
        print_json({"stopped": stopped, "orphans": orphans})
    elif not quiet:
        for each in stopped:
            note(f"stopped {each['url']}" + (" by force" if each["forced"] else ""))
        if not stopped and not orphans:
            note("no server is running")
