"""Turns the user's request into the contenders of a benchmark, and makes the models that exist only for it.

models = [NamedModel("bitnet-2b", random_model("bitnet-2b", shape, None, None, codec, settings))]
contenders(models, Rivals(stock=True, kernels=("avx2",)), settings)
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgellm.engine.quantize import Quantizer
from edgellm.engine.rpc.address import Address
from edgellm.errors import EdgellmError, UnsupportedModel, UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.quant_types import QuantType, named_type
from edgellm.measure.bench.plan import LEVELS, STOCK, Contender, Peer
from edgellm.measure.bench.runner import KERNELS_VARIABLE
from edgellm.models.fit.shape import Shape
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.progress import Report, silent
from edgellm.settings import Settings
from edgellm.suggest import did_you_mean
from edgellm.weights.quantize.mixes import named_mix
from edgellm.weights.random_model import VERSION, weight_type, write_random_model
from edgellm.weights.stock_twin import needs_twin, write_stock_twin

_ENDS = ("token_embd.weight", "output.weight")


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model file, the user's name for it, and how the other verbs run it."""

    name: str
    path: Path
    tuning: Tuning | None = None
    workers: tuple[Address, ...] = ()
    n_here: int | None = None


@dataclass(frozen=True, slots=True)
class Rivals:
    """What to compare the models with: themselves on stock or other kernels, another model, or a peer.

    `peer_model` is the file that the peer reads; None means the first model's.
    """

    stock: bool = False
    model: NamedModel | None = None
    kernels: tuple[str, ...] = ()
    peer: Peer | None = None
    peer_model: Path | None = None


def random_model(
    name: str,
    shape: Shape,
    quant: str | None,
    head: str | None,
    codec: Quantizer,
    settings: Settings,
    *,
    report: Report = silent,
) -> Path:
    """Return the file of a random model of this shape, written if necessary; see `random_model_path`."""
    path = random_model_path(name, shape, quant, head, settings)
    if not _is_model(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        weights, ends = _types(shape, quant, head)
        write_random_model(path, shape, weights=weights, head=ends, codec=codec, report=report)
    return path


def random_model_path(name: str, shape: Shape, quant: str | None, head: str | None, settings: Settings) -> Path:
    """Return the path of a shape's random model, which may not exist; UsageError for types it cannot have."""
    weights, ends = _types(shape, quant, head)
    if ends.name == "I2_S":
        raise UsageError("an embedding cannot be I2_S", why="the engine reads its rows one by one", hint="--head Q6_K")
    digest = hashlib.sha256(repr((VERSION, sorted(asdict(shape).items()))).encode()).hexdigest()[:8]
    return settings.bench_models / f"{name}-{weights}-{ends}-{digest}.gguf"


def _types(shape: Shape, quant: str | None, head: str | None) -> tuple[QuantType, QuantType]:
    """Return the types of layers and of embedding and head: as requested, or the shape's own, or Q8_0 if those do not
    fit its rows."""
    base = named_mix(shape.quant).base
    usual = base if base.fits((shape.n_embd,)) and base.fits((shape.n_ff,)) else named_type("Q8_0")
    return weight_type(quant) if quant else usual, weight_type(head or shape.head)


def contenders(
    models: Sequence[NamedModel], rivals: Rivals, settings: Settings, *, report: Report = silent
) -> list[Contender]:
    """Return all contenders: the models on our kernels, then their rivals.

    Raises:
        UsageError: no kernel level has this name.
        LossyTranscode, DiskFull, CorruptFile, ...: a model cannot be converted for stock kernels.
    """
    for level in rivals.kernels:
        _require_level(level)
    wanted = os.environ.get(KERNELS_VARIABLE, "")
    ours = [
        Contender(
            _label(model.name, model.path, wanted, len(model.workers)),
            model.path,
            wanted,
            tuning=model.tuning,
            workers=model.workers,
            n_here=model.n_here,
        )
        for model in models
    ]
    found = list(ours)
    stock: dict[Path, int] = {}
    for level in rivals.kernels:
        found += [Contender(_label(model.name, model.path, level), model.path, level) for model in models]
    for model in models if rivals.stock else ():
        path = stock_file(model.path, settings, report=report)
        stock[model.path] = len(found)
        found.append(Contender(_label(model.name, path, STOCK), path, STOCK))
    if rivals.model is not None:
        label, path = _label(rivals.model.name, rivals.model.path, wanted), rivals.model.path
        found.append(Contender(label, path, wanted, tuning=rivals.model.tuning))
    if rivals.peer is not None:
        path = rivals.peer_model or models[0].path
        found.append(Contender(f"{rivals.peer.program.name} {_type_of(path)}".strip(), path, peer=rivals.peer))
    found = _distinct(found)
    if stock:
        return _against_stock(found, {path: found[index].name for path, index in stock.items()})
    return _against_one(found, has_rival=rivals.model is not None)


def stock_file(path: Path, settings: Settings, *, report: Report = silent) -> Path:
    """Return the file for stock kernels: the same one, or its twin if it holds what stock llama.cpp cannot read."""
    with GGUFFile.open(path) as gguf:
        if not needs_twin(gguf):
            return path
    at = path.stat()
    digest = hashlib.sha256(repr((str(path.absolute()), at.st_size, at.st_mtime_ns)).encode()).hexdigest()[:8]
    twin = settings.bench_models / f"{path.stem}-{digest}-stock.gguf"
    if not _is_model(twin):
        twin.parent.mkdir(parents=True, exist_ok=True)
        write_stock_twin(path, twin, report=report)
    return twin


def _against_stock(found: Sequence[Contender], names: dict[Path, str]) -> list[Contender]:
    """Compare each model with itself on stock kernels, and any other contender with the first model's."""
    first = next(iter(names.values()))
    return [c if c.kernels == STOCK else replace(c, against=names.get(c.path, first)) for c in found]


def _against_one(found: Sequence[Contender], *, has_rival: bool) -> list[Contender]:
    """Compare all contenders with the other model, else with the peer, else with the first contender."""
    if len(found) == 1:
        return list(found)
    ours = [contender for contender in found if contender.peer is None]
    reference = ours[-1] if has_rival else found[-1] if len(ours) < len(found) else found[0]
    return [c if c is reference else replace(c, against=reference.name) for c in found]


def _distinct(found: Sequence[Contender]) -> list[Contender]:
    """Number contenders that have the same name."""
    seen: Counter[str] = Counter()
    distinct = []
    for contender in found:
        seen[contender.name] += 1
        number = seen[contender.name]
        distinct.append(replace(contender, name=f"{contender.name} ({number})") if number > 1 else contender)
    return distinct


def _label(name: str, path: Path, kernels: str, n_workers: int = 0) -> str:
    kind = _type_of(path)
    label = name if not kind or kind.lower() in name.lower() else f"{name} {kind}"
    shared = f" on {n_workers} workers" if n_workers > 1 else " on a worker" if n_workers else ""
    return f"{label} {kernels}".strip() + shared


def _type_of(path: Path) -> str:
    """Return the tensor type of most bytes of the layers, or "" when only a peer can read the file."""
    n_bytes: Counter[str] = Counter()
    try:
        with GGUFFile.open(path) as gguf:
            for info in gguf.tensors.values():
                if info.name not in _ENDS:
                    n_bytes[info.type.name] += info.nbytes
    except UnsupportedModel:
        return ""
    return n_bytes.most_common(1)[0][0] if n_bytes else ""


def _require_level(level: str) -> None:
    if level not in (*LEVELS, STOCK):
        guess = did_you_mean(level, LEVELS)
        why = f"did you mean {guess}?" if guess else f"the levels are {', '.join(LEVELS)}"
        raise UsageError(f"there are no kernels {level[:40]!r}", why=why, hint=f"--kernels {guess or 'avx2'}")


def _is_model(path: Path) -> bool:
    """Whether the file exists and is complete."""
    try:
        GGUFFile.open(path).close()
    except EdgellmError:
        return False
    return True
