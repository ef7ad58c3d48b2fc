"""Rotary position embedding: reads it from old and new config.json files, and returns its GGUF keys and factors.

transformers 4 writes `rope_theta` and `rope_scaling`; transformers 5 writes both into `rope_parameters`.

    rope = Rope.read(config)
    rope.theta, rope.kind, rope_keys(rope)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.weights.convert.json_file import JsonFile
from edgellm.weights.convert.tokenizers import MetadataValue
from edgellm.weights.slabs import RowOrder, Values

# transformers reads each of these for some kind of rotation, and ignores it for the others.
_OF_SOME_KIND = (
    "type", "rope_type", "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow",
    "mscale", "mscale_all_dim", "truncate", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Yarn:
    """YaRN: frequencies that turn more than `beta_fast` times within the `original` context stay as they are, those
    below `beta_slow` are divided by `factor`, and between the two the divisor changes gradually.

    With `truncate` the range of frequencies between the two is rounded outwards. `attention_factor` scales both
    queries and keys. As `_compute_yarn_parameters` of transformers has it.
    """

    factor: float
    original: int
    beta_fast: float
    beta_slow: float
    truncate: bool
    attention_factor: float

    @classmethod
    def read(cls, parameters: JsonFile, original: int) -> Yarn:
        """Read the settings; CorruptFile when they conflict."""
        factor = parameters.number("factor")
        scales = [parameters.number(name, 0.0) for name in ("mscale", "mscale_all_dim")]
        if not all(scales):
            scales = [1.0, 0.0]
        attention = _attention_scale(factor, scales[0]) / _attention_scale(factor, scales[1])
        # transformers takes 0 for the default too.
        fast, slow = parameters.number("beta_fast", 0.0) or 32.0, parameters.number("beta_slow", 0.0) or 1.0
        if not (factor > 0 and 0 < slow <= fast):
            why = f"factor is {factor}, beta_fast {fast} and beta_slow {slow}"
            raise CorruptFile(f"{parameters.name} is not valid", why=why)
        attention = parameters.number("attention_factor", attention)
        return cls(factor, original, fast, slow, parameters.flag("truncate", True), attention)

    @property
    def is_the_engines(self) -> bool:
        """Whether the engine computes these frequencies by itself: it knows one range of turns."""
        return (self.beta_fast, self.beta_slow, self.truncate) == (32.0, 1.0, True)

    def divisors(self, theta: float, head_dim: int) -> Values:
        """Return the divisors of the rotation frequencies, float32 [head_dim / 2]."""
        turns = np.array([self.beta_fast, self.beta_slow])
        low, high = head_dim * np.log(self.original / (turns * 2 * math.pi)) / (2 * math.log(theta))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, head_dim - 1)
        if low == high:
            high += 0.001
        scaled = np.clip((np.arange(head_dim // 2) - low) / (high - low), 0, 1)
        divisors: Values = (1 / (scaled / self.factor + 1 - scaled)).astype(np.float32)
        return divisors


def _attention_scale(factor: float, weight: float = 1.0) -> float:
    return 0.1 * weight * math.log(factor) + 1 if factor > 1 else 1.0


@dataclass(frozen=True, slots=True)
class Rope:
    """`kind` is "default", "linear", "yarn", "llama3" or "longrope"; `parameters` holds its settings.

    `partial` is the share of each head that turns, `n_ctx_original` the context before any scaling.
    """

    theta: float
    kind: str
    parameters: JsonFile
    partial: float
    n_ctx_original: int
    yarn: Yarn | None = None

    @classmethod
    def read(cls, config: JsonFile) -> Rope:
        """Read the configuration; CorruptFile when it contradicts itself, UnsupportedModel for other kinds."""
        parameters = _parameters(config)
        theta = _agreed(config, parameters, "rope_theta", 10000.0)
        if theta <= 0:
            raise CorruptFile(f"{config.name} is not valid", why=f"rope_theta is {theta}, not a positive number")
        kind = parameters.text("rope_type", parameters.text("type", "default"))
        kind = {"su": "longrope", "none": "default"}.get(kind, kind)
        if kind not in ("default", "linear", "yarn", "llama3", "longrope"):
            raise UnsupportedModel("the model cannot be converted", why=f"its rope type is {kind!r}")
        partial = _agreed(config, parameters, "partial_rotary_factor", 1.0)
        n_ctx = config.integer("max_position_embeddings", low=1)
        original = int(_agreed(config, parameters, "original_max_position_embeddings", n_ctx))
        if original < 1 or (kind == "yarn" and theta <= 1):
            why = f"rope_theta is {theta:g} and the original context {original}"
            raise CorruptFile(f"{config.name} is not valid", why=why)
        yarn = Yarn.read(parameters, original) if kind == "yarn" else None
        parameters.ignore(*_OF_SOME_KIND)
        return cls(theta, kind, parameters, partial, original, yarn)


def _parameters(config: JsonFile) -> JsonFile:
    old, new = config.child("rope_scaling"), config.child("rope_parameters")
    if old.values and new.values and old.values != new.values:
        raise CorruptFile(f"{config.name} contradicts itself", why="rope_scaling and rope_parameters are not the same")
    return new if new.values else old


def _agreed(config: JsonFile, parameters: JsonFile, key: str, default: float) -> float:
    """Return a number that may stand in either place."""
    found = {source.number(key) for source in (config, parameters) if key in source}
    if len(found) > 1:
        raise CorruptFile(f"{config.name} contradicts itself", why=f"{key} is {sorted(found)}")
    return found.pop() if found else default


def rope_keys(rope: Rope) -> dict[str, MetadataValue]:
    """Return the architecture's `rope.*` keys, without longrope's, which depend on the architecture."""
    keys: dict[str, MetadataValue] = {"rope.freq_base": rope.theta}
    if rope.kind == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": rope.parameters.number("factor")}
    return keys | _yarn_keys(rope.yarn) if rope.yarn else keys


def _yarn_keys(yarn: Yarn) -> dict[str, MetadataValue]:
    """Return YaRN's keys. With divisors of its own (see `Yarn.divisors`) the engine must not scale again."""
    keys: dict[str, MetadataValue] = {"rope.scaling.original_context_length": yarn.original}
    if yarn.is_the_engines:
        keys |= {"rope.scaling.type": "yarn", "rope.scaling.factor": yarn.factor}
        # The engine multiplies by the default attention factor itself.
        attention = yarn.attention_factor / _attention_scale(yarn.factor)
    else:
        # The betas are for readers of the file only: the engine ignores them, and needs no more than the divisors.
        keys |= {"rope.scaling.type": "none", "rope.scaling.yarn_beta_fast": yarn.beta_fast}
        keys |= {"rope.scaling.yarn_beta_slow": yarn.beta_slow}
        attention = yarn.attention_factor
    return keys if attention == 1 else keys | {"rope.scaling.attn_factor": attention}


def llama3_factors(rope: Rope, head_dim: int) -> Values:
    """Return Llama 3.1's divisors of the rotation frequencies, float32 [head_dim / 2].

    Wavelengths below the original context / high_freq_factor keep their frequency. Those above the original
    context / low_freq_factor are slowed down by `factor`. Between the two the divisor changes gradually.
    """
    parameters = rope.parameters
    context = parameters.integer("original_max_position_embeddings", 8192)
    low, high = parameters.number("low_freq_factor", 1.0), parameters.number("high_freq_factor", 4.0)
    factor = parameters.number("factor", 8.0)
    if not (0 < low < high and factor > 0):
        raise CorruptFile(f"{parameters.name} is not valid", why=f"factors {low}, {high} and {factor} conflict")
    waves = 2 * math.pi * rope.theta ** (np.arange(0, head_dim, 2) / head_dim)
    share = np.clip((context / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - share) / factor + share)).astype(np.float32)


def interleaved(n_heads: int, head_dim: int) -> RowOrder:
    """Return the row order of queries or keys for an engine that rotates neighbouring rows.

    transformers rotates row i of a head with row i + head_dim / 2; the engine's llama rotates 2 i with 2 i + 1.
    """
    return np.arange(n_heads * head_dim).reshape(n_heads, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)
