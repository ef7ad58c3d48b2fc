"""Which server answers in place of a model in this process: one that holds the same file, or the one that was named.

    found = holding(settings.servers, path, key)       # a server of this user, on this machine
    found = named(ServerAddress.of(url, key), "smollm2")

What a server cannot honour is found before it is asked: `obstacles`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgellm.errors import EdgellmError, ModelNotFound, NetworkError
from edgellm.files import identity
from edgellm.models.local.store import LATEST
from edgellm.run.loader import LoadOptions
from edgellm.serve.records import running, status_of_server
from edgellm.serve.remote.connection import ServerAddress
from edgellm.suggest import did_you_mean
from edgellm.version import __version__

# What a server has of a model, of which every number must be there.
NEEDED = ("n_ctx", "n_slots", "n_threads")
LOADED, CHAT = "loaded", "chat"


@dataclass(frozen=True, slots=True)
class FoundServer:
    """A server that has a model under a `name`; `status` is the model's entry in /status.json."""

    address: ServerAddress
    name: str
    status: dict[str, Any]


def holding(directory: Path, path: Path, key: str | None) -> FoundServer | None:
    """A server of this user that has this very file in memory; None if there is none that we may ask.

    Servers of another version are left alone: their numbers may differ. So are models that think before they answer:
    a server sets the thoughts apart, and the text would be another.
    """
    wanted = [*identity(path)]
    for server in running(directory):
        names = [name for name, found in server.files.items() if found == wanted]
        if not names or (server.needs_key and not key):
            continue
        try:
            status = status_of_server(server.url, key)
        except EdgellmError:
            continue
        for each in _models(status) if status.get("version") == __version__ else ():
            if each["name"] in names and each["state"] == LOADED and each.get("answers_plainly"):
                return FoundServer(ServerAddress(server.url, key), each["name"], each)
    return None


def is_of_file(directory: Path, server: str, name: str, path: Path) -> bool:
    """Whether a server of this user, on this machine, has this very file under a name."""
    wanted, port = [*identity(path)], urlsplit(server).port
    return any(each.port == port and each.files.get(name) == wanted for each in running(directory))


def named(address: ServerAddress, model: str) -> FoundServer:
    """The model of that name, or of that file's, at a server.

    Raises:
        NetworkError: it is no server of edgellm, or does not answer.
        ModelNotFound: it has no such chat model.
    """
    try:
        status = status_of_server(address.url, address.key)
    except EdgellmError as error:
        what = f"the server at {address.url} cannot be asked"
        raise NetworkError(what, why=error.what, hint="--server auto, or EDGELLM_API_KEY=KEY") from None
    models = {each["name"]: each for each in _models(status)}
    name = Path(model).stem if model.endswith(".gguf") else model.removesuffix(LATEST)
    if name not in models:
        guess = did_you_mean(name, list(models))
        why = f"did you mean {guess}?" if guess else f"it has {', '.join(models) or 'none'}"
        raise ModelNotFound(f"the server at {address.url} has no chat model {name:.60}", why=why)
    return FoundServer(address, name, models[name])


def obstacles(found: FoundServer, load: LoadOptions, *, docs: bool, raw: bool) -> list[str]:
    """What was asked for and a server cannot do, as the options that ask for it."""
    status = found.status
    asked = {
        f"--ctx-size {load.n_ctx} (it has {status['n_ctx']})": (load.n_ctx or 0) > status["n_ctx"],
        f"--threads {load.n_threads} (it has {status['n_threads']})": load.n_threads not in (None, status["n_threads"]),
        f"--kv {load.kv_type} (it has {status['kv_type']})": (load.kv_type or status["kv_type"]).upper()
        != status["kv_type"].upper(),
        "--max-memory": load.max_memory is not None,
        "--lora": bool(load.adapters),
        "--docs": docs,
        "--raw": raw,
        "EDGELLM_KERNELS": bool(os.environ.get("EDGELLM_KERNELS")),
    }
    return [option for option, stands in asked.items() if stands]


def _models(status: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The chat models of a status, of which all that we need is there."""
    for each in status["models"]:
        is_whole = isinstance(each, dict) and all(isinstance(each.get(name), int) for name in NEEDED)
        is_named = is_whole and all(isinstance(each.get(name), str) for name in ("name", "state", "kv_type"))
        if is_named and each.get("kind") == CHAT:
            yield each
