"""`edgellm stop`: end a server in good order, or by force when it does not end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from edgellm.errors import UsageError
from edgellm.serve.records import abandoned, end_orphans, find, running
from edgellm.serve.records import stop as end
from edgellm.ui.console import note
from edgellm.ui.options import QuietOutput
from edgellm.ui.render import render
from edgellm.workspace import workspace


@dataclass(frozen=True, slots=True)
class StoppedServer:
    """A server that ended; `forced` when it did not end by itself."""

    pid: int
    url: str
    forced: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """The servers that ended; `orphans` counts the workers that a killed server had left."""

    stopped: list[StoppedServer]
    orphans: int


def stop(
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="The server on this port. [default: the only one]")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All servers.", envvar="EDGELLM_STOP_ALL")] = False,
    wait: Annotated[
        float | None,
        typer.Option("--wait", min=0, help="Seconds until it is killed. [default: 10 more than its drain time]"),
    ] = None,
    *,
    output: QuietOutput,
) -> Stopped:
    """Stop a server: running answers may end first, then its workers. Workers that a killed server left are ended too.

    \b
    Examples: edgellm stop
              edgellm stop --port 8080
              edgellm stop --all --wait 5
    """
    if everything and port is not None:
        raise UsageError("--all and --port do not go together", hint="edgellm stop --all")
    directory = workspace().settings.servers
    orphans = sum(end_orphans(server) for server in abandoned(directory))
    servers = running(directory)
    if orphans and not output.silent:
        note(f"ended {orphans} workers of a server that was killed")
    chosen = servers if everything or (not servers and orphans and port is None) else [find(servers, port)]
    stopped = []
    for server in chosen:
        if not output.silent:
            note(f"stopping {server.url}: answers under way may end within {server.drain_seconds:.0f} s")
        stopped.append(StoppedServer(server.process.pid, server.url, forced=not end(directory, server, wait)))
    return render(output, Stopped(stopped, orphans), lambda result: None if output.quiet else _print(result))


def _print(result: Stopped) -> None:
    for each in result.stopped:
        note(f"stopped {each.url}" + (" by force" if each.forced else ""))
    if not result.stopped and not result.orphans:
        note("no server is running")
