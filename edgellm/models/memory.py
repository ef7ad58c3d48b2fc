"""How much memory a model needs at a context, from its header alone, before anything is loaded.

    need = estimate(Outline.of([gguf]), RunPlan(n_ctx=4096))
    need.total, need.kv_cache
    require_fit(need, memory.room(), name="smollm2", plan=plan)

The parts: the weights, as they lie in the mapped file or as the kernels' copies of them (engine/residence.py); the KV
cache, tokens x bytes a token, for every slot; the compute buffers, a few activations for each token of a batch and
the attention mask; and a slack for Python, the engine and the vocabulary. docs/memory.md has the formula and how far
it is from what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from edgellm.engine.base import CONTEXT_PADDING
from edgellm.engine.residence import Kernels, copied_nbytes, is_tied, kernels, multiplies
from edgellm.errors import ContextTooLarge, CorruptFile, DoesNotFit
from edgellm.machine.cpu import detect
from edgellm.machine.memory import Room
from edgellm.models.outline import Outline, is_encoder

DEFAULT_CONTEXT = 4096
# Tokens per decode call while a prompt is read. Small enough that Ctrl-C is heard soon on a slow CPU and that the
# compute buffers stay small (n_vocab floats per token); large enough for the matrix kernels.
N_BATCH = 256
# Resident size of the process without a model, measured: 60 MB, and what the libraries allocate as they work.
SLACK = 62_000_000
# One token of the vocabulary, or one merge, in the engine's tables, measured: 46 MB for 303,000 of them.
WORD_BYTES = 152
# Activations of one token alive at once, in multiples of (n_embd + n_ff), float32.
ACTIVATIONS = 4
# The attention mask, for each pair of a token in the batch and one in the cache: float32, and float16 of it.
MASK_BYTES = 6
# What else is allocated while a model is loaded and run, measured: graphs, tables, buffers of the libraries.
WORKING_SPACE = 48_000_000
# What a thread takes of the address space.
STACK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How a model is to be run: `n_ctx` tokens for each of `n_slots` requests, the cache kept in `kv_type`."""

    n_ctx: int = DEFAULT_CONTEXT
    n_slots: int = 1
    kv_type: str = "F16"
    n_batch: int = N_BATCH
    n_outputs: int = 1
    n_threads: int = 1


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes by purpose; `address_space` also counts what is reserved and never touched (`ulimit -v` limits that)."""

    mapped: int
    copied: int
    kv_cache: int
    compute: int
    slack: int
    address_space: int = 0

    @property
    def weights(self) -> int:
        """The weights: those that stay in the mapped file, and those that the kernels copy."""
        return self.mapped + self.copied

    @property
    def total(self) -> int:
        """All that will be resident."""
        return self.weights + self.kv_cache + self.compute + self.slack

    def fits(self, room: Room) -> bool:
        """Whether there is so much room."""
        return self.total <= room.available and within_address_space(self, room)


def within_address_space(need: MemoryNeed, room: Room) -> bool:
    """Whether a hard limit of the address space, if there is one, is kept."""
    return room.address_space is None or need.address_space <= room.address_space


def choose_context(n_ctx_train: int, asked: int | None) -> int:
    """The context to open: what was asked for, else 4096 or what the model was trained with, whichever is less.

    Raises:
        ContextTooLarge: more than the model was trained with.
        CorruptFile: the model says that it was trained with none.
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
    """The kernels of the engine on this machine."""
    return kernels(detect())


def estimate(outline: Outline, plan: RunPlan, use: Kernels | None = None) -> MemoryNeed:
    """What a model will need when it is run so; `use` are other kernels than this machine's."""
    mapped, copied = _weights(outline, use or this_cpu())
    n_ctx = -(-plan.n_ctx // CONTEXT_PADDING) * CONTEXT_PADDING
    kv_cache = outline.cache_row(plan.kv_type) * n_ctx * plan.n_slots
    n_batch = min(plan.n_batch, n_ctx)
    activations = 4 * n_batch * ACTIVATIONS * (outline.n_embd + outline.n_ff)
    mask = 0 if is_encoder(outline.architecture) else MASK_BYTES * n_batch * n_ctx
    compute = activations + mask + 4 * plan.n_outputs * outline.n_vocab
    slack = SLACK + WORD_BYTES * outline.n_words
    reserved = activations + mask + 4 * n_batch * outline.n_vocab + plan.n_threads * STACK_BYTES
    address_space = outline.n_bytes + copied + kv_cache + reserved + slack - SLACK + WORKING_SPACE
    return MemoryNeed(mapped, copied, kv_cache, compute, slack, address_space)


def _weights(outline: Outline, use: Kernels) -> tuple[int, int]:
    """Bytes that stay in the mapped file, and bytes that are copied out of it."""
    tied = is_tied([info.name for info in outline.tensors], outline.architecture)
    mapped = copied = 0
    for info in outline.tensors:
        copy = copied_nbytes(info.type.name, info.shape, use) if multiplies(info.name, tied=tied) else None
        copied += copy or 0
        # An embedding that is the head as well is read as it lies, for its rows, even when the head is a copy.
        if copy is None or not multiplies(info.name, tied=False):
            mapped += info.nbytes
    return mapped, copied


def together(first: MemoryNeed, second: MemoryNeed) -> MemoryNeed:
    """What two models need that are loaded into one process."""
    return MemoryNeed(
        first.mapped + second.mapped,
        first.copied + second.copied,
        first.kv_cache + second.kv_cache,
        first.compute + second.compute,
        first.slack + second.slack - SLACK,
        first.address_space + second.address_space,
    )


def require_fit(
    need: MemoryNeed, room: Room, *, name: str, plan: RunPlan, hint: str = "a smaller model, or the same with --force"
) -> None:
    """Raise `DoesNotFit` with the parts unless `need` fits; `hint` is what to do then."""
    if need.fits(room):
        return
    available, total = room.available, need.total
    note = ""
    if total <= available and room.address_space is not None:
        available, total = room.address_space, need.address_space
        note = " of address space (ulimit -v)"
    raise DoesNotFit(
        f"{name} needs {gigabytes(total)}{note} at {describe(plan)}, {gigabytes(available)} is available",
        why=parts_of(need),
        hint=hint,
        needed=total,
        available=available,
        n_ctx=plan.n_ctx,
        n_slots=plan.n_slots,
        kv_type=plan.kv_type,
    )


def describe(plan: RunPlan) -> str:
    """`4,096 tokens`, and what is not the default of the rest."""
    cache = "" if plan.kv_type == "F16" else f" with a {plan.kv_type.lower()} cache"
    return f"{plan.n_ctx:,} tokens" + (f" in each of {plan.n_slots} slots" if plan.n_slots > 1 else "") + cache


def parts_of(need: MemoryNeed) -> str:
    """The parts in one line."""
    return (
        f"weights {need.weights / 1e9:.2f}, KV cache {need.kv_cache / 1e9:.2f}, compute {need.compute / 1e9:.2f}, "
        f"slack {need.slack / 1e9:.2f} GB"
    )


def gigabytes(n_bytes: int) -> str:
    """Bytes as errors tell them."""
    return f"{n_bytes / 1e9:.2f} GB"
