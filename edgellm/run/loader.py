"""A model in memory: its weights, the plan to run them, and the context in which its answers are computed.

    model = LoadedModel("smollm2", *load_weights(engine, path, LoadOptions(n_ctx=2048)))
    model.context.n_ctx
    model.close()

Every check that costs nothing comes before what costs much. There is one context for all answers, so that memory stays
what was estimated; conversations that take turns in it compute again what they do not have in common.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from edgellm.engine.adapters import Adapter
from edgellm.engine.base import Context, Embedder, Engine, Model, ModelInfo, Ranker
from edgellm.errors import DoesNotFit, EdgellmError, UnsupportedModel, UsageError
from edgellm.machine import memory
from edgellm.machine.cpu import usable_cores
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import RunPlan, estimate, require_fit
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.models.fit.verdict import choose_plan, largest_context, read_outline
from edgellm.progress import Report, silent
from edgellm.run.memory_guard import MemoryGuard
from edgellm.run.speculation import Speculation
from edgellm.units import count, threads

if TYPE_CHECKING:
    from edgellm.engine.rpc.address import Address
    from edgellm.models.local.prompt_files import PromptFiles
    from edgellm.models.recipe import Recipe
    from edgellm.run.prompt_cache import PromptCache
    from edgellm.run.session import Session
    from edgellm.run.telemetry import Stats

# Texts that are turned into vectors in one computation.
EMBEDDED_TOGETHER = 64


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to open a model; None stands for the default.

    `max_memory` caps this process, in bytes: context and cache type are chosen to stay below it, and an answer that
    reaches it all the same ends. `held` is what the process holds for other things, which the cap does not count.
    `force` skips the check whether the model fits. `n_slots` is how many answers are computed at once, each with a
    context of its own. `prompt_cache` is how many bytes of prompts may be kept on disk: 0 for none, None for the
    default. `tuning` is what runs it fastest, which is looked up unless `use_tuning` is false; `n_threads`
    takes the place of its threads. `draft`: compute drafted tokens too, which changes no answer. `adapters` change the
    answers. `workers` are other machines that hold a part of the layers; `n_here` are here, if somebody asks for that.
    """

    n_ctx: int | None = None
    n_threads: int | None = None
    kv_type: str | None = None
    max_memory: int | None = None
    system: str | None = None
    force: bool = False
    n_slots: int = 1
    held: int = 0
    use_tuning: bool = True
    tuning: Tuning | None = None
    prompt_cache: int | None = 0
    draft: bool = True
    adapters: tuple[Adapter, ...] = ()
    workers: tuple[Address, ...] = ()
    n_here: int | None = None

    @property
    def tuned(self) -> Tuning | None:
        """The tuning with the threads that were asked for."""
        return self.tuning.with_threads(self.n_threads) if self.tuning else None


class Closable(Protocol):
    """What holds memory of the engine."""

    def close(self) -> None:
        """Give it back."""


Opened = TypeVar("Opened", bound=Closable)


class LoadedModel:
    """One model in memory. `info` is what it says of itself, `plan` how it runs, `recipe` its recipe if it has one.

    One answer is computed at a time: another thread waits for its end, the same thread gets a `UsageError`.
    """

    def __init__(
        self,
        name: str,
        weights: Model,
        plan: RunPlan,
        *,
        options: LoadOptions | None = None,
        recipe: Recipe | None = None,
        load_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.info: ModelInfo = weights.info
        self.plan = plan
        self.options = options or LoadOptions()
        self.recipe = recipe
        self.load_seconds = load_seconds
        self.last_stats: Stats | None = None
        # The files of the prompt cache, and what their keys say of the model; none unless somebody sets them.
        self.prompt_files: PromptFiles | None = None
        self.prompt_key: Callable[[RunPlan, int], str] = lambda *_: ""
        self._prompts: PromptCache | None = None
        # None computes an answer's tokens one by one.
        self.speculation: Speculation | None = None
        self._weights: Model | None = weights
        self._context: Context | None = None
        self._embedder: Embedder | None = None
        self._ranker: Ranker | None = None
        self._open: list[Closable] = []
        self._guard = MemoryGuard(self.options.max_memory, held=self.options.held)
        self._lock, self._opening = threading.Lock(), threading.Lock()
        self._busy_thread: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was not closed."""
        return self._weights is not None

    @property
    def weights(self) -> Model:
        """The engine's model: vocabulary and tensors.

        Raises:
            UsageError: the model is closed.
        """
        if self._weights is None:
            raise UsageError(f"the model {self.name} is closed", hint="edgellm.open() opens it again")
        return self._weights

    @property
    def context(self) -> Context:
        """The context of its answers, opened on first use.

        Raises:
            DoesNotFit: there is not enough memory for it.
            UnsupportedModel: it is an embedding model.
        """
        if self.info.ranks:
            why = "it says how well texts answer a question, and predicts no tokens"
            raise UnsupportedModel(f"{self.name} is a reranker", why=why)
        if self.info.pooled:
            why = "it turns texts into vectors and predicts no tokens"
            raise UnsupportedModel(f"{self.name} is an embedding model", why=why)
        with self._opening:
            weights, plan, start = self.weights, self.plan, time.perf_counter()
            if self._context is None:
                self._guard()
                self._context = weights.open_context(
                    n_ctx=plan.n_ctx, n_batch=min(plan.n_batch, plan.n_ctx), n_threads=plan.n_threads,
                    n_threads_batch=plan.n_threads_batch, type_k=plan.kv_type, type_v=plan.kv_type,
                    flash_attention=plan.flash_attention,
                )  # fmt: skip
                self._open.append(self._context)
                self.load_seconds += time.perf_counter() - start
            return self._context

    @property
    def prompts(self) -> PromptCache | None:
        """What takes prompts of its context from disk and keeps them there; None if nothing is kept."""
        if self._prompts is None:
            self._prompts = self.open_prompts(self.plan, 1)
        return self._prompts

    def open_prompts(self, plan: RunPlan, n_seq: int) -> PromptCache | None:
        """The same for the sequences of another context."""
        if self.prompt_files is None:
            return None
        from edgellm.run.prompt_cache import PromptCache

        row = read_outline(self.info.path).cache_row(plan.kv_type)
        return PromptCache(
            self.prompt_files, self.prompt_key(plan, n_seq), bytes_per_token=row, whole=self.info.recurrent,
            room=self._room_left,
        )  # fmt: skip

    def _room_left(self) -> int:
        """The memory that may still be taken for a moment."""
        options = self.options
        left = memory.available()
        return left if options.max_memory is None else min(left, options.max_memory + options.held - memory.resident())

    @property
    def embedder(self) -> Embedder:
        """What computes vectors of texts, opened on first use.

        Raises:
            UnsupportedModel: it is not an embedding model.
        """
        weights = self.weights
        if self._embedder is None:
            plan = self.plan
            self._embedder = weights.open_embedder(n_seq=EMBEDDED_TOGETHER, n_ctx=plan.n_ctx, n_threads=plan.n_threads)
            self._open.append(self._embedder)
        return self._embedder

    @property
    def ranker(self) -> Ranker:
        """What scores pairs of a question and a text, opened on first use.

        Raises:
            UnsupportedModel: it is not a reranker.
        """
        weights = self.weights
        if self._ranker is None:
            self._ranker = weights.open_ranker(n_ctx=self.plan.n_ctx, n_threads=self.plan.n_threads)
            self._open.append(self._ranker)
        return self._ranker

    def open_session(self, *, private: bool = False) -> Session:
        """A session of its own for a chat; nothing of a private one is kept on disk.

        Raises:
            UnsupportedModel: it has no chat template, or a broken one.
        """
        from edgellm.run.session import Session

        session = Session(self, private=private, in_chat=True)
        _ = session.template
        return session

    def plan_slots(self, n_slots: int) -> RunPlan:
        """The plan to answer so many requests at once, each with a context of its own.

        It is as long as the model's if somebody asked for that; otherwise what there is memory for.

        Raises:
            DoesNotFit: there is not enough memory for it (unless the model was opened with `force`).
        """
        plan, options = self.plan, self.options
        if n_slots <= plan.n_slots:
            return replace(plan, n_slots=n_slots)
        self._require_whole("more slots")
        return choose_plan(
            read_outline(self.info.path), self._room(context=False), n_ctx=options.n_ctx, kv_type=plan.kv_type,
            n_threads=plan.n_threads, n_slots=n_slots, max_memory=options.max_memory, force=options.force,
            tuning=options.tuned,
        )  # fmt: skip

    def largest_context(self) -> int:
        """The largest context that there is memory for, at most what the model was trained with."""
        if self.options.workers:
            return self.plan.n_ctx
        room = self._room(context=self._context is not None)
        if self.options.max_memory is not None:
            room = replace(room, available=min(room.available, self.options.max_memory))
        return largest_context(read_outline(self.info.path), self.plan, room)

    def resize(self, n_ctx: int) -> None:
        """Give its answers a context of so many tokens. What the old one held is computed again when it is needed.

        Raises:
            ContextTooLarge: more than the model was trained with.
            DoesNotFit: there is not enough memory for it (unless the model was opened with `force`).
            UsageError: this thread has not finished an answer, or the model is closed.
        """
        self._require_whole("another context")
        with self.computing():
            before, room = self.plan, self._room(context=self._context is not None)
            wanted = choose_plan(
                read_outline(self.info.path), room, n_ctx=n_ctx, kv_type=before.kv_type, n_threads=before.n_threads,
                n_slots=before.n_slots, max_memory=self.options.max_memory, force=self.options.force,
                tuning=self.options.tuned,
            )  # fmt: skip
            self._close_context()
            self.plan = wanted
            try:
                _ = self.context
            except EdgellmError:
                self.plan = before
                raise
            self.options = replace(self.options, n_ctx=n_ctx)

    def _require_whole(self, what: str) -> None:
        """Raise UsageError if a part of the model is on workers, whose memory was planned for what it does now."""
        if self.options.workers:
            raise UsageError(f"a model on workers cannot be given {what}", hint="open it again with --ctx-size")

    def _settle_prompts(self) -> None:
        if self._prompts is not None:
            self._prompts.settle()
            self._prompts = None

    def _close_context(self) -> None:
        self._settle_prompts()
        if self._context is not None:
            self._open.remove(self._context)
            self._context.close()
            self._context = None

    def require_outputs(self, n_outputs: int) -> None:
        """Raise `DoesNotFit` unless there is memory for the logits of so many tokens (not if opened with `force`)."""
        if self.options.force or self.options.workers:
            return
        plan = replace(self.plan, n_outputs=n_outputs)
        outline, room = read_outline(self.info.path), self._room(context=self._context is not None)
        require_fit(estimate(outline, plan), room, name=outline.name, plan=plan)

    def _room(self, *, context: bool) -> Room:
        """What memory there would be if these weights, and the context too, were not there yet."""
        room, need = memory.room(), estimate(read_outline(self.info.path), self.plan)
        # Pages of files count as available anyway.
        held = max(0, need.copied - self.info.n_shared) + need.slack + (need.kv_cache + need.compute if context else 0)
        space = None if room.address_space is None else room.address_space + need.address_space
        return Room(room.available + held, space)

    @property
    def threads(self) -> str:
        """With how many threads it computes, and whatever else `tune` has chosen, in words."""
        plan = self.plan
        n_threads_batch = plan.n_threads_batch or plan.n_threads
        if self.options.tuning is None:
            return threads(plan.n_threads)
        return f"{Tuning(plan.n_threads, n_threads_batch, plan.n_batch, plan.flash_attention)} (tuned)"

    @property
    def about(self) -> str:
        """Its size and type, in words."""
        return f"{count(self.info.n_params)} {self.info.quant}"

    @property
    def place(self) -> str:
        """Its file."""
        return str(self.info.path)

    @property
    def server(self) -> None:
        """No server: it is in this process."""
        return

    @property
    def system(self) -> str | None:
        """The system message of new conversations: what was asked for, else the recipe's."""
        return choose_system(self.options, self.recipe)

    @property
    def chat_template(self) -> str:
        """The Jinja source of its chat template, the recipe's where the file has none; empty if there is none."""
        return self.info.chat_template or (self.recipe.chat_template if self.recipe else None) or ""

    def guard(self) -> None:
        """Call this between computations.

        Raises:
            DoesNotFit: the memory is used up.
            UsageError: the model was closed meanwhile.
        """
        _ = self.weights
        self._guard()

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Have the model for one answer.

        Raises:
            UsageError: this thread has not finished another one, or the model is closed.
        """
        if self._busy_thread == threading.get_ident():
            why = "a stream has not been read to its end"
            raise UsageError(f"{self.name} is in the middle of another answer", why=why, hint="read it, or close() it")
        with self._lock:
            _ = self.weights
            self._busy_thread = threading.get_ident()
            try:
                yield
            finally:
                self._busy_thread = None

    @contextmanager
    def holding(self, opened: Opened) -> Iterator[Opened]:
        """Close something of the engine at the end of a block, or with the model if that comes first."""
        self._open.append(opened)
        try:
            yield opened
        finally:
            if opened in self._open:
                self._open.remove(opened)
                opened.close()

    def answered(self, stats: Stats) -> None:
        """Note the numbers of an answer."""
        self.last_stats = stats

    def close(self) -> None:
        """Give the memory back; an answer of another thread is waited for. Closing twice does nothing."""
        # A stream that this thread left half-read holds the lock, and notices at its next token.
        mine = self._busy_thread == threading.get_ident()
        with nullcontext() if mine else self._lock:
            self._settle_prompts()
            while self._open:
                self._open.pop().close()
            if self._weights is not None:
                self._weights.close()
            self._weights = self._context = self._embedder = self._ranker = None

    def reopen(self, load: Callable[[], tuple[Model, RunPlan]]) -> None:
        """Take the weights into memory again after `close`."""
        self._weights, self.plan = load()


def choose_system(options: LoadOptions, recipe: Recipe | None) -> str | None:
    """The system message of a model: what was asked for, else the recipe's; None leaves it to the chat template."""
    if options.system is not None:
        return options.system
    return recipe.system if recipe else None


def load_weights(engine: Engine, path: Path, options: LoadOptions, *, report: Report = silent) -> tuple[Model, RunPlan]:
    """Check the file and the memory, then load the weights; no context is opened yet.

    Raises:
        CorruptFile, UnsupportedModel: the file is no GGUF, damaged, or nothing the engine knows.
        ContextTooLarge: more context than the model was trained with.
        DoesNotFit: too little memory (unless `options.force`).
    """
    if options.workers:
        return _load_split(engine, path, options, report=report)
    plan = plan_weights(path, options)
    model = engine.load(path, report=report)
    if options.adapters:
        try:
            model.use_adapters(options.adapters)
        except BaseException:
            model.close()
            raise
    return model, plan


def _load_split(engine: Engine, path: Path, options: LoadOptions, *, report: Report) -> tuple[Model, RunPlan]:
    """Load a model with a part of its layers on workers.

    Raises:
        WorkerLost, WorkerRefused: a worker cannot be used.
        DoesNotFit: too little memory on all machines together.
    """
    from edgellm.engine.rpc.hello import require_all
    from edgellm.models.fit.split_plan import split_plan

    plan, split = split_plan(
        read_outline(path), memory.room(), require_all(options.workers), n_ctx=options.n_ctx, kv_type=options.kv_type,
        n_threads=options.n_threads or usable_cores(), n_slots=options.n_slots, max_memory=options.max_memory,
        force=options.force, n_here=options.n_here,
    )  # fmt: skip
    return engine.load(path, report=report, split=split if split.workers else None), plan


def plan_weights(path: Path, options: LoadOptions) -> RunPlan:
    """The plan by which a model would be loaded, from its header; the errors are those of `load_weights`."""
    return choose_plan(
        read_outline(path), memory.room(), n_ctx=options.n_ctx, kv_type=options.kv_type,
        n_threads=options.n_threads or usable_cores(), n_slots=options.n_slots, max_memory=options.max_memory,
        force=options.force, tuning=options.tuned,
    )  # fmt: skip


def with_fitting_slots(path: Path, options: LoadOptions) -> LoadOptions:
    """The same options with as many slots as there is memory for, where their contexts are as they must be.

    Raises:
        DoesNotFit: not even one fits.
    """
    while True:
        try:
            plan_weights(path, options)
        except DoesNotFit:
            if options.n_slots == 1:
                raise
            options = replace(options, n_slots=options.n_slots // 2)
        else:
            return options
