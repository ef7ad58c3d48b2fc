"""Linear layers stored as plain weights: one `weight` tensor of floats, nothing to decode.

storage = Dense(source)
read = storage.matrix("model.layers.0.mlp.up_proj", (5632, 2048))
storage.types[0]  # BF16, or Q2_0 if all matrices look ternary in groups of 64
"""

from __future__ import annotations

from edgellm.formats.quant_types import QuantType, named_type
from edgellm.weights.convert.checkpoints.plan import Reader
from edgellm.weights.convert.checkpoints.source import Source
from edgellm.weights.slabs import FLOAT_TYPES, holds

# Types of one magnitude a block. Weights that suit the first ones suit the others, or a larger block.
_PREFERRED = ("Q1_0", "TQ2_0", "Q2_0")
_ONE_MAGNITUDE = (*_PREFERRED, "Q2_0_G128", "TQ1_0")
# The rows of each matrix that are looked at before a type of one magnitude becomes the default.
_SAMPLE_ROWS = 8


class Dense:
    """Plain weights, kept in their own precision by default.

    Models trained ternary or binary are also published so: then the default is the type that holds their weights. It
    is chosen by the first rows; encoding checks all of them.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        has_bf16 = any(source.dtype(name) == "BF16" for name in source.names)
        best = "BF16" if has_bf16 else "F16"
        self._floats = (best, *(name for name in FLOAT_TYPES if name != best))
        self._suitable = list(_PREFERRED)

    @property
    def types(self) -> tuple[str, ...]:
        """The types the matrices can be written as, best first."""
        first = self._suitable[:1]
        return (*first, *self._floats, *(name for name in _ONE_MAGNITUDE if name not in first))

    def matrix(self, stem: str, shape: tuple[int, int]) -> Reader:
        """Claim `weight`."""
        name = f"{stem}.weight"
        self._source.claim(name, shape)
        if self._suitable:
            sample = next(self._source.slabs(name, _SAMPLE_ROWS)).values
            self._suitable = [each for each in self._suitable if holds(named_type(each), sample)]
        return lambda n: self._source.slabs(name, n)

    def refusal(self, target: QuantType) -> str:
        """Why the model cannot be written as this type."""
        if target.name == "I2_S":
            return "I2_S rounds activations to 8 bits per token, and this model was not trained for that"
        return "that needs a quantizer: convert to F16 or BF16, then run `edgellm quantize`"

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Report that the weights would fit into a smaller type without loss."""
        if self._suitable and target.name in FLOAT_TYPES:
            kind = "binary" if self._suitable[0] == "Q1_0" else "ternary"
            return (f"its weights are {kind}: --outtype {self._suitable[0].lower()} holds them in fewer bits, exactly",)
        return ()
