"""Judges whether a model fits, and finds what would fit instead; `fit`, `pull`, `run` and `chat` share it.

    fit = judge(read_outline(path), RunPlan(n_ctx=131072), memory.room())
    fit.fits, fit.need.kv_cache, fit.alternatives

This loads and downloads no model: an outline comes from a header, a config.json or a recipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from edgellm.engine.base import CONTEXT_PADDING
from edgellm.errors import CorruptFile, DoesNotFit, UnsupportedModel
from edgellm.files import identity
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_header import HeaderIncomplete
from edgellm.formats.gguf_split import part_paths
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import (
    DEFAULT_CONTEXT,
    MemoryNeed,
    RunPlan,
    choose_context,
    estimate,
    require_fit,
    within_address_space,
)
from edgellm.models.fit.outline import Outline, cache_type
from edgellm.models.fit.tuned_plan import Tuning, tuned_plan

# A header is read over the network in steps of this size; today's headers have 1 to 16 MB.
HEADER_STEP = 1 << 20
# The cache types to offer, or to choose under a memory cap, when the requested one is too large.
SMALLER_CACHE = "Q8_0"
LEAST_CONTEXT = 512
# The part of the available memory that the cache and the buffers of a default context may take.
CONTEXT_SHARE = 4
# The most that they may take for each slot: the engine clears its cache when it opens one, and that takes time (2 s of
# CPU time for each GB, measured in a virtual machine).
MOST_CLEARED = 2 << 30
MOST_MODELS, MOST_OF_ONE_MODEL = 5, 2


class Ranges(Protocol):
    """Reads parts of a remote file."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something that fits: the same model with other `options`, or another `model`."""

    what: str
    options: str
    total: int
    model: str | None = None


@dataclass(frozen=True, slots=True)
class MachineShare:
    """What one of several machines would hold: `here` or a worker's address, its layers, and bytes."""

    machine: str
    n_layers: int
    kv_cache: int
    total: int
    available: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict; sizes are in bytes. The need was compared with `available` and, if limited, with `address_space`.

    `largest_context` is the largest context that fits with the requested options (0: none does). `tuning` is what
    `edgellm tune` found for the model; null if it was not run. `packed` bytes of `need.copied` are not copied but
    mapped from a packed file, which processes share. `prompts` is how many bytes the prompts of the model that are kept
    take on disk. `machines` hold the layers of a model on workers, this one first, and are empty otherwise:
    `available` is then what all of them have together, and `need` is what one alone would need.
    """

    model: str
    architecture: str
    quant: str
    n_params: int
    n_bytes: int
    n_ctx: int
    n_ctx_train: int
    n_slots: int
    kv_type: str
    kv_bytes_per_token: int
    need: MemoryNeed
    available: int
    address_space: int | None
    fits: bool
    largest_context: int
    alternatives: tuple[Alternative, ...]
    tuning: Tuning | None = None
    packed: int = 0
    prompts: int = 0
    machines: tuple[MachineShare, ...] = ()


def read_outline(path: Path, name: str = "") -> Outline:
    """Read the outline of a model on this machine, including all parts of a split one.

    It is remembered while the files are the same: to read it beside the loaded model would map them a second time,
    which a limit of the address space may not permit.
    """
    parts = tuple(part_paths(path))
    try:
        states = tuple(map(identity, parts))
    except OSError:
        states = ()  # opening it says what is wrong
    return _outline(parts, name, states)


@lru_cache(maxsize=8)
def _outline(parts: tuple[Path, ...], name: str, states: tuple[tuple[str, int, int], ...]) -> Outline:
    with ExitStack() as stack:
        return Outline.of([stack.enter_context(GGUFFile.open(part)) for part in parts], name)


def read_remote_outline(parts: Iterable[tuple[str, Ranges]], name: str = "") -> Outline:
    """Read the outline of a remote model from named ranges of its files; only their headers are read."""
    return Outline.of([read_header(ranges, part) for part, ranges in parts], name)


def read_header(ranges: Ranges, name: str) -> GGUFFile:
    """Read the header of a remote GGUF file, in as few steps as possible."""
    data = b""
    while True:
        # The length of a header is unknown until its end, but the error says how much is missing at least.
        try:
            return GGUFFile.of_prefix(data, file_size=ranges.size, name=name)
        except HeaderIncomplete as error:
            wanted = max(error.needed - len(data), HEADER_STEP)
            more = ranges.read(len(data), wanted)
            if not more:
                why = f"it ends after {len(data):,} bytes, inside its header"
                raise CorruptFile(f"{name} is corrupt", why=why) from None
            data += more


def judge(outline: Outline, plan: RunPlan, room: Room, others: Iterable[Outline] = ()) -> Fit:
    """Estimate the need, compare it, and find alternatives if it does not fit; `others` are other models to offer.

    Raises:
        ContextTooLarge: the context exceeds the model's training context.
        UnsupportedModel: the model's heads are not whole blocks of the cache type.
    """
    choose_context(outline.n_ctx_train, plan.n_ctx)
    check_cache(outline, plan.kv_type)
    need = estimate(outline, plan)
    fits = need.fits(room)
    return Fit(
        model=outline.name,
        architecture=outline.architecture,
        quant=outline.quant,
        n_params=outline.n_params,
        n_bytes=outline.n_bytes,
        n_ctx=plan.n_ctx,
        n_ctx_train=outline.n_ctx_train,
        n_slots=plan.n_slots,
        kv_type=plan.kv_type,
        kv_bytes_per_token=outline.cache_row(plan.kv_type),
        need=need,
        available=room.available,
        address_space=room.address_space,
        fits=fits,
        largest_context=largest_context(outline, plan, room),
        alternatives=() if fits else (*_other_ways(outline, plan, room), *_other_models(outline, others, plan, room)),
    )


def largest_context(outline: Outline, plan: RunPlan, room: Room) -> int:
    """Return the largest context that fits, up to the training context; 0 when not even a small one does."""
    return _largest(outline.n_ctx_train, lambda n_ctx: estimate(outline, replace(plan, n_ctx=n_ctx)).fits(room))


def _largest(most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest context up to `most` that fits, to the padding of the engine; 0 if none does."""
    low, high = 0, -(-most // CONTEXT_PADDING)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle * CONTEXT_PADDING):
            low = middle
        else:
            high = middle - 1
    return min(low * CONTEXT_PADDING, most)


def default_context(outline: Outline, plan: RunPlan, room: Room) -> int:
    """Return the context of each slot when nobody asks for one; the context of `plan` does not matter.

    It is what the model was trained with, if its cache and buffers, in all slots together, stay below a quarter of the
    available memory. Otherwise it is the largest round number that does, but at least 4,096: whether that fits is the
    verdict's business. Round numbers keep the choice the same from run to run, although the available memory is not.
    A model of vectors computes a text at once, so for it 4,096 is the most.
    """
    least = choose_context(outline.n_ctx_train, None)
    most = min(outline.n_ctx_train, outline.n_ctx_original or outline.n_ctx_train)
    if outline.pooled or most <= least:
        return least
    share = min(room.available // CONTEXT_SHARE, MOST_CLEARED * plan.n_slots)

    def fits(n_ctx: int) -> bool:
        need = estimate(outline, replace(plan, n_ctx=n_ctx))
        return need.kv_cache + need.compute <= share and need.fits(room)

    if fits(most):
        return most
    return max(least, _round(_largest(most, fits)))


def choose_plan(
    outline: Outline,
    room: Room,
    *,
    n_ctx: int | None,
    kv_type: str | None,
    n_threads: int,
    n_slots: int = 1,
    max_memory: int | None = None,
    force: bool = False,
    tuning: Tuning | None = None,
) -> RunPlan:
    """Return the plan to run a model. With `max_memory`, options that were not requested are chosen to fit.

    A `tuning` takes the place of `n_threads`; it changes neither the context nor whether the model fits.

    Raises:
        ContextTooLarge, UnsupportedModel: as in `judge`.
        DoesNotFit: it does not fit; the error has the numbers and what would fit. `force` overrides the estimate,
            but not a limit of the address space, where the engine would abort.
    """
    if max_memory is not None:
        room = replace(room, available=min(room.available, max_memory))
    wanted = default_plan(outline, room, n_ctx=n_ctx, kv_type=kv_type, n_threads=n_threads, n_slots=n_slots)
    check_cache(outline, wanted.kv_type)
    if max_memory is not None:
        for plan in _smaller_plans(outline, wanted, free_context=n_ctx is None, free_cache=kv_type is None):
            if estimate(outline, plan).fits(room):
                return tuned_plan(plan, tuning, outline, room)
    if not force or not within_address_space(estimate(outline, wanted), room):
        refuse_unless_fitting(judge(outline, wanted, room))
    return tuned_plan(wanted, tuning, outline, room)


def default_plan(
    outline: Outline, room: Room, *, n_ctx: int | None, kv_type: str | None, n_threads: int = 1, n_slots: int = 1
) -> RunPlan:
    """Return the plan that the options mean, whether it fits or not; None stands for the default.

    Raises:
        ContextTooLarge, UsageError: the context exceeds the training context, or there is no such cache type.
    """
    kind = cache_type(kv_type or "F16").name
    plan = RunPlan(choose_context(outline.n_ctx_train, n_ctx), n_slots, kind, n_threads=n_threads)
    return plan if n_ctx is not None else replace(plan, n_ctx=default_context(outline, plan, room))


def refuse_unless_fitting(fit: Fit) -> None:
    """Raise `DoesNotFit`, with the parts and what would fit instead, unless it fits."""
    first = fit.alternatives[0] if fit.alternatives else Alternative("", "", 0)
    hint = f"edgellm pull {first.model}" if first.model else f"the same with {first.options}"
    hint = f"{hint if fit.alternatives else 'use a smaller model'}, or --force"
    plan = RunPlan(fit.n_ctx, fit.n_slots, fit.kv_type)
    try:
        require_fit(fit.need, Room(fit.available, fit.address_space), name=fit.model, plan=plan, hint=hint)
    except DoesNotFit as error:
        offers = [f"\n  fits instead: {each.what}, {each.total / 1e9:.2f} GB" for each in fit.alternatives[:3]]
        error.why += "".join(offers)
        raise


def _smaller_plans(outline: Outline, wanted: RunPlan, *, free_context: bool, free_cache: bool) -> Iterable[RunPlan]:
    """Yield the requested plan, then smaller ones: a smaller cache, which costs almost nothing, before less context."""
    caches = [wanted.kv_type]
    if free_cache and outline.allows(SMALLER_CACHE):
        caches.append(SMALLER_CACHE)
    n_ctx = wanted.n_ctx
    while True:
        for kv_type in caches:
            yield replace(wanted, n_ctx=n_ctx, kv_type=kv_type)
        if not free_context or n_ctx <= LEAST_CONTEXT:
            return
        n_ctx = max(LEAST_CONTEXT, n_ctx // 2)


def _other_ways(outline: Outline, plan: RunPlan, room: Room) -> Iterable[Alternative]:
    caches = [plan.kv_type]
    smaller = outline.cache_row(SMALLER_CACHE) < outline.cache_row(plan.kv_type)
    if smaller and outline.allows(SMALLER_CACHE):
        caches.append(SMALLER_CACHE)
    for kv_type in reversed(caches):
        changed = replace(plan, kv_type=kv_type)
        n_ctx = _round(min(largest_context(outline, changed, room), plan.n_ctx))
        if n_ctx < min(LEAST_CONTEXT, plan.n_ctx):
            continue
        changed = replace(changed, n_ctx=n_ctx)
        options = [f"--kv {kv_type.lower()}"] * (kv_type != plan.kv_type) + [f"-c {n_ctx}"] * (n_ctx != plan.n_ctx)
        what = [f"a {kv_type.lower()} cache"] * (kv_type != plan.kv_type) + [f"{n_ctx:,} tokens"]
        yield Alternative(" with ".join(reversed(what)), " ".join(options), estimate(outline, changed).total)
    if plan.n_slots > 1 and estimate(outline, replace(plan, n_slots=1)).fits(room):
        one = estimate(outline, replace(plan, n_slots=1))
        yield Alternative("one slot", "--slots 1", one.total)


def _other_models(outline: Outline, others: Iterable[Outline], plan: RunPlan, room: Room) -> Iterable[Alternative]:
    """Yield the models that fit at the same context or their default, in order; few quantizations of each."""
    offered: Counter[str] = Counter()
    for other in others:
        name = other.name.partition(":")[0]
        if name == outline.name.partition(":")[0] and other.n_bytes >= outline.n_bytes:
            continue
        if offered[name] == MOST_OF_ONE_MODEL or offered.total() == MOST_MODELS:
            continue
        n_ctx = min(plan.n_ctx, other.n_ctx_train, DEFAULT_CONTEXT)
        kv_type = plan.kv_type if other.allows(plan.kv_type) else "F16"
        need = estimate(other, replace(plan, n_ctx=n_ctx, kv_type=kv_type))
        if need.fits(room):
            quant = "" if ":" in other.name else f" {other.quant}"
            what = f"{other.name}{quant} with {n_ctx:,} tokens"
            offered[name] += 1
            yield Alternative(what, f"-c {n_ctx}", need.total, other.name)


def _round(n_ctx: int) -> int:
    """Round down to a power of two, or to one and a half times one, as people would type it."""
    if n_ctx < LEAST_CONTEXT:
        return n_ctx
    power = 1 << (n_ctx.bit_length() - 1)
    return power * 3 // 2 if n_ctx >= power * 3 // 2 else power


def check_cache(outline: Outline, kind: str) -> None:
    """Raise UnsupportedModel if the model's heads are not whole blocks of a cache type."""
    if not outline.allows(kind):
        raise UnsupportedModel(
            f"{outline.name} cannot keep its KV cache in {kind.lower()}",
            why=f"a head has {outline.head_size} numbers, not a multiple of {cache_type(kind).block_size}",
            hint="--kv f16",
        )
