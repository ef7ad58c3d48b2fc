"""Rotary position embedding in a config.json, old and new, and the keys and tensors that carry it in GGUF.

transformers 4 writes `rope_theta` and `rope_scaling`; transformers 5 writes both into `rope_parameters`.

    rope = Rope.read(config)
    rope.theta, rope.kind, rope_keys(rope)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.weights.json_file import JsonFile
from edgellm.weights.slabs import RowOrder, Values
from edgellm.weights.tokenizers import MetadataValue


@dataclass(frozen=True, slots=True)
class Rope:
    """`kind` is "default", "linear", "yarn", "llama3" or "longrope"; `parameters` hold what it needs."""

    theta: float
    kind: str
    parameters: JsonFile

    @classmethod
    def read(cls, config: JsonFile) -> Rope:
        """Read the configuration; CorruptFile when it contradicts itself, UnsupportedModel for other kinds."""
        parameters = config.child("rope_parameters" if "rope_parameters" in config else "rope_scaling")
        thetas = {source.number("rope_theta") for source in (config, parameters) if "rope_theta" in source}
        if len(thetas) > 1:
            raise CorruptFile(f"{config.name} contradicts itself", why=f"rope_theta is {sorted(thetas)}")
        theta = thetas.pop() if thetas else 10000.0
        if theta <= 0:
            raise CorruptFile(f"{config.name} is not valid", why=f"rope_theta is {theta}, not a positive number")
        kind = parameters.text("rope_type", parameters.text("type", "default"))
        kind = {"su": "longrope", "none": "default"}.get(kind, kind)
        if kind not in ("default", "linear", "yarn", "llama3", "longrope"):
            raise UnsupportedModel("the model cannot be converted", why=f"its rope type is {kind!r}")
        return cls(theta, kind, parameters)


def rope_keys(rope: Rope) -> dict[str, MetadataValue]:
    """Return the architecture's `rope.*` keys, without longrope's, which depend on the architecture."""
    keys: dict[str, MetadataValue] = {"rope.freq_base": rope.theta}
    if rope.kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": rope.kind, "rope.scaling.factor": rope.parameters.number("factor")}
    if rope.kind == "yarn":
        keys["rope.scaling.original_context_length"] = rope.parameters.integer("original_max_position_embeddings")
    return keys


def llama3_factors(rope: Rope, head_dim: int) -> Values:
    """Return Llama 3.1's divisors of the rotation frequencies, float32 [head_dim / 2].

    Waves shorter than the original context / high_freq_factor keep their frequency, those longer than it /
    low_freq_factor are slowed down by `factor`, and between the two the change is gradual.
    """
    parameters = rope.parameters
    context = parameters.integer("original_max_position_embeddings", 8192)
    low, high = parameters.number("low_freq_factor", 1.0), parameters.number("high_freq_factor", 4.0)
    factor = parameters.number("factor", 8.0)
    if not (0 < low < high and factor > 0):
        raise CorruptFile(f"{parameters.name} is not valid", why=f"factors {low}, {high} and {factor} do not fit")
    waves = 2 * math.pi * rope.theta ** (np.arange(0, head_dim, 2) / head_dim)
    share = np.clip((context / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - share) / factor + share)).astype(np.float32)


def interleaved(n_heads: int, head_dim: int) -> RowOrder:
    """Return the order of query or key rows for an engine that rotates neighbours.

    transformers rotates row i of a head with row i + head_dim / 2; the engine's llama rotates 2 i with 2 i + 1.
    """
    return np.arange(n_heads * head_dim).reshape(n_heads, 2, head_dim // 2).swapaxes(1, 2).reshape(-1)
