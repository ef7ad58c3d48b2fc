"""The model of a server that a verb uses in place of one of its own, as `--server` says.

remote = remote_model(here, "smollm2", "auto", load, quiet=False)
if remote is None: ...     # load the model here
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgellm.errors import ContextFixed, EdgellmError, PromptTooLong, UsageError
from edgellm.run.loader import LoadOptions
from edgellm.ui.console import note
from edgellm.ui.options import first_key
from edgellm.workspace import Workspace

if TYPE_CHECKING:
    from edgellm.models.recipe import Recipe
    from edgellm.serve.remote.choice import FoundServer
    from edgellm.serve.remote.model import RemoteModel

AUTO, NEVER = "auto", "never"


def is_url(server: str) -> bool:
    """Whether `--server` names a server, so that nothing is loaded here."""
    return server not in (AUTO, NEVER)


def with_tools(server: str, tools: object | None) -> str:
    """What `--server` says where tools may be in use: they are called here, between the steps of an answer.

    Raises:
        UsageError: a server was named, which answers by itself.
    """
    if not tools:
        return server
    if is_url(server):
        raise UsageError(
            "tools run here, and the server at --server answers by itself", hint="edgellm chat --server URL"
        )
    return NEVER


def remote_model(
    here: Workspace, name: str, server: str, load: LoadOptions, *, docs: bool = False, raw: bool = False, quiet: bool
) -> RemoteModel | None:
    """The model at a server; None: load it here. `docs` and `raw` are what a server cannot do for the verb.

    Raises:
        UsageError: the server that was named cannot do what is asked for.
        NetworkError, ModelNotFound: it cannot be asked, or has no such model.
    """
    if load.workers and is_url(server):
        raise UsageError("--workers are for a model that is loaded here", hint="--server never")
    if server == NEVER or load.workers:
        return None
    known, path, recipe = _known(here, name)
    key = first_key(os.environ.get("EDGELLM_API_KEY"))
    found = _found(here, name, server, path, key)
    if found is None:
        return None
    from edgellm.serve.remote.choice import obstacles

    if hindered := obstacles(found, load, docs=docs, raw=raw):
        if not is_url(server):
            return None
        what = f"the server at {found.address.url} cannot do what is asked for: {', '.join(hindered)}"
        raise UsageError(what, hint="--server never, or without these options")
    from edgellm.serve.remote.model import RemoteModel

    is_here = urlsplit(found.address.url).hostname in ("127.0.0.1", "localhost", "::1") or not is_url(server)
    model = RemoteModel(
        known, found.address, found.status, served_as=found.name, recipe=recipe, options=load, is_here=is_here
    )
    if not quiet:
        note(f"using edgellm serve {model.where}")
    return model


def can_help(error: EdgellmError, model: RemoteModel) -> bool:
    """Whether loading the model here may help after an error: the server is away, or its context too small."""
    if isinstance(error, PromptTooLong):
        most = model.status.get("n_ctx_train")
        return not isinstance(most, int) or model.plan.n_ctx < most
    if isinstance(error, UsageError):
        return isinstance(error, ContextFixed)
    return error.facts.get("status") not in (400, 413, 422)


def note_refusal(error: EdgellmError, *, quiet: bool) -> None:
    """Say why the model is loaded here after all."""
    if not quiet:
        note(f"{error.what}{f': {error.why}' if error.why else ''}; loading the model here")


def _found(here: Workspace, name: str, server: str, path: Path | None, key: str | None) -> FoundServer | None:
    if is_url(server):
        from edgellm.serve.remote.choice import named
        from edgellm.serve.remote.connection import ServerAddress

        return named(ServerAddress.of(server, key), name)
    if path is None or not any(here.settings.servers.glob("*.json")):
        return None  # what asks servers is imported only where there are any
    from edgellm.serve.remote.choice import holding

    return holding(here.settings.servers, path, key)


def _known(here: Workspace, name: str) -> tuple[str, Path | None, Recipe | None]:
    """The name of a model, its file if it is here, and its recipe, as far as they are known here."""
    from edgellm.models.local.store import InstalledModel
    from edgellm.models.resolve import recipe_of, resolve

    try:
        found = resolve(name, here.store, here.recipe_directories)
    except EdgellmError:
        return name, None, None
    if isinstance(found, Path):
        return name, found, None
    if isinstance(found, InstalledModel):
        path = found.path if found.path.exists() else None
        return found.name, path, recipe_of(found, here.recipe_directories)
    return found.name, None, found.recipe
