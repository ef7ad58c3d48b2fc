"""`edgellm ps`: the servers that run on this machine, and what their models do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgellm.commands.target import ApiKey
from edgellm.commands.workspace import workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.serve.running import RunningServer

COLUMNS = ("SERVER", "MODEL", "STATE", "CONTEXT", "MEMORY", "SPEED", "REQUESTS")


def ps(
    api_key: ApiKey = None,
    as_json: options.Json = False,
) -> None:
    """Show the servers that run here, with their models, memory, and what they are doing.

    \b
    Examples: edgellm ps
              EDGELLM_API_KEY=... edgellm ps --json
    """
    from edgellm.errors import EdgellmError
    from edgellm.serve.running import abandoned, ask, running
    from edgellm.ui.console import note, print_json, print_table

    directory = workspace().settings.servers
    left = abandoned(directory)
    told: list[tuple[RunningServer, dict[str, Any] | None, str]] = []
    for server in running(directory):
        try:
            told.append((server, ask(server, api_key), ""))
        except EdgellmError as error:
            told.append((server, None, error.what))
    if as_json:
        print_json([_document(server, status, problem) for server, status, problem in told])
    elif told:
        rows = [row for server, status, problem in told for row in _rows(server, status, problem)]
        print_table(COLUMNS, rows, right=(3, 4, 5, 6))
    else:
        note("no server is running\nnext: edgellm serve")
    for server in left:
        note(f"the server at {server.url} was killed and left {len(server.orphans)} workers; edgellm stop ends them")


def _document(server: RunningServer, status: dict[str, Any] | None, problem: str) -> dict[str, Any]:
    return {
        "pid": server.process.pid,
        "url": server.url,
        "started": server.process.started,
        "models": server.models,
        "needs_key": server.needs_key,
        "status": status,
        "problem": problem or None,
    }


def _rows(server: RunningServer, status: dict[str, Any] | None, problem: str) -> list[tuple[str, ...]]:
    """A line for each model that is in memory or being loaded, and one for all the others."""
    if status is None:
        return [(server.url, ", ".join(server.models), problem, "", "", "", "")]
    models = status["models"]
    rows = [described(model) for model in models if _is_there(model)]
    others = [str(model.get("name")) for model in models if not _is_there(model)]
    if others:
        shown = others if len(others) <= 3 else [*others[:2], f"{len(others) - 2} more"]
        rows.append((", ".join(shown), "not loaded", "", "", "", ""))
    return [(server.url if index == 0 else "", *row) for index, row in enumerate(rows)]


def _is_there(model: dict[str, Any]) -> bool:
    return model.get("state") != "not loaded" or bool(model.get("scoring_pid"))


def described(model: dict[str, Any]) -> tuple[str, ...]:
    """The cells of a model's line, but for the server's; memory is that of its worker and of its scoring process."""
    from edgellm.ui.units import duration, rate, size

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
