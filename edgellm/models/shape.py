"""The shape of a model: every number that decides how fast it is, and no weights.

    shape = parse_shape({"architecture": "bitnet", "n_layer": 30, "n_embd": 2560, ...})
    shape.n_q, shape.n_kv

A recipe may carry one as its table `[shape]`; `edgellm bench --shape NAME` makes a random model of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields

from edgellm.suggest import did_you_mean

ARCHITECTURES = ("bitnet", "llama", "phi3", "qwen", "qwen2")
ACTIVATIONS = ("silu", "relu2")
# Beyond every model there is; products of them stay far below 2**63.
_LARGEST = {
    "n_layer": 1 << 10,
    "n_embd": 1 << 16,
    "n_ff": 1 << 18,
    "n_head": 1 << 10,
    "n_head_kv": 1 << 10,
    "head_dim": 1 << 12,
    "n_vocab": 1 << 20,
    "n_ctx": 1 << 24,
}
# The generated vocabulary holds all bytes, a few words and the special tokens.
_SMALLEST_VOCAB = 320


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes in the field's names; `quant` and `head` are the tensor types that the model is published or best used in.

    `n_ff` is the width of one of the gated projections; `tied`: the embedding is the output head as well.
    """

    architecture: str
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    n_ctx: int
    tied: bool
    quant: str
    head: str = "Q6_K"
    rope_base: float = 10000.0
    rms_eps: float = 1e-5
    activation: str = "silu"

    @property
    def n_q(self) -> int:
        """Rows of the query projection."""
        return self.n_head * self.head_dim

    @property
    def n_kv(self) -> int:
        """Rows of the key and of the value projection."""
        return self.n_head_kv * self.head_dim


def parse_shape(data: object) -> Shape:
    """A shape from a TOML table; ValueError names the key that is wrong."""
    if isinstance(data, Shape):
        return data
    if not isinstance(data, Mapping):
        raise ValueError("a shape is a table of sizes")
    known = {field.name: field for field in fields(Shape)}
    for key in data:
        if key not in known:
            guess = did_you_mean(str(key), known)
            raise ValueError(f"unknown key {key}" + (f", did you mean {guess}?" if guess else ""))
    for name, field in known.items():
        if name not in data and field.default is MISSING:
            raise ValueError(f"{name} is missing")
        if name in data:
            _check(name, data[name], str(field.type))
    return _consistent(Shape(**data))


def _check(name: str, value: object, kind: str) -> None:
    if kind == "int":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST[name]:
            raise ValueError(f"{name} is a whole number from 1 to {_LARGEST[name]}, not {value!r:.40}")
    elif kind == "float":
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < 1e12:
            raise ValueError(f"{name} is a positive number, not {value!r:.40}")
    elif not isinstance(value, {"bool": bool, "str": str}[kind]):
        raise ValueError(f"{name} is a {kind}, not {value!r:.40}")


def _consistent(shape: Shape) -> Shape:
    for name, known in (("architecture", ARCHITECTURES), ("activation", ACTIVATIONS)):
        if getattr(shape, name) not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}, not {getattr(shape, name)!r:.40}")
    if shape.n_head % shape.n_head_kv:
        raise ValueError(f"{shape.n_head} heads cannot share {shape.n_head_kv} key-value heads")
    if shape.head_dim % 2:
        raise ValueError(f"heads of {shape.head_dim} cannot be rotated: head_dim is even")
    if shape.architecture != "llama" and shape.n_q != shape.n_embd:
        raise ValueError(f"{shape.architecture} has heads of n_embd / n_head, and {shape.n_q} is not {shape.n_embd}")
    if shape.n_vocab < _SMALLEST_VOCAB:
        raise ValueError(f"n_vocab is {_SMALLEST_VOCAB} at least")
    return shape
