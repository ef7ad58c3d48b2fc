"""A batch of a file: in the slots of a model that is loaded here, or in those of a server that has it already.

    for tally in answer_file(here, "smollm2", source, output, shard=Shard(), load=load, options=options):
        print(tally.done)

A server answers a batch if it was named, or if it has as many slots as the batch can use: then a second copy of the
model would only take memory. With fewer slots it does so where a second copy does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.api import OpenModel, batch_options
from edgellm.batch.cached import CachedRows
from edgellm.batch.job import Batch
from edgellm.batch.journal import Journal, already_answered
from edgellm.batch.lines import Shard, ids, survey
from edgellm.batch.record import CONTEXT, begun_with, check_finished, digest, file_content, served_content
from edgellm.batch.requests import documents_named
from edgellm.batch.scheduler import BatchOptions, Scheduler
from edgellm.batch.slots import LocalSlots, Slots
from edgellm.batch.tally import Tally
from edgellm.errors import DoesNotFit, EdgellmError, NotServed, UsageError
from edgellm.files import identity
from edgellm.library import OpenCollections
from edgellm.models.fit.memory import RunPlan, choose_context
from edgellm.models.fit.verdict import read_outline
from edgellm.models.local.description import kind_of_file
from edgellm.progress import Report, silent
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.loader import LoadOptions, choose_system, plan_weights, with_fitting_slots
from edgellm.workspace import LocalModel, Workspace

if TYPE_CHECKING:
    from edgellm.cache.answer_cache import AnswerCache
    from edgellm.models.recipe import Recipe
    from edgellm.serve.remote.model import RemoteModel
    from edgellm.toolset import OpenToolSets

# How long rows wait for a server that is away: for one that was named, and where the model can be loaded here.
PATIENCE_SECONDS, SHORT_PATIENCE_SECONDS = 30.0, 10.0


@dataclass(frozen=True, slots=True)
class BatchServer:
    """A server that may answer a batch.

    `find` finds the model there, None if it is not there or cannot be had as these options want it. With `must` the
    server was named: nothing is loaded here, and what `find` raises is the end. `say` says which one answers, and why
    no more.
    """

    find: Callable[[LoadOptions], RemoteModel | None]
    must: bool = False
    say: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class BatchCluster:
    """The Ray cluster that answers a batch, at the address of its head, or `auto` for that of this machine.

    `n_actors` is how many processes share a node. `say` says which nodes come and go.
    """

    address: str
    n_actors: int = 1
    say: Callable[[str], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class _BatchModel:
    """The model of a batch: a file here, or what a server that was named says of its own."""

    local: LocalModel | None
    remote: RemoteModel | None
    content: dict[str, Any]

    @property
    def label(self) -> str:
        """What answers call the model."""
        return self.local.label if self.local else self.remote.served_as if self.remote else ""

    @property
    def recipe(self) -> Recipe | None:
        """Its recipe, if it is known here."""
        return self.local.recipe if self.local else self.remote.recipe if self.remote else None

    @property
    def cache_key(self) -> Any:
        """What stored answers are of."""
        return identity(self.local.path) if self.local else self.content

    def context(self, load: LoadOptions) -> int | None:
        """The context of a batch that begins now; None where opening the model will say what is wrong."""
        if self.local is None or (self.remote is not None and load.n_ctx is None):
            return self.remote.plan.n_ctx if self.remote else None
        try:
            return plan_weights(self.local.path, load).n_ctx
        except DoesNotFit:
            return None

    def options(self, here: Workspace, options: AnswerOptions, load: LoadOptions, **how: Any) -> BatchOptions:
        """How the rows are answered that do not say it themselves."""
        local = self.local
        names = {local.name, local.path.name} if local else {self.remote.name} if self.remote else set()
        return batch_options(
            here, self.label, {self.label, *names}, options, self.recipe, system=choose_system(load, self.recipe), **how
        )


def _model(here: Workspace, name: str, server: BatchServer | None, load: LoadOptions, report: Report) -> _BatchModel:
    remote = server.find(load) if server is not None and server.must else None
    if remote is None:
        local = here.model(name, report=report)
        return _BatchModel(local, None, file_content(local.path, digest(local.path, here.store, report=report)))
    from edgellm.serve.remote.choice import is_of_file

    try:
        known = here.local(name)
    except EdgellmError:
        known = None
    if known is not None and is_of_file(here.settings.servers, remote.server, remote.served_as, known.path):
        local = here.model(name, report=report)
        return _BatchModel(local, remote, file_content(local.path, digest(local.path, here.store, report=report)))
    return _BatchModel(None, remote, served_content(remote.server, remote.served_as, remote.about))


class _Opening:
    """Opens the slots of a batch, here or at a server; what is opened closes with `opened`.

    `load` has the context that the batch began with. `is_free`: nobody asked for it, so there may be fewer slots.
    """

    is_free = False

    def __init__(
        self, here: Workspace, model: _BatchModel, server: BatchServer | None, load: LoadOptions, report: Report,
        opened: ExitStack, cluster: BatchCluster | None = None,
    ) -> None:  # fmt: skip
        self._cluster = cluster
        self._here, self._model, self._server, self._load = here, model, server, load
        self._report, self._opened = report, opened

    def slots(self, n_rows: int) -> Slots:
        """Slots for so many rows."""
        server, load = self._server, self._load
        if self._cluster is not None:
            return self._slots_of_nodes(self._cluster)
        remote = server.find(load) if server else None
        if server is None or remote is None or not (server.must or self._is_better(remote, n_rows)):
            return self._slots_here()
        from edgellm.serve.remote.slots import RemoteSlots

        server.say(f"using edgellm serve {remote.where}")
        patience = PATIENCE_SECONDS if server.must else SHORT_PATIENCE_SECONDS
        return RemoteSlots(
            remote, lambda: server.find(load), n_slots=load.n_slots, patience=patience, must=server.must
        )  # fmt: skip

    def _is_better(self, remote: RemoteModel, n_rows: int) -> bool:
        """Whether a server is better than a second copy of the model: it has enough slots, or there is no room."""
        return remote.plan.n_slots >= min(self._load.n_slots, n_rows) or self._model.context(self._load) is None

    def here_instead(self, error: NotServed) -> Slots:
        """Slots of the model, loaded here after a server was lost.

        Raises:
            NotServed: this error, if the model does not fit here.
        """
        if self._server is not None:
            self._server.say(f"{error.what}{f': {error.why}' if error.why else ''}; loading the model here")
        try:
            return self._slots_here()
        except DoesNotFit as unfit:
            error.why = unfit.what
            raise error from None

    def _slots_of_nodes(self, cluster: BatchCluster) -> Slots:
        from edgellm.nodes.model_spec import ModelSpec
        from edgellm.nodes.slots import NodeSlots

        local = self._model.local
        if local is None:
            raise NotServed("the model is not on this machine")
        # Every node has the same context, or a row could be answered by one and not by another.
        n_ctx = choose_context(read_outline(local.path).n_ctx_train, self._load.n_ctx)
        load = replace(self._load, n_ctx=n_ctx)
        spec = ModelSpec.of(self._here, local, load, n_actors=cluster.n_actors, report=self._report)
        return NodeSlots(cluster.address, spec, RunPlan(n_ctx), say=cluster.say)

    def _slots_here(self) -> Slots:
        local, load = self._model.local, self._load
        if local is None:
            raise NotServed("the model is not on this machine")
        if self.is_free and load.n_ctx is not None:
            load = with_fitting_slots(local.path, load)
        return LocalSlots(self._opened.enter_context(OpenModel(self._here, local, load, report=self._report)))


def _require_nodes_can(model: _BatchModel, documents: Collection[str]) -> None:
    """Refuse what the nodes of a cluster cannot do."""
    if documents:
        hint = "--shard spreads such a batch over machines that have the documents"
        raise UsageError("documents cannot be asked on a cluster", why="they are on this machine", hint=hint)
    if model.local is not None and (kind := kind_of_file(model.local.path)) not in ("chat", "completion"):
        hint = "--shard spreads such a batch over machines"
        raise UsageError(f"{model.label} is for {kind}, and a cluster answers prompts", hint=hint)


def answer_file(
    here: Workspace,
    name: str,
    source: Path,
    output: Path,
    *,
    shard: Shard,
    load: LoadOptions,
    options: AnswerOptions,
    raw: bool = False,
    retries: int = 0,
    docs: str | None = None,
    toolsets: OpenToolSets | None = None,
    cache: AnswerCache | None = None,
    cache_sampled: bool = False,
    server: BatchServer | None = None,
    cluster: BatchCluster | None = None,
    report: Report = silent,
) -> Iterator[Tally]:
    """Answer all rows of a file in the slots of a model; killed at any moment, the same call goes on.

    `docs` names the documents to answer from, `toolsets` has the tools to call, for rows that name none. `server` may
    answer in place of a model that is loaded here. With a `cluster`, nodes answer; they have no documents and tools.

    The same tally comes after every computation and once more at the end. Nothing is loaded if all is answered already.
    With a `cache`, chats at temperature 0 are looked up and kept; with `cache_sampled` those at others too.

    Raises:
        UsageError: the output is there from another batch (other rows, another model, other options, documents that
            have changed), or is being written by another process.
        FileAccessError: the input cannot be read.
        NotServed: the server that must answer does so no more; the same call goes on.
    """
    found = survey(source, report)
    failed = already_answered(output, ids(source, shard))
    model = _model(here, name, server, load, report)
    named = (documents_named(source) if found.jsonl else set()) | ({docs} if docs else set())
    asked = begun_with(
        model.content, model.recipe, options, load, shard=shard, jsonl=found.jsonl, raw=raw, docs=docs,
        collections=OpenCollections(here).content(named), tools=toolsets.names if toolsets else (),
    )  # fmt: skip
    if cluster is not None:
        _require_nodes_can(model, named)
    n_rows = shard.rows_of(found.n_rows)
    if failed is not None:
        notes = check_finished(output, asked, model.label)
        yield Tally(n_rows, load.n_slots, resumed=n_rows, done=n_rows, failed=failed, notes=notes)
        return
    with Journal(output) as journal, ExitStack() as opened:
        # The context is chosen by the memory once; after an interruption there may be less of it, but for fewer slots.
        chosen = {"seed": options.sampling(model.recipe).seed, CONTEXT: model.context(load)}
        holding = journal.agree(asked, chosen)
        journal.resume(ids(source, shard))
        seeded = replace(options, asked={**options.asked, "seed": holding["seed"]})
        opening = _Opening(
            here, model, server, replace(load, n_ctx=holding.get(CONTEXT, load.n_ctx)), report, opened, cluster
        )
        opening.is_free = load.n_ctx is None
        toolsets = None if cluster else toolsets
        how = model.options(here, seeded, load, raw=raw, retries=retries, docs=docs, toolsets=toolsets)
        slots = opening.slots(n_rows - journal.done)
        instead = None if server is None or server.must else lambda error: Scheduler(opening.here_instead(error), how)
        scheduler = Scheduler(slots, how)
        rows = None
        if cache:
            rows = CachedRows(cache, model=model.cache_key, options=scheduler.options, sampled=cache_sampled)
        batch = Batch(source, found, shard, journal, scheduler, rows, instead)
        yield from batch.run()
        journal.finish()
    yield batch.tally
