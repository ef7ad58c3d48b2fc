"""How checkpoints keep ternary linear layers: packed, as master weights to be ternarised, or scaled by row.

storage = Packed(source, inverted=True)
read = storage.matrix("model.layers.0.mlp.up_proj", (6912, 2560))
"""

from __future__ import annotations

import numpy as np

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.formats.quant_types import QuantType
from edgellm.formats.ternary import unpack_bitlinear
from edgellm.weights.checkpoints.plan import Reader, Slabs, slab_rows
from edgellm.weights.checkpoints.source import Source
from edgellm.weights.slabs import HALF_SCALE_TYPES, Ternary, Values, rounded_scales

# With one scale per tensor and activations of 8 bits per token, I2_S computes what these models were trained
# with. Q4_0 holds ternary weights exactly too, for rows that are not whole blocks of the smaller types.
ONE_SCALE_TYPES = ("I2_S", "TQ2_0", "TQ1_0", "Q4_0", "F16", "BF16", "F32")
ROW_SCALE_TYPES = ("TQ2_0", "TQ1_0", "Q4_0", "F16", "BF16", "F32")


class Packed:
    """Codes in uint8 [rows / 4, columns] and `weight_scale`, one number (transformers' "bitnet" method).

    The scale multiplies (`linear_class: autobitlinear`) or, `inverted`, divides (`bitlinear`). Layers that
    were left unpacked are whole numbers -1, 0, 1 with a scale beside them.
    """

    types = ONE_SCALE_TYPES

    def __init__(self, source: Source, *, inverted: bool) -> None:
        self._source = source
        self._inverted = inverted
        self._scales: list[np.float32] = []

    def matrix(self, stem: str, shape: tuple[int, int]) -> Reader:
        """Claim `weight` and `weight_scale`."""
        name, rows = f"{stem}.weight", shape[0]
        if f"{stem}.weight_scale" not in self._source:
            why = f"{name} has no weight_scale: its layer was left out when the model was made ternary"
            raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why, tensor=name)
        scale = self._scale(f"{stem}.weight_scale")
        if self._source.dtype(name) != "U8":
            self._source.claim(name, shape)
            return lambda n: (_whole_numbers(slab.values, scale, name) for slab in self._source.slabs(name, n))
        if rows % 4:
            why = f"{name} should have {rows} rows, and packed rows come in fours"
            raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why, tensor=name)
        self._source.claim(name, (rows // 4, shape[1]), "U8")

        def read(n: int) -> Slabs:
            packed = self._source.array(name)
            for start in range(0, rows, n):
                codes = unpack_bitlinear(packed, name=name, start=start, stop=min(start + n, rows))
                yield Ternary(codes, np.full(len(codes), scale, np.float32))

        return read

    def refusal(self, target: QuantType) -> str:
        """Why a type is not possible."""
        return f"ternary weights go into {', '.join(self.types)}"

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Tell of scales that the type cannot hold exactly."""
        return rounded_scales(np.array(self._scales, np.float32), target)

    def _scale(self, name: str) -> np.float32:
        self._source.claim(name, self._source.shape(name))
        values = self._source.floats(name).reshape(-1)
        scale = values[0] if len(values) == 1 else np.float32(np.nan)
        with np.errstate(divide="ignore", over="ignore"):
            scale = np.float32(1) / scale if self._inverted else scale
        if not 0 < scale < np.inf:
            why = f"{name} should be one positive number, and is {values[:4]}"
            raise CorruptFile(f"{self._source.name} is corrupt", why=why, tensor=name)
        self._scales.append(scale)
        return scale


class Masters:
    """Weights to be ternarised on loading, as in training: scale = mean |w|, code = clamp(round(w / scale)).

    A tensor that is ternary already (one magnitude beside zero) keeps its scale: the mean of such a tensor is
    its scale times the share of its non-zeros.
    """

    types = ONE_SCALE_TYPES

    def __init__(self, source: Source) -> None:
        self._source = source

    def matrix(self, stem: str, shape: tuple[int, int]) -> Reader:
        """Claim `weight`; reading it goes over it twice, the first time for the scale."""
        name = f"{stem}.weight"
        self._source.claim(name, shape)

        def read(n: int) -> Slabs:
            scale = self._scale(name, slab_rows(shape))
            inverse = np.float32(1) / scale
            for slab in self._source.slabs(name, n):
                codes = np.clip(np.rint(slab.values * inverse), -1, 1).astype(np.int8)
                yield Ternary(codes, np.full(len(codes), scale, np.float32))

        return read

    def refusal(self, target: QuantType) -> str:
        """Why a type is not possible."""
        return f"ternary weights go into {', '.join(self.types)}"

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Tell that scales are rounded; what they are is known only while they are read."""
        return ("scales are rounded to fp16, by at most 0.05 %",) if target.name in HALF_SCALE_TYPES else ()

    def _scale(self, name: str, n: int) -> np.float32:
        total, weights = 0.0, 0
        smallest, largest = np.float32(np.inf), np.float32(0)
        for slab in self._source.slabs(name, n):
            magnitudes = np.abs(slab.values)
            total += float(magnitudes.sum(dtype=np.float64))
            weights += magnitudes.size
            smallest = min(smallest, magnitudes.min(where=magnitudes > 0, initial=np.inf))
            largest = max(largest, magnitudes.max())
        return largest if smallest == largest else np.float32(max(total / weights, 1e-5))


class ScaledRows:
    """Bonsai's QLinear: a latent `weight`, code = round(clamp(w, -1, 1)), and `scales`, one per output row."""

    types = ROW_SCALE_TYPES

    def __init__(self, source: Source) -> None:
        self._source = source
        self._inexact: list[str] = []

    def matrix(self, stem: str, shape: tuple[int, int]) -> Reader:
        """Claim `weight` and `scales`."""
        name = f"{stem}.weight"
        self._source.claim(name, shape)
        scales = self._row_scales(f"{stem}.scales", shape[0])

        def read(n: int) -> Slabs:
            start = 0
            for slab in self._source.slabs(name, n):
                codes = np.rint(np.clip(slab.values, -1, 1)).astype(np.int8)
                yield Ternary(codes, scales[start : start + len(codes)])
                start += len(codes)

        return read

    def refusal(self, target: QuantType) -> str:
        """Why a type is not possible."""
        if target.name == "I2_S":
            return "I2_S has one scale per tensor and 8-bit activations; this model has one per row and 16-bit ones"
        return f"its weights are ternary with one scale per row, which {', '.join(self.types)} hold"

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Refuse what would round a scale: the conversion is exact or does not happen."""
        if target.name in HALF_SCALE_TYPES and self._inexact:
            why = f"fp16 cannot hold the scales of {len(self._inexact)} tensors exactly, {self._inexact[0]} among them"
            raise UnsupportedModel(f"{target} would change the weights", why=why, hint="--outtype bf16 or f32")
        return ()

    def _row_scales(self, name: str, rows: int) -> Values:
        self._source.claim(name, (rows, 1) if len(self._source.shape(name)) == 2 else (rows,))
        scales = self._source.floats(name).reshape(-1)
        with np.errstate(over="ignore"):
            if (scales.astype(np.float16) != scales).any():
                self._inexact.append(name)
        return scales


def _whole_numbers(values: Values, scale: np.float32, name: str) -> Ternary:
    codes = values.astype(np.int8)
    if not ((codes == values) & (np.abs(codes) <= 1)).all():
        why = f"{name} has a scale beside it and weights other than -1, 0 and 1"
        raise CorruptFile("the checkpoint is corrupt", why=why, tensor=name)
    return Ternary(codes, np.full(len(codes), scale, np.float32))
