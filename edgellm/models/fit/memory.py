"""Estimates how much memory a model needs at a given context size, from its header alone.

    need = estimate(Outline.of([gguf]), RunPlan(n_ctx=4096))
    need.total, need.kv_cache
    require_fit(need, memory.room(), name="smollm2", plan=plan)

The parts are: the weights, in the mapped file or copied for the kernels (engine/residence.py); the KV cache, tokens x
bytes per token, for every slot; the compute buffers, a few activations per token of a batch plus the attention mask;
and a slack for Python, the engine and the vocabulary. docs/explanation/memory.md has the formula and its error.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from edgellm.engine.base import CONTEXT_PADDING
from edgellm.engine.residence import Kernels, copied_nbytes, is_tied, kernels, multiplies
from edgellm.errors import ContextTooLarge, CorruptFile, DoesNotFit
from edgellm.machine.cpu import detect
from edgellm.machine.memory import Room
from edgellm.models.fit.outline import Outline, is_encoder

DEFAULT_CONTEXT = 4096
# Tokens per decode call during prefill. Small enough that a slow CPU reacts quickly to Ctrl-C and that the compute
# buffers stay small (n_vocab floats per token); large enough for the matrix kernels.
N_BATCH = 256
# Resident size of the process without a model, measured: 65 MB, plus what the libraries allocate while running.
SLACK = 71_000_000
# Memory of one token or merge in the engine's tables, measured: 46 MB for 303,000 of them.
WORD_BYTES = 152
# Rows of logits: those of a pass with drafted tokens (`run.drafts.MOST_ROWS`).
N_OUTPUTS = 16
# Activations of one token in memory at once, in multiples of (n_embd + n_ff), float32.
ACTIVATIONS = 4
# Bytes of the attention mask per pair of a token in the batch and one in the cache: a float32 and a float16.
MASK_BYTES = 6
# Other allocations while a model is loaded and run: graphs, tables, buffers of the libraries. Measured: up to 48 MB.
WORKING_SPACE = 64_000_000
# Address space that a thread takes.
STACK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How to run a model: `n_ctx` tokens for each of `n_slots` requests, with a cache of type `kv_type`.

    `n_threads` compute single tokens, `n_threads_batch` several at once (None: as many). `flash_attention` None leaves
    that to the engine.
    """

    n_ctx: int = DEFAULT_CONTEXT
    n_slots: int = 1
    kv_type: str = "F16"
    n_batch: int = N_BATCH
    n_outputs: int = N_OUTPUTS
    n_threads: int = 1
    n_threads_batch: int | None = None
    flash_attention: bool | None = None


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes by purpose. `address_space` also counts reserved memory that is never touched, for `ulimit -v`."""

    mapped: int
    copied: int
    kv_cache: int
    compute: int
    slack: int
    address_space: int = 0

    @property
    def weights(self) -> int:
        """The bytes of all weights, those in the mapped file and those copied for the kernels."""
        return self.mapped + self.copied

    @property
    def total(self) -> int:
        """All bytes that will be resident."""
        return self.weights + self.kv_cache + self.compute + self.slack

    def fits(self, room: Room) -> bool:
        """Whether this need fits in the available memory and address space."""
        return self.total <= room.available and within_address_space(self, room)


def within_address_space(need: MemoryNeed, room: Room) -> bool:
    """Whether the need stays below the limit of the address space, if there is one."""
    return room.address_space is None or need.address_space <= room.address_space


def choose_context(n_ctx_train: int, asked: int | None) -> int:
    """Return the context size: the requested one, or the least that a default is: 4096 or the training context.

    `verdict.default_context` chooses a larger default where there is memory for it.

    Raises:
        ContextTooLarge: the request exceeds the training context.
        CorruptFile: the model claims a training context of zero or less.
    """
    if n_ctx_train < 1:
        raise CorruptFile("the model file is corrupt", why=f"it claims a context of {n_ctx_train} tokens")
    if asked is None:
        return min(DEFAULT_CONTEXT, n_ctx_train)
    if asked > n_ctx_train:
        raise ContextTooLarge(
            f"a context of {asked:,} tokens is larger than the {n_ctx_train:,} the model was trained with",
            why="beyond that it produces nonsense",
            hint=f"--ctx-size {n_ctx_train}",
            asked=asked,
            n_ctx_train=n_ctx_train,
        )
    return asked


@lru_cache(maxsize=1)
def this_cpu() -> Kernels:
    """Return the engine's kernels on this machine."""
    return kernels(detect())


def estimate(outline: Outline, plan: RunPlan, use: Kernels | None = None) -> MemoryNeed:
    """Estimate what a model needs under a plan; `use` overrides this machine's kernels."""
    mapped, copied = _weights(outline, use or this_cpu())
    n_ctx = -(-plan.n_ctx // CONTEXT_PADDING) * CONTEXT_PADDING
    kv_cache = outline.cache_row(plan.kv_type) * n_ctx * plan.n_slots
    n_batch = min(plan.n_batch, n_ctx)
    activations = 4 * n_batch * ACTIVATIONS * (outline.n_embd + outline.n_ff)
    mask = 0 if is_encoder(outline.architecture) else MASK_BYTES * n_batch * n_ctx
    if plan.kv_type == "F32" or plan.flash_attention is False:  # a float32 for each pair and head
        mask += 4 * n_batch * n_ctx * outline.n_heads
    compute = activations + mask + 4 * plan.n_outputs * outline.n_vocab
    slack = SLACK + WORD_BYTES * outline.n_words
    reserved = (
        activations
        + mask
        + 4 * n_batch * outline.n_vocab
        + max(plan.n_threads, plan.n_threads_batch or 0) * STACK_BYTES
    )
    address_space = outline.n_bytes + copied + kv_cache + reserved + slack - SLACK + WORKING_SPACE
    return MemoryNeed(mapped, copied, kv_cache, compute, slack, address_space)


def _weights(outline: Outline, use: Kernels) -> tuple[int, int]:
    """Return the bytes that stay in the mapped file, and the bytes copied from it."""
    tied = is_tied([info.name for info in outline.tensors], outline.architecture)
    mapped = copied = 0
    for info in outline.tensors:
        gathered = not multiplies(info.name, tied=False)
        wanted = multiplies(info.name, tied=tied)
        copy = copied_nbytes(info.type.name, info.shape, use, gathered=gathered) if wanted else None
        copied += copy or 0
        # If the embedding is also the head, its rows are still read from the file even when the head is a copy.
        if copy is None or gathered:
            mapped += info.nbytes
    return mapped, copied


def together(first: MemoryNeed, second: MemoryNeed) -> MemoryNeed:
    """Return the need of two models loaded into one process."""
    return MemoryNeed(
        first.mapped + second.mapped,
        first.copied + second.copied,
        first.kv_cache + second.kv_cache,
        first.compute + second.compute,
        first.slack + second.slack - SLACK,
        first.address_space + second.address_space,
    )


def require_fit(
    need: MemoryNeed, room: Room, *, name: str, plan: RunPlan, hint: str = "use a smaller model, or --force"
) -> None:
    """Raise `DoesNotFit`, with the parts of the need, unless it fits; `hint` says what to do."""
    if need.fits(room):
        return
    available, total = room.available, need.total
    note = ""
    if total <= available and room.address_space is not None:
        available, total = room.address_space, need.address_space
        note = " of address space (ulimit -v)"
    raise DoesNotFit(
        f"{name} needs {gigabytes(total)}{note} at {describe(plan)}, but only {gigabytes(available)} is available",
        why=parts_of(need),
        hint=hint,
        needed=total,
        available=available,
        n_ctx=plan.n_ctx,
        n_slots=plan.n_slots,
        kv_type=plan.kv_type,
    )


def describe(plan: RunPlan) -> str:
    """Return a plan as text: `4,096 tokens`, plus anything that is not the default."""
    cache = "" if plan.kv_type == "F16" else f" with a {plan.kv_type.lower()} cache"
    return f"{plan.n_ctx:,} tokens" + (f" in each of {plan.n_slots} slots" if plan.n_slots > 1 else "") + cache


def parts_of(need: MemoryNeed) -> str:
    """Return the parts of a need as one line of text."""
    return (
        f"weights {need.weights / 1e9:.2f}, KV cache {need.kv_cache / 1e9:.2f}, compute {need.compute / 1e9:.2f}, "
        f"slack {need.slack / 1e9:.2f} GB"
    )


def gigabytes(n_bytes: int) -> str:
    """Return bytes as text for an error message."""
    return f"{n_bytes / 1e9:.2f} GB"
