"""From a model file to a session that can answer: every check that costs nothing comes before what costs much.

loaded = load(engine, path, LoadOptions(n_ctx=None), report=bar)
loaded.session.ask(...)
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.base import Engine
from edgellm.formats.gguf_file import GGUFFile
from edgellm.machine import memory
from edgellm.machine.cpu import usable_cores
from edgellm.models.memory import choose_context, estimate, require_fit
from edgellm.progress import Report, silent
from edgellm.run.session import Session

# Tokens per decode call while a prompt is read. Small enough that Ctrl-C is heard soon on a slow CPU and that the
# compute buffers stay small (n_vocab floats per token); large enough for the matrix kernels.
N_BATCH = 256


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to open a model; None stands for the default. `chat_template` is for a file that has none."""

    n_ctx: int | None = None
    n_threads: int | None = None
    system: str | None = None
    force: bool = False
    chat_template: str | None = None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A session, and the seconds it took to get there."""

    session: Session
    n_threads: int
    load_seconds: float


def load(engine: Engine, path: Path, options: LoadOptions, *, report: Report = silent) -> LoadedModel:
    """Check the file and the memory, load the model, open a context.

    Raises:
        CorruptFile, UnsupportedModel: the file is no GGUF, damaged, or nothing the engine knows.
        ContextTooLarge: more context than the model was trained with.
        DoesNotFit: too little memory (unless `options.force`).
    """
    with GGUFFile.open(path) as gguf:
        n_ctx = choose_context(gguf.get_int(gguf.key("context_length")), options.n_ctx)
        need = estimate(gguf, n_ctx=n_ctx, n_batch=min(N_BATCH, n_ctx))
    if not options.force:
        require_fit(need, memory.available(), name=path.name, n_ctx=n_ctx)
    n_threads = options.n_threads or usable_cores()
    start = time.perf_counter()
    model = engine.load(path, report=report)
    session = Session(
        model,
        n_ctx=n_ctx,
        n_batch=min(N_BATCH, n_ctx),
        n_threads=n_threads,
        system=options.system,
        chat_template=options.chat_template,
    )
    return LoadedModel(session, n_threads, time.perf_counter() - start)
