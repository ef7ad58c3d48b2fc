"""The server that `env` and `connect` are about: one that runs, or the one that would.

target = find_target(here, "smollm2", port=None, key=None)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgellm.commands.workspace import Workspace

if TYPE_CHECKING:
    from edgellm.serve.clients import Target
    from edgellm.serve.running import RunningServer

Port = Annotated[
    int | None,
    typer.Option("--port", min=1, max=65535, help="The server on this port. [default: the one that runs, or 11435]"),
]


def _first_key(value: str | None) -> str | None:
    """`serve` takes several keys out of the variable; each of them will do."""
    return next(iter((value or "").split()), None)


ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", help="The server's key.", envvar="EDGELLM_API_KEY", callback=_first_key),
]
# What is told while nothing is installed: a model that everybody can pull.
FIRST_MODEL = "smollm2"


def find_target(here: Workspace, model: str | None, *, port: int | None, key: str | None) -> Target:
    """A server and one of its models; without one that runs, what `edgellm serve` would make.

    Raises:
        ModelNotFound: no such model is there.
        UsageError: several servers run and no port was named, or the server has a key and none was given.
    """
    from edgellm.errors import UsageError
    from edgellm.serve.running import find, running

    servers = running(here.settings.servers)
    if not servers or (port is not None and all(server.port != port for server in servers)):
        return _not_running(here, model, port=port, key=key)
    server = find(servers, port)
    if server.needs_key and not key:
        raise UsageError(f"the server at {server.url} has a key", hint="--api-key KEY, or EDGELLM_API_KEY")
    return _running(server, model, key=key)


def _running(server: RunningServer, model: str | None, *, key: str | None) -> Target:
    from edgellm.errors import ModelNotFound
    from edgellm.serve.clients import Target
    from edgellm.serve.options import ServeOptions
    from edgellm.serve.running import ask
    from edgellm.suggest import did_you_mean

    models: list[dict[str, Any]] = ask(server, key)["models"]
    by_name = {str(each["name"]): each for each in models}
    writers = [name for name, each in by_name.items() if each["kind"] != "embedding"]
    name = model.removesuffix(":latest") if model else next(iter(writers or by_name))
    if name not in by_name:
        guess = did_you_mean(name, by_name)
        why = f"did you mean {guess}?" if guess else f"it has {', '.join(by_name)}"
        raise ModelNotFound(f"the server at {server.url} has no model {name!r:.60}", why=why, hint="edgellm ps")
    embedders = [name for name, each in by_name.items() if each["kind"] == "embedding"]
    local = ServeOptions(host=server.host).is_local
    n_ctx = int(by_name[name]["n_ctx"])
    return Target(server.url, name, n_ctx, key, next(iter(embedders), None), is_local=local)


def _not_running(here: Workspace, model: str | None, *, port: int | None, key: str | None) -> Target:
    from edgellm.errors import EdgellmError
    from edgellm.models.fit import read_outline
    from edgellm.models.memory import DEFAULT_CONTEXT, choose_context
    from edgellm.models.resolve import resolve
    from edgellm.models.store import InstalledModel
    from edgellm.serve.clients import Target
    from edgellm.serve.options import ServeOptions
    from edgellm.ui.console import note

    name = model or next(iter(here.store.names()), FIRST_MODEL)
    found = resolve(name, here.store, here.recipe_directories)
    path = found if isinstance(found, Path) else found.path if isinstance(found, InstalledModel) else None
    n_ctx = DEFAULT_CONTEXT
    if path is not None:
        try:
            n_ctx = choose_context(read_outline(path).n_ctx_train, None)
        except (EdgellmError, OSError) as error:
            note(f"{name} cannot be read: {error}")
    url = ServeOptions(port=port or ServeOptions().port).url
    served = path.stem if path is not None and name.endswith(".gguf") else name
    note(
        f"no server is running there; this holds once it is: edgellm serve {name}" + (f" --port {port}" if port else "")
    )
    return Target(url, served, n_ctx, key)
