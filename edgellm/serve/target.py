"""The server that clients shall use: one that runs, or the one that `edgellm serve` would start.

target = find_target(settings, store, recipes, "smollm2", port=None, key=None, note=print)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgellm.errors import EdgellmError, ModelNotFound, UsageError
from edgellm.machine.memory import room
from edgellm.models.fit.memory import DEFAULT_CONTEXT
from edgellm.models.fit.verdict import default_plan, read_outline
from edgellm.models.local.description import chat_models
from edgellm.models.local.store import InstalledModel, Store
from edgellm.models.resolve import resolve
from edgellm.serve.clients.environment import Target
from edgellm.serve.options import ServeOptions
from edgellm.serve.records import RunningServer, ask, find, running, status_of_server
from edgellm.settings import DEFAULT_MODEL, Settings
from edgellm.suggest import did_you_mean


def find_target(
    settings: Settings,
    store: Store,
    recipes: Sequence[Path],
    model: str | None,
    *,
    port: int | None,
    key: str | None,
    note: Callable[[str], object],
) -> Target:
    """A server and one of its models; when none runs, what `edgellm serve` would make of an installed model.

    Args:
        recipes: directories of recipes.
        model: a model of the server; None for its first one.
        port: the server on this port; None for the only one that runs.
        note: is called with what people should know: that no server runs there, that a model cannot be read.

    Raises:
        ModelNotFound: there is no such model.
        UsageError: several servers run and no port was named, or the server has a key and none was given.
    """
    servers = running(settings.servers)
    if not servers or (port is not None and all(server.port != port for server in servers)):
        return _not_running(store, recipes, model, port=port, key=key, note=note)
    server = find(servers, port)
    if server.needs_key and not key:
        raise UsageError(f"the server at {server.url} has a key", hint="--api-key KEY, or EDGELLM_API_KEY")
    return _running(server, model, key=key)


def target_behind(urls: Sequence[str], model: str | None, *, key: str | None, note: Callable[[str], object]) -> Target:
    """One of several servers anywhere, for programs that spread requests over them; the first that answers tells.

    Raises:
        ModelNotFound: that server has no such model.
    """
    for url in urls:
        try:
            status = status_of_server(url, key)
        except EdgellmError as error:
            note(f"{url}: {error.what}")
            continue
        return _of_status(url, status, model, key=key, is_local=False)
    note("none of the servers answers: model and context are guesses")
    return Target(urls[0], model or DEFAULT_MODEL, DEFAULT_CONTEXT, key, is_local=False)


def _running(server: RunningServer, model: str | None, *, key: str | None) -> Target:
    local = ServeOptions(host=server.host).is_local
    return _of_status(server.url, ask(server, key), model, key=key, is_local=local)


def _of_status(url: str, status: dict[str, Any], model: str | None, *, key: str | None, is_local: bool) -> Target:
    models: list[dict[str, Any]] = status["models"]
    by_name = {str(each["name"]): each for each in models}
    writers = [name for name, each in by_name.items() if each["kind"] in ("chat", "completion")]
    name = model.removesuffix(":latest") if model else next(iter(writers or by_name))
    documents: list[str] = status.get("documents") or []
    base, at, collection = name.rpartition("@")
    answers = at and base in by_name and collection in documents  # from documents
    if name not in by_name and not answers:
        known = [*by_name, *(f"{each}@{collection}" for each in by_name for collection in documents)]
        guess = did_you_mean(name, known)
        why = f"did you mean {guess}?" if guess else f"it has {', '.join(known)}"
        raise ModelNotFound(f"the server at {url} has no model {name!r:.60}", why=why, hint="edgellm ps")
    embedders = [name for name, each in by_name.items() if each["kind"] == "embedding"]
    n_ctx = int(by_name[base if answers else name]["n_ctx"])
    return Target(url, name, n_ctx, key, next(iter(embedders), None), is_local=is_local, documents=tuple(documents))


def _not_running(
    store: Store,
    recipes: Sequence[Path],
    model: str | None,
    *,
    port: int | None,
    key: str | None,
    note: Callable[[str], object],
) -> Target:
    name = model or next(iter(chat_models(store) or store.names()), DEFAULT_MODEL)
    found = resolve(name, store, recipes)
    path = found if isinstance(found, Path) else found.path if isinstance(found, InstalledModel) else None
    n_ctx = DEFAULT_CONTEXT
    if path is not None:
        try:
            n_slots = ServeOptions().n_slots
            n_ctx = default_plan(read_outline(path), room(), n_ctx=None, kv_type=None, n_slots=n_slots).n_ctx
        except (EdgellmError, OSError) as error:
            note(f"{name} cannot be read: {error}")
    url = ServeOptions(port=port or ServeOptions().port).url
    served = path.stem if path is not None and name.endswith(".gguf") else name
    command = f"edgellm serve {name}" + (f" --port {port}" if port else "")
    note(f"no server is running there; this holds once it is: {command}")
    return Target(url, served, n_ctx, key)
