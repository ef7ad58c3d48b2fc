"""Will it fit, and what would: the answer that `fit`, `pull`, `run` and `chat` share.

    fit = judge(read_outline(path), RunPlan(n_ctx=131072), memory.room())
    fit.fits, fit.need.kv_cache, fit.alternatives

Nothing is loaded or downloaded for it: an outline comes from a header, a config.json or a recipe.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from edgellm.engine.base import CONTEXT_PADDING
from edgellm.errors import CorruptFile, DoesNotFit, UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_header import HeaderIncomplete
from edgellm.formats.gguf_split import part_paths
from edgellm.machine.memory import Room
from edgellm.models.memory import (
    DEFAULT_CONTEXT,
    MemoryNeed,
    RunPlan,
    choose_context,
    estimate,
    require_fit,
    within_address_space,
)
from edgellm.models.outline import Outline, cache_type

# A header over the network is read in steps of this size; those of today's models have 1 to 16 MB.
HEADER_STEP = 1 << 20
# What is offered, or chosen under a cap, when the wanted type of cache is too large.
SMALLER_CACHE = "Q8_0"
LEAST_CONTEXT = 512
MOST_MODELS, MOST_OF_ONE_MODEL = 5, 2


class Ranges(Protocol):
    """Parts of a file that is elsewhere."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Something that fits: another way to run the model (`options` to add), or another model to run (`model`)."""

    what: str
    options: str
    total: int
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """The verdict; sizes are bytes. `available` is what the need was compared with, and `address_space` where limited.

    `largest_context` is the longest that fits as it was asked for (0: none does).
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


def read_outline(path: Path, name: str = "") -> Outline:
    """The outline of a model on this machine, all parts of a split one together."""
    with ExitStack() as stack:
        return Outline.of([stack.enter_context(GGUFFile.open(part)) for part in part_paths(path)], name)


def read_remote_outline(parts: Iterable[tuple[str, Ranges]], name: str = "") -> Outline:
    """The same from ranges of files that are elsewhere, each with its name: only their headers are read."""
    return Outline.of([read_header(ranges, part) for part, ranges in parts], name)


def read_header(ranges: Ranges, name: str) -> GGUFFile:
    """The header of a GGUF file, from as few bytes of it as there are steps in it."""
    data = b""
    while True:
        # Nobody knows how long a header is before its end; what is missing at least is known.
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
    """Estimate, compare and, where it does not fit, look for what would; `others` are models to offer instead.

    Raises:
        ContextTooLarge: more context than the model was trained with.
        UnsupportedModel: the model's heads are no whole blocks of the cache type.
    """
    choose_context(outline.n_ctx_train, plan.n_ctx)
    _check_cache(outline, plan.kv_type)
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
    """The most tokens that fit, up to what the model was trained with; 0 when not even a few do."""
    low, high = 0, -(-outline.n_ctx_train // CONTEXT_PADDING)
    while low < high:
        middle = (low + high + 1) // 2
        if estimate(outline, replace(plan, n_ctx=middle * CONTEXT_PADDING)).fits(room):
            low = middle
        else:
            high = middle - 1
    return min(low * CONTEXT_PADDING, outline.n_ctx_train)


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
) -> RunPlan:
    """How to run a model: as asked; under `max_memory`, what was not asked for is chosen so that it fits.

    Raises:
        ContextTooLarge, UnsupportedModel: as `judge`.
        DoesNotFit: it does not fit, with the numbers and what would (unless `force`,
            which helps against an estimate and not against a limit of the address space: the engine would abort).
    """
    wanted = RunPlan(
        n_ctx=choose_context(outline.n_ctx_train, n_ctx),
        n_slots=n_slots,
        kv_type=cache_type(kv_type or "F16").name,
        n_threads=n_threads,
    )
    _check_cache(outline, wanted.kv_type)
    if max_memory is not None:
        room = replace(room, available=min(room.available, max_memory))
        for plan in _smaller_plans(outline, wanted, free_context=n_ctx is None, free_cache=kv_type is None):
            if estimate(outline, plan).fits(room):
                return plan
    if not force or not within_address_space(estimate(outline, wanted), room):
        refuse_unless_fitting(judge(outline, wanted, room))
    return wanted


def refuse_unless_fitting(fit: Fit) -> None:
    """Raise `DoesNotFit` with the parts and what would fit instead."""
    first = fit.alternatives[0] if fit.alternatives else Alternative("", "", 0)
    hint = f"edgellm pull {first.model}" if first.model else f"the same with {first.options}"
    hint = f"{hint if fit.alternatives else 'a smaller model'}, or the same with --force"
    plan = RunPlan(fit.n_ctx, fit.n_slots, fit.kv_type)
    try:
        require_fit(fit.need, Room(fit.available, fit.address_space), name=fit.model, plan=plan, hint=hint)
    except DoesNotFit as error:
        offers = [f"\n  fits instead: {each.what}, {each.total / 1e9:.2f} GB" for each in fit.alternatives[:3]]
        error.why += "".join(offers)
        raise


def _smaller_plans(outline: Outline, wanted: RunPlan, *, free_context: bool, free_cache: bool) -> Iterable[RunPlan]:
    """What was asked for, then with less: a smaller cache before a shorter context, for that costs nearly nothing."""
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
    """Those that fit at the same context or their default, in their order; not every quantization of one model."""
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
    """The power of two, or half more than one, that is next below: what people would type."""
    if n_ctx < LEAST_CONTEXT:
        return n_ctx
    power = 1 << (n_ctx.bit_length() - 1)
    return power * 3 // 2 if n_ctx >= power * 3 // 2 else power


def _check_cache(outline: Outline, kind: str) -> None:
    if not outline.allows(kind):
        raise UnsupportedModel(
            f"{outline.name} cannot keep its KV cache in {kind.lower()}",
            why=f"a head has {outline.head_size} numbers, no multiple of {cache_type(kind).block_size}",
            hint="--kv f16",
        )
