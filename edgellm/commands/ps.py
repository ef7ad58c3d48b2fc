"""`edgellm ps`: the servers that run on this machine, and what their models do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgellm.errors import EdgellmError
from edgellm.serve.records import abandoned, ask, running
from edgellm.ui import options
from edgellm.ui.console import note, print_table
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render
from edgellm.units import duration, rate, size
from edgellm.workspace import workspace

COLUMNS = ("SERVER", "MODEL", "STATE", "CONTEXT", "MEMORY", "SPEED", "REQUESTS")
SPARE = ("CONTEXT", "REQUESTS", "SPEED")


@dataclass(frozen=True, slots=True)
class ServerState:
    """A running server; `status` is its `/status.json`, null when it could not be asked, and `problem` says why.

    `started` is in seconds since 1970.
    """

    pid: int
    url: str
    started: float
    models: tuple[str, ...]
    needs_key: bool
    status: dict[str, Any] | None
    problem: str | None


def ps(api_key: options.ApiKey = None, *, output: JsonOutput) -> list[ServerState]:
    """Show the servers that run here, with their models, memory, and what they are doing.

    \b
    Examples: edgellm ps
              EDGELLM_API_KEY=... edgellm ps --json
    """
    directory = workspace().settings.servers
    left = abandoned(directory)
    found = []
    for server in running(directory):
        status: dict[str, Any] | None = None
        problem: str | None = None
        try:
            status = ask(server, api_key)
        except EdgellmError as error:
            problem = error.what
        about = (server.process.pid, server.url, server.process.started, server.models, server.needs_key)
        found.append(ServerState(*about, status, problem))
    render(output, found, _print)
    for server in left:
        note(f"the server at {server.url} was killed and left {len(server.orphans)} workers; edgellm stop ends them")
    return found


def _print(servers: list[ServerState]) -> None:
    if servers:
        print_table(COLUMNS, [row for server in servers for row in _rows(server)], right=(3, 4, 5, 6), spare=SPARE)
    else:
        note("no server is running\nnext: edgellm serve")


def _rows(server: ServerState) -> list[tuple[str, ...]]:
    """One line for each model that is in memory or loading, and one for all the others."""
    if server.status is None:
        return [(server.url, ", ".join(server.models), server.problem or "", "", "", "", "")]
    models = server.status["models"]
    rows = [described(model) for model in models if _is_there(model)]
    others = [str(model.get("name")) for model in models if not _is_there(model)]
    if others:
        shown = others if len(others) <= 3 else [*others[:2], f"{len(others) - 2} more"]
        rows.append((", ".join(shown), "not loaded", "", "", "", ""))
    return [(server.url if index == 0 else "", *row) for index, row in enumerate(rows)]


def _is_there(model: dict[str, Any]) -> bool:
    return model.get("state") != "not loaded" or bool(model.get("scoring_pid"))


def described(model: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a model's line without the server; memory is that of its worker and its scoring process."""
    state = str(model["state"])
    n_bytes = (model["resident_bytes"] or 0) + (model.get("scoring_resident_bytes") or 0)
    if model["in_flight"]:
        waiting = f", {model['waiting']} waiting" if model["waiting"] else ""
        state = f"answering {model['in_flight'] - model['waiting']}{waiting}"
    elif model.get("scoring_in_flight"):
        state = f"scoring {model['scoring_in_flight']}"
    elif state == "not loaded":
        state = "scoring, idle"
    elif model["idle_seconds"] is not None:
        seconds = model["idle_seconds"]
        state = f"idle {duration(seconds) if seconds >= 10 else f'{seconds:.0f} s'}"
    return (
        model["name"],
        state,
        f"{model['n_ctx']:,} x {model['n_slots']}",
        size(n_bytes) if n_bytes else "",
        rate(model["decode_rate"]) if model["decode_rate"] else "",
        f"{model['requests']:,}",
    )
