"""From a model file to a session that can answer: every check that costs nothing comes before what costs much.

loaded = load(engine, path, LoadOptions(n_ctx=None), report=bar)
loaded.session.ask(...)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.base import Engine, Model
from edgellm.machine import memory
from edgellm.machine.cpu import usable_cores
from edgellm.models.fit import choose_plan, read_outline
from edgellm.models.memory import RunPlan
from edgellm.progress import Report, silent
from edgellm.run.memory_guard import MemoryGuard
from edgellm.run.session import Session


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to open a model; None stands for the default.

    `max_memory` caps this process, in bytes: context and cache type are chosen to stay below it, and an answer that
    reaches it all the same ends. `chat_template` is for a file that has none.
    """

    n_ctx: int | None = None
    n_threads: int | None = None
    system: str | None = None
    force: bool = False
    kv_type: str | None = None
    max_memory: int | None = None
    chat_template: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A session, and the seconds it took to get there."""

    session: Session
    n_threads: int
    kv_type: str
    load_seconds: float


def load(engine: Engine, path: Path, options: LoadOptions, *, report: Report = silent) -> LoadedModel:
    """Check the file and the memory, load the model, open a context.

    Raises:
        CorruptFile, UnsupportedModel: the file is no GGUF, damaged, or nothing the engine knows.
        ContextTooLarge: more context than the model was trained with.
        DoesNotFit: too little memory (unless `options.force`).
    """
    start = time.perf_counter()
    guard = MemoryGuard(options.max_memory)
    model, plan = load_weights(engine, path, options, report=report)
    try:
        guard()
        session = Session(
            model,
            plan,
            n_threads=plan.n_threads,
            system=options.system,
            guard=guard,
            chat_template=options.chat_template,
        )
    except BaseException:
        model.close()
        raise
    return LoadedModel(session, plan.n_threads, plan.kv_type, time.perf_counter() - start)


def load_weights(
    engine: Engine, path: Path, options: LoadOptions, *, n_slots: int = 1, report: Report = silent
) -> tuple[Model, RunPlan]:
    """The same without a context: the model, and the plan to run it with so many slots."""
    plan = choose_plan(
        read_outline(path), memory.room(), n_ctx=options.n_ctx, kv_type=options.kv_type,
        n_threads=options.n_threads or usable_cores(), n_slots=n_slots, max_memory=options.max_memory,
        force=options.force,
    )  # fmt: skip
    return engine.load(path, report=report), plan
