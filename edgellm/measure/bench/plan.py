"""The plan of a benchmark: contenders, tests and rounds.

plan = BenchPlan(n_prompt=512, n_gen=128, n_seqs=(1, 8), n_threads=(1, 2))
list(plan.tests(2))
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.rpc.address import Address
from edgellm.measure.bench.result import Test
from edgellm.models.fit.tuned_plan import Tuning

# Values of EDGELLM_KERNELS: our kernels switched off, or forced to a level below this machine's best.
STOCK = "stock"
LEVELS = ("scalar", "avx2", "avx-vnni", "avx512-vnni", "amx", "neon-dotprod", "neon-i8mm")
# Tokens computed at once during prefill; llama-bench's default.
N_BATCH = 512


@dataclass(frozen=True, slots=True)
class Peer:
    """Another engine's llama-bench, and extra arguments for it."""

    program: Path
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContextForm:
    """How a contender computes; None leaves it to the engine, or to the plan. `n_batch` tokens are computed at once."""

    flash_attention: bool | None = None
    kv_type: str = "F16"
    n_batch: int | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """One model file on one engine.

    `kernels` is a level to force, `STOCK`, or "" for the best one. `against` names the contender whose rates its own
    are divided by. `peer` is the program that runs it, or None for our engine. `tuning` is how the other verbs run the
    model, if they do: its flash attention holds here too. `workers` are other machines with a part of its layers.
    """

    name: str
    path: Path
    kernels: str = ""
    against: str | None = None
    peer: Peer | None = None
    tuning: Tuning | None = None
    workers: tuple[Address, ...] = ()
    n_here: int | None = None

    @property
    def form(self) -> ContextForm:
        """The form of its contexts."""
        return ContextForm(self.tuning.flash_attention if self.tuning else None)


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """For each number in `n_seqs`, that many sequences generate `n_gen` tokens after `depth` tokens; 0 skips a test."""

    n_prompt: int = 512
    n_gen: int = 128
    n_seqs: tuple[int, ...] = (1,)
    n_threads: tuple[int, ...] = (1,)
    depth: int = 0
    n_rounds: int = 5
    force: bool = False

    @property
    def n_ctx(self) -> int:
        """The context size, in tokens, that one sequence needs."""
        return self.depth + max(self.n_prompt, self.n_gen)

    @property
    def n_ctx_seq(self) -> int:
        """The context size, in tokens, that each of several sequences needs."""
        return self.depth + self.n_gen

    @property
    def n_batch(self) -> int:
        """The number of tokens computed at once."""
        return min(N_BATCH, max(self.n_ctx, *self.n_seqs))

    def tests(self, n_threads: int) -> Iterator[Test]:
        """Yield the tests for one number of threads."""
        if self.n_prompt:
            yield Test("prefill", self.n_prompt, 1, n_threads)
        if self.n_gen:
            for n_seq in self.n_seqs:
                yield Test("decode", self.n_gen, n_seq, n_threads)
