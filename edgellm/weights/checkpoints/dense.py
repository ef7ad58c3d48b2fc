"""Linear layers that are plain weights: one `weight` of floats, nothing to decode.

storage = Dense(source)
read = storage.matrix("model.layers.0.mlp.up_proj", (5632, 2048))
"""

from __future__ import annotations

from edgellm.formats.quant_types import QuantType
from edgellm.weights.checkpoints.plan import Reader
from edgellm.weights.checkpoints.source import Source
from edgellm.weights.slabs import FLOAT_TYPES


class Dense:
    """Plain weights, by default in the precision they have; ternary ones also fit the ternary types exactly."""

    def __init__(self, source: Source) -> None:
        self._source = source
        has_bf16 = any(source.dtype(name) == "BF16" for name in source.names)
        best = "BF16" if has_bf16 else "F16"
        self.types = (best, *(name for name in FLOAT_TYPES if name != best), "TQ2_0", "TQ1_0")

    def matrix(self, stem: str, shape: tuple[int, int]) -> Reader:
        """Claim `weight`."""
        name = f"{stem}.weight"
        self._source.claim(name, shape)
        return lambda n: self._source.slabs(name, n)

    def refusal(self, target: QuantType) -> str:
        """Why a type is not possible."""
        if target.name == "I2_S":
            return "I2_S rounds activations to 8 bits per token, and this model was not trained for that"
        return "it needs a quantizer and its choices: convert to F16 or BF16, then `edgellm quantize`"

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Nothing to tell."""
        return ()
