"""Searches for what computes a model fastest, one choice after the other, each from the best that was found before.

    search = TuneSearch(probe, default_tuning(), core_counts(), n_ctx=1536, seconds=60)
    search.run(); search.best, search.trials

Threads for single tokens and for prompts are chosen apart; flash attention must pay for one of them without costing the
other much. In the end everything that was chosen is compared with the default once more: that is the gain.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgellm.machine.cpu import CoreCounts
from edgellm.measure.bench.result import MARGIN
from edgellm.measure.tune.comparison import Probe, Rounds, TuneCandidate, TuneComparison, Workload, compare
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.models.local.tune_records import Goal, TuneTrial
from edgellm.progress import Progress, Report, silent
from edgellm.units import threads

# How the time is divided; most measurements take one part in so many of it.
SHARES = {"decode": 0.2, "prefill": 0.25, "flash attention": 0.3, "batches": 0.1, "all together": 0.15}
MEASUREMENTS = 80
LEAST_DECODE, MOST_DECODE = 4, 128
LEAST_PREFILL, MOST_PREFILL = 32, 512
# Flash attention is compared after so many tokens, and batches with prompts as long, if the model can read them in the
# time of a few measurements.
MOST_DEPTH, DEPTH_STEP, LONG_MEASUREMENTS = 1024, 32, 6
BATCHES = (128, 256, 512)
SMALLER_CACHE = "Q8_0"
# What the choices for a goal are.
FIELDS: dict[Goal, tuple[str, ...]] = {
    "decode": ("n_threads", "flash_attention"),
    "prefill": ("n_threads_batch", "n_batch", "flash_attention"),
}


def thread_counts(cores: CoreCounts) -> list[int]:
    """The numbers of threads to try, the smallest first."""
    counts = {1, 2, cores.fast // 2, cores.fast, cores.physical, cores.logical}
    return sorted(count for count in counts if 1 <= count <= cores.logical)


class TuneSearch:
    """A search, and what it has found: `best`, `trials`, `gains` by goal, `noise`."""

    def __init__(
        self,
        probe: Probe,
        default: Tuning,
        cores: CoreCounts,
        *,
        n_ctx: int,
        seconds: float,
        report: Report = silent,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`n_ctx` is the context of the probe in tokens; `seconds` about how long to measure."""
        self.default = self.best = default
        self.trials: list[TuneTrial] = []
        self.gains: dict[Goal, float] = {"decode": 1.0, "prefill": 1.0}
        self.noise = 0.0
        self._probe, self._cores, self._n_ctx = probe, cores, n_ctx
        self._seconds, self._report, self._clock = seconds, report, clock
        self._stage, self._before, self._shown = "", 0.0, 0.0

    def run(self) -> None:
        """Measure, and choose."""
        decode, prompt, long_prompt, depth = self._work()
        counts = thread_counts(self._cores)
        self._choose("decode", [decode], threads(self.best.n_threads), [
            (threads(each), replace(self.best, n_threads=each)) for each in counts
        ])  # fmt: skip
        self._choose("prefill", [prompt], threads(self.best.n_threads_batch), [
            (threads(each), replace(self.best, n_threads_batch=each)) for each in counts
        ])  # fmt: skip
        deep = [replace(decode, depth=depth), replace(prompt, depth=depth)]
        off = [("flash attention off", replace(self.best, flash_attention=False))]
        self._choose("flash attention", deep, "flash attention", off, information=SMALLER_CACHE)
        batches = [each for each in BATCHES if each <= long_prompt.n_tokens]
        if self.best.n_batch in batches:
            self._choose("batches", [long_prompt], f"batches of {self.best.n_batch}", [
                (f"batches of {each}", replace(self.best, n_batch=each)) for each in batches
            ])  # fmt: skip
        self._confirm({"decode": decode, "prefill": max(prompt, long_prompt, key=lambda work: work.n_tokens)}, depth)
        self._before = 1.0
        self._show("done")

    def _work(self) -> tuple[Workload, Workload, Workload, int]:
        """A short answer, a prompt, a longer prompt and a depth, by how fast the model is."""
        base = TuneCandidate("the default", self.default)
        most = min(MOST_PREFILL, self._n_ctx // 2)
        slot = self._seconds / MEASUREMENTS
        tries = {"decode": Workload("decode", LEAST_DECODE), "prefill": Workload("prefill", min(LEAST_PREFILL, most))}
        self._show("a first look")
        for work in tries.values():  # which brings everything in
            self._probe.rate(work, base, seed=0)
        decode, prefill = (self._probe.rate(work, base, seed=1) for work in tries.values())
        n_decode = round(min(max(slot * decode, LEAST_DECODE), MOST_DECODE, most))
        n_prompt = round(min(max(slot * prefill, LEAST_PREFILL), most))
        affordable = LONG_MEASUREMENTS * slot * prefill
        n_long = max([each for each in BATCHES if each <= min(most, affordable)], default=n_prompt)
        depth = int(min(affordable, MOST_DEPTH, self._n_ctx - most))
        prompt, long_prompt = Workload("prefill", n_prompt), Workload("prefill", n_long)
        return Workload("decode", n_decode), prompt, long_prompt, depth // DEPTH_STEP * DEPTH_STEP

    def _choose(
        self,
        stage: str,
        work: Sequence[Workload],
        present: str,
        tried: Sequence[tuple[str, Tuning]],
        *,
        information: str = "",
    ) -> None:
        """Compare what is best so far with something else; a cache of the type `information` is never chosen."""
        base = winner = TuneCandidate(present, self.best)
        rivals = [TuneCandidate(*each) for each in tried if each[1] != self.best]
        if rivals:
            found = self._compare(stage, base, rivals, work)
            winner = found.winner()
            self.best = winner.tuning
            self.trials += found.trials(winner)
        if information:
            base = replace(winner, tried=present)
            cache = TuneCandidate(f"cache in {information.lower()}", self.best, information)
            informed = self._compare(stage, base, [cache], work, keeps_losers=True)
            self.trials += [each for each in informed.trials(base) if each.tried == cache.tried]
        self._before += SHARES[stage]

    def _confirm(self, work: dict[Goal, Workload], depth: int) -> None:
        """Compare all choices together with the default, and take back those for a goal that does not gain by them.

        Flash attention matters after `depth` tokens, and may have been chosen for the other goal alone.
        """
        base = TuneCandidate("the default", self.default)
        while changed := [goal for goal in work if _differ(goal, self.best, self.default)]:
            rival = TuneCandidate("all together", self.best)
            flash = self.best.flash_attention != self.default.flash_attention
            parts = {goal: replace(work[goal], depth=depth if flash else 0) for goal in changed}
            found = self._compare("all together", base, [rival], [*parts.values()], keeps_losers=True)
            ratios = {goal: found.ratio(rival, part).median for goal, part in parts.items()}
            self.gains |= ratios
            lost = [goal for goal, ratio in ratios.items() if ratio < (1 - MARGIN if flash else 1)]
            if not lost:
                break
            self.gains = {"decode": 1.0, "prefill": 1.0}
            for goal in lost:
                self.best = replace(self.best, **{name: getattr(self.default, name) for name in FIELDS[goal]})

    def _compare(
        self,
        stage: str,
        base: TuneCandidate,
        rivals: Sequence[TuneCandidate],
        work: Sequence[Workload],
        *,
        keeps_losers: bool = False,
    ) -> TuneComparison:
        self._stage = stage
        self._began = self._clock()
        rounds = Rounds(SHARES[stage] * self._seconds, keeps_losers, self._clock)
        found = compare(_Watched(self._probe, self._show), base, rivals, work, rounds)
        self.noise = max(self.noise, found.noise)
        return found

    def _show(self, detail: str) -> None:
        share = SHARES.get(self._stage, 0.0)
        elapsed = self._clock() - self._began if self._stage else 0.0
        self._shown = max(self._shown, self._before + min(share, elapsed / self._seconds))
        self._report(Progress("measuring", round(100 * min(self._shown, 1.0)), 100, "%", detail))


class _Watched:
    """A probe that says what it measures."""

    def __init__(self, probe: Probe, show: Callable[[str], None]) -> None:
        self._probe, self._show = probe, show

    def rate(self, work: Workload, candidate: TuneCandidate, seed: int) -> float:
        """Show it, then measure it."""
        self._show(f"{work.goal}, {candidate.tried}")
        return self._probe.rate(work, candidate, seed)


def _differ(goal: Goal, one: Tuning, other: Tuning) -> bool:
    return any(getattr(one, name) != getattr(other, name) for name in FIELDS[goal])
