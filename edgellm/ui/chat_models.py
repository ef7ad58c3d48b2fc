"""The model of a chat: one of a server or one that is loaded here, and how another one takes its place.

with ChatModels(here, load, "auto", quiet=False) as models:
    chat = Chat(models.open("smollm2"), options)
    chat.use(models.switch("phi-3-mini"))
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from edgellm.api import OpenModel
from edgellm.errors import EdgellmError, UsageError
from edgellm.run.loader import LoadOptions
from edgellm.ui.flags import open_model, warn_of_nonsense
from edgellm.ui.progress import progress
from edgellm.ui.server_model import can_help, is_url, remote_model
from edgellm.workspace import Workspace

if TYPE_CHECKING:
    from edgellm.serve.remote.model import RemoteModel


class ChatModels:
    """Opens one model after another; `server` is what `--server` says, `load` how a model is loaded here."""

    def __init__(self, here: Workspace, load: LoadOptions, server: str, *, quiet: bool) -> None:
        self._here, self._load, self._server, self._quiet = here, load, server, quiet
        self._model: RemoteModel | OpenModel | None = None

    def open(self, name: str) -> RemoteModel | OpenModel:
        """The first model of the chat, from a server if one has it.

        Raises:
            UsageError, NetworkError, ModelNotFound: as `remote_model`; and the errors of `open_model`.
        """
        self._model = self._at_server(name) or open_model(self._here, name, self._load, quiet=self._quiet)
        return self._model

    def switch(self, name: str) -> RemoteModel | OpenModel:
        """Another model in place of this one, which stays if the other cannot be opened; raises as `open`."""
        if not is_url(self._server):
            self._here.require_chat(name)
        before, remote = self._model, self._at_server(name)
        if remote is None and isinstance(before, OpenModel):
            with progress(quiet=self._quiet) as report:
                self._model = before.exchange(name, report=report)
            warn_of_nonsense(self._model, quiet=self._quiet)
            return self._model
        self._model = remote or open_model(self._here, name, self._load, quiet=self._quiet)
        if before is not None:
            before.close()
        return self._model

    def may_load(self, error: EdgellmError) -> bool:
        """Whether `load_here` may help after this error."""
        model = self._model
        return model is not None and not isinstance(model, OpenModel) and can_help(error, model)

    def load_here(self, n_ctx: int | None = None) -> OpenModel:
        """The same model, loaded here in place of the server's, with a context of `n_ctx` tokens if that is given.

        Raises:
            UsageError: the server was named, so nothing is loaded here.
        """
        if self._model is None or is_url(self._server):
            raise UsageError("nothing is loaded here beside a server that was named", hint="--server auto")
        load = self._load if n_ctx is None else replace(self._load, n_ctx=n_ctx)
        self._model = opened = open_model(self._here, self._model.name, load, quiet=self._quiet)
        return opened

    def reopen(self) -> RemoteModel | OpenModel:
        """The same model again after a worker was lost: with those that answer, and with the context that it had.

        Raises:
            DoesNotFit: there is not enough memory without it; the next try may find it again.
        """
        from edgellm.engine.rpc.hello import WorkerFacts, ask_all

        before = self._model
        if not isinstance(before, OpenModel):
            raise UsageError("no model of this process was lost")
        before.close()
        left = [answer.address for answer in ask_all(self._load.workers) if isinstance(answer, WorkerFacts)]
        load = replace(self._load, workers=tuple(left), n_ctx=before.plan.n_ctx, n_here=None)
        self._model = opened = open_model(self._here, before.name, load, quiet=self._quiet)
        return opened

    def _at_server(self, name: str) -> RemoteModel | None:
        return remote_model(self._here, name, self._server, self._load, quiet=self._quiet)

    def __enter__(self) -> ChatModels:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._model is not None:
            self._model.close()
