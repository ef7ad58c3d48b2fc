"""Tunes a model: loads it once in a process of its own, searches, and returns what to remember.

record = tune(path, "smollm2", TunePlace.here(stamp))
save(settings.tunings, record)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from edgellm.errors import UsageError
from edgellm.machine import memory
from edgellm.machine.child import WaitHooks, WaitInterrupted
from edgellm.machine.cpu import core_counts
from edgellm.machine.process import busy_cores
from edgellm.measure.bench.plan import BenchPlan, Contender, ContextForm
from edgellm.measure.bench.result import Test
from edgellm.measure.bench.runner import EngineRunner
from edgellm.measure.tune.comparison import TuneCandidate, Workload
from edgellm.measure.tune.search import MOST_DECODE, MOST_DEPTH, MOST_PREFILL, TuneSearch
from edgellm.models.fit.memory import RunPlan, estimate, require_fit
from edgellm.models.fit.tuned_plan import Tuning, default_tuning
from edgellm.models.fit.verdict import read_outline
from edgellm.models.local.description import kind_of_file
from edgellm.models.local.tune_records import TunePlace, TuneRecord
from edgellm.progress import UNOBSERVED, Observer, Progress
from edgellm.run.draft_costs import CONTEXT, ROWS, DraftCosts

SECONDS = 40.0
# How long to look at what other programs do.
LISTEN_SECONDS = 0.5
# Contexts that are open at once: with flash attention, without it, and with another cache.
N_CONTEXTS = 3


# What passes over several tokens cost is measured after so many, in so many rounds.
DRAFT_DEPTHS, DRAFT_ROUNDS = (32, 768), 5


class EngineProbe:
    """Measures candidates with a worker of `bench`."""

    def __init__(self, runner: EngineRunner) -> None:
        self._runner = runner

    def rate(self, work: Workload, candidate: TuneCandidate, seed: int) -> float:
        """Return the tokens per second."""
        tuning = candidate.tuning
        n_threads = tuning.n_threads if work.goal == "decode" else tuning.n_threads_batch
        form = ContextForm(tuning.flash_attention, candidate.kv_type, tuning.n_batch)
        test = Test(work.goal, work.n_tokens, 1, n_threads)
        return self._runner.measure(test, seed=seed, form=form, depth=work.depth).rate


def tune(
    path: Path, name: str, place: TunePlace, *, seconds: float = SECONDS, force: bool = False,
    watch: Observer = UNOBSERVED,
) -> TuneRecord:  # fmt: skip
    """Measure a model for about so many seconds; with `force` even if memory seems too small.

    Raises:
        UsageError: the model generates nothing.
        CorruptFile, UnsupportedModel: the file is damaged, or nothing the engine knows.
        DoesNotFit: there is too little memory.
        EngineError: the worker died or hangs.
        KeyboardInterrupt: stopped.
    """
    if (kind := kind_of_file(path)) in ("embedding", "rerank"):
        raise UsageError(f"{name} generates nothing", why=f"it is for {kind}", hint="edgellm list")
    outline = read_outline(path, name)
    default, cores = default_tuning(), core_counts()
    n_ctx = min(MOST_DEPTH + MOST_PREFILL, outline.n_ctx_train)
    n_prompt = min(MOST_PREFILL, n_ctx // 2)
    plan = BenchPlan(n_prompt, min(MOST_DECODE, n_prompt), n_threads=(default.n_threads,), depth=n_ctx - n_prompt)
    asked = RunPlan(plan.n_ctx, N_CONTEXTS, n_batch=plan.n_batch, n_threads=cores.logical, flash_attention=False)
    if not force:
        require_fit(estimate(outline, asked), memory.room(), name=name, plan=replace(asked, n_slots=1))
    status, doing = path.stat(), [Progress("loading")]

    def report(event: Progress) -> None:
        doing[0] = event
        watch.report(event)

    hooks = WaitHooks(watch.interrupted, lambda: watch.report(doing[0]))
    runner = EngineRunner(Contender(name, path, place.kernels), plan, hooks)
    search = TuneSearch(EngineProbe(runner), default, cores, n_ctx=plan.n_ctx, seconds=seconds, report=report)
    try:
        report(Progress("loading", detail=name))
        others = busy_cores(LISTEN_SECONDS)
        runner.start()
        search.run()
        report(Progress("measuring", 100, 100, "%", "passes over several tokens"))
        costs = measure_draft_costs(runner, search.best, n_ctx=plan.n_ctx)
    except WaitInterrupted:
        raise KeyboardInterrupt from None
    finally:
        runner.close()
    return TuneRecord(
        path.absolute(), status.st_size, status.st_mtime_ns, place,
        datetime.now(timezone.utc).isoformat(timespec="seconds"), search.best, default,
        search.gains["decode"], search.gains["prefill"], search.noise, others,
        tuple(search.trials), costs.table,
    )  # fmt: skip


def measure_draft_costs(runner: EngineRunner, tuning: Tuning, *, n_ctx: int) -> DraftCosts:
    """Measure what passes over several tokens cost, with little and with much in the context."""
    form = ContextForm(tuning.flash_attention, n_batch=tuning.n_batch)
    sides: list[tuple[float, ...]] = []
    depths = [min(depth, n_ctx - 2 * ROWS[-1]) for depth in DRAFT_DEPTHS]
    for depth in depths:
        seconds: dict[int, list[float]] = {rows: [] for rows in (1, *ROWS)}
        for number in range(1 + DRAFT_ROUNDS):
            for rows, found in seconds.items():
                rate = runner.measure(
                    Test("draft", rows, 1, tuning.n_threads), seed=number, form=form, depth=depth
                ).rate
                found += [rows / rate] if number else []  # the first round warms up
        one = median(seconds.pop(1))
        sides.append(tuple(median(found) / one for found in seconds.values()))
    # What attention adds grows with the context.
    factor = CONTEXT / max(depths[1], 1)
    near, far = sides
    full = tuple(empty + (later - empty) * factor for empty, later in zip(near, far, strict=True))
    return DraftCosts((_possible(near), _possible(full)))


def _possible(costs: Sequence[float]) -> tuple[float, ...]:
    """The costs without what only noise explains: several rows cost no less than fewer, and no more than singly."""
    found, least = [], 1.0
    for cost, rows in zip(costs, ROWS, strict=True):
        least = min(max(cost, least), 1.25 * rows)
        found.append(least)
    return tuple(found)
