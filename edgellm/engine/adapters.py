"""Low-rank adapters that change a loaded model's answers: which file, and how strongly.

    adapter = parse_adapter("dates-lora.gguf:0.5")
    check_adapter(adapter.path, Path("smollm2.gguf"))
    loaded.use_adapters([adapter])                     # contexts that are opened afterwards have it

The base's weights stay as they are, packed or not: the engine adds the product of the two small matrices to what a
layer computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import UnsupportedModel, UsageError
from edgellm.formats.gguf_file import GGUFFile

# The small matrices of a product: [rank, columns] and [rows, rank].
SUFFIXES = (".lora_a", ".lora_b")
# Two names of one architecture.
_SAME = {"bitnet-b1.58": "bitnet"}
_MOST_SCALE = 1000.0


@dataclass(frozen=True, slots=True)
class Adapter:
    """A GGUF adapter, or PEFT's files that become one; `scale` multiplies what it adds."""

    path: Path
    scale: float = 1.0


def parse_adapter(text: str, find: Callable[[str], Path | None] = lambda _: None) -> Adapter:
    """Read `FILE[:SCALE]` or `NAME[:SCALE]`; `find` gives the file of an adapter's name, or None.

    Raises:
        UsageError: there is no such file or name, or the scale is out of range.
    """
    if (path := _path(text, find)) is not None:
        return Adapter(path)
    head, _, tail = text.rpartition(":")
    if head and (path := _path(head, find)) is not None:
        return Adapter(path, _scale(text, tail))
    why = "an adapter is a GGUF file, PEFT's directory, or the name of one that was pulled"
    hint = "edgellm list --lora, or edgellm pull MODEL --lora USER/REPO"
    raise UsageError(f"--lora: there is no adapter {text!r:.80}", why=why, hint=hint, adapter=text[:200])


def _path(text: str, find: Callable[[str], Path | None]) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else find(text)
    except (OSError, ValueError, RuntimeError):  # no file can be called so
        return None


def _scale(text: str, written: str) -> float:
    try:
        scale = float(written)
    except ValueError:
        scale = math.nan
    if not abs(scale) <= _MOST_SCALE:
        why = f"it should lie between -{_MOST_SCALE:g} and {_MOST_SCALE:g}"
        raise UsageError(f"--lora {text!r:.80}: {written!r:.40} is no scale", why=why, hint="--lora FILE:0.5")
    return scale


def is_adapter(path: Path) -> bool:
    """Whether a GGUF file says that it is an adapter; the errors are those of `GGUFFile.open`."""
    with GGUFFile.open(path) as gguf:
        return gguf.get_str("general.type", "model") == "adapter"


def require_adapter(gguf: GGUFFile, name: str) -> None:
    """Raise `UsageError` unless a file is an adapter; its header is enough."""
    kind = gguf.get_str("general.type", "model")
    if kind != "adapter" or gguf.get_str("adapter.type", "") != "lora":
        hint = "it needs no --lora" if kind == "model" else ""
        raise UsageError(f"--lora: {name} is no adapter", why=f"it is a {kind!r:.40}", hint=hint)


def check_adapter(path: Path, base: Path) -> None:
    """Check that a GGUF adapter belongs to a model: its architecture, and each tensor's name and shape.

    Raises:
        UsageError: the file is a model, or an adapter for another one.
        CorruptFile, UnsupportedModel: it is damaged, or has parts that the engine would leave out.
    """
    with GGUFFile.open(path) as adapter, GGUFFile.open(base) as model:
        require_adapter(adapter, path.name)
        mine, other = (_SAME.get(each.architecture, each.architecture) for each in (adapter, model))
        if mine != other:
            raise _of_another(path, base, f"its architecture is {mine}, and that of the model {other}")
        pairs: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, info in adapter.tensors.items():
            stem, suffix = name[:-7], name[-7:]
            if suffix not in SUFFIXES or len(info.shape) != 2:
                why = f"its tensor {name} is no part of a low-rank product, which is all that the engine adds"
                raise UnsupportedModel(f"{path.name} cannot be used", why=why, tensor=name)
            pairs.setdefault(stem, {})[suffix] = info.shape
        for stem, pair in pairs.items():
            _check_pair(path, base, stem, pair, model)
        if not pairs:
            raise UnsupportedModel(f"{path.name} cannot be used", why="it has no tensors")


def _check_pair(path: Path, base: Path, stem: str, pair: dict[str, tuple[int, ...]], model: GGUFFile) -> None:
    if len(pair) != 2:
        raise UnsupportedModel(f"{path.name} cannot be used", why=f"{stem} has one matrix of two", tensor=stem)
    if stem not in model.tensors:
        raise _of_another(path, base, f"the model has no tensor {stem}")
    down, up = (pair[suffix] for suffix in SUFFIXES)
    columns, rows = (*model.tensors[stem].shape, 1)[:2]
    if stem == "token_embd.weight":  # the engine looks its rows up, so the matrices change their roles
        fits = up[1] == columns and down[1] == rows
    else:
        fits = down[0] == columns and up[1] == rows and down[1] == up[0]
    if not fits:
        raise _of_another(path, base, f"{stem} has {rows} rows of {columns}, the adapter {up[1]} of {down[0]}")


def _of_another(path: Path, base: Path, why: str) -> UsageError:
    hint = "the model that the adapter was trained on"
    return UsageError(f"--lora: {path.name} is not for {base.name}", why=why, hint=hint)
