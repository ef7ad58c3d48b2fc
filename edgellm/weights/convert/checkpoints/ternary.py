"""How checkpoints store ternary linear layers: packed, as master weights to ternarise, or scaled by row.

storage = Packed(source, inverted=True)
read = storage.matrix("model.layers.0.mlp.up_proj", (6912, 2560))
"""

from __future__ import annotations

import numpy as np

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.formats.quant_types import QuantType
from edgellm.formats.ternary import unpack_bitlinear
from edgellm.weights.convert.checkpoints.plan import Reader, Slabs, slab_rows
from edgellm.weights.convert.checkpoints.source import Source
from edgellm.weights.convert.json_file import JsonFile
from edgellm.weights.slabs import HALF_SCALE_TYPES, Latent, Ternary, Values, rounded_scales

# These models were trained with one scale per tensor and 8-bit activations per token, which is what I2_S
# computes. Q4_0 also holds ternary weights exactly; it serves rows that are not whole blocks of the smaller types.
ROW_SCALE_TYPES = ("TQ2_0", "TQ1_0", "Q4_0", "Q2_0", "Q2_0_G128", "F16", "BF16", "F32")
ONE_SCALE_TYPES = ("I2_S", *ROW_SCALE_TYPES)


# The files say the same again, or it only matters with use_rms_norm, which is refused.
_WITHOUT_EFFECT = ("quant_method", "quantization_mode", "linear_class", "rms_norm_eps")


def check_bitnet(name: str, settings: JsonFile) -> None:
    """Raise UnsupportedModel if linear layers besides the head are not ternary; reads no weights."""
    settings.ignore(*_WITHOUT_EFFECT)
    others = [each for each in settings.items("modules_to_not_convert") if each != "lm_head"]
    if others:
        why = f"modules_to_not_convert has {others[0]!r:.60}: only the head may have plain weights"
        raise UnsupportedModel(f"{name} cannot be converted", why=why)


class Packed:
    """Codes in uint8 [rows / 4, columns] and a single `weight_scale` (transformers' "bitnet" method).

    Weights are codes times the scale (`linear_class: autobitlinear`) or, with `inverted`, codes divided by the
    scale (`bitlinear`). Unpacked layers hold the whole numbers -1, 0 and 1, with a separate scale.
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
            why = f"{name} has no weight_scale: this layer was not made ternary with the rest of the model"
            raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why, tensor=name)
        scale = self._scale(f"{stem}.weight_scale")
        if self._source.dtype(name) != "U8":
            self._source.claim(name, shape)
            return lambda n: (_whole_numbers(slab.values, scale, name) for slab in self._source.slabs(name, n))
        if rows % 4:
            why = f"{name} should have {rows} rows, which is not a multiple of 4, as packed rows are"
            raise UnsupportedModel(f"{self._source.name} cannot be converted", why=why, tensor=name)
        self._source.claim(name, (rows // 4, shape[1]), "U8")

        def read(n: int) -> Slabs:
            packed = self._source.array(name)
            for start in range(0, rows, n):
                codes = unpack_bitlinear(packed, name=name, start=start, stop=min(start + n, rows))
                yield Ternary(codes, np.full(len(codes), scale, np.float32))

        return read

    def refusal(self, target: QuantType) -> str:
        """Why the model cannot be written as this type."""
        return f"ternary weights can be written as {', '.join(self.types)}"

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Report the scales that the type cannot hold exactly."""
        return rounded_scales(np.array(self._scales, np.float32), target)

    def _scale(self, name: str) -> np.float32:
        self._source.claim(name, self._source.shape(name))
        values = self._source.floats(name).reshape(-1)
        scale = values[0] if len(values) == 1 else np.float32(np.nan)
        with np.errstate(divide="ignore", over="ignore"):
            scale = np.float32(1) / scale if self._inverted else scale
        if not 0 < scale < np.inf:
            why = f"{name} should be one positive number, but is {values[:4]}"
            raise CorruptFile(f"{self._source.name} is corrupt", why=why, tensor=name)
        self._scales.append(scale)
        return scale


class Masters:
    """Master weights, ternarised as in training: scale = mean |w|, code = clamp(round(w / scale)).

    A tensor that is already ternary (one magnitude besides zero) keeps that magnitude as its scale, because its
    mean would be the scale times the share of its non-zeros.
    """

    types = ONE_SCALE_TYPES

    def __init__(self, source: Source) -> None:
        self._source = source

    def matrix(self, stem: str, shape: tuple[int, int]) -> Reader:
        """Claim `weight`; its reader makes two passes, the first to find the scale."""
        name = f"{stem}.weight"
        self._source.claim(name, shape)

        def read(n: int) -> Slabs:
            scale = self._scale(name, slab_rows(shape))
            inverse = np.float32(1) / scale
            for slab in self._source.slabs(name, n):
                yield Latent(slab.values, np.full(len(slab.values), scale, np.float32), inverse)

        return read

    def refusal(self, target: QuantType) -> str:
        """Why the model cannot be written as this type."""
        return f"ternary weights can be written as {', '.join(self.types)}"

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Report that scales are rounded; how many is known only after reading them."""
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
    """Bonsai's QLinear: a latent `weight`, with code = round(clamp(w, -1, 1)), and one of `scales` per output row."""

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
                n_rows = len(slab.values)
                yield Latent(slab.values, scales[start : start + n_rows], np.float32(1))
                start += n_rows

        return read

    def refusal(self, target: QuantType) -> str:
        """Why the model cannot be written as this type."""
        if target.name == "I2_S":
            return "I2_S has one scale per tensor and 8-bit activations; this model has a scale per row and 16-bit ones"
        return f"its weights are ternary with one scale per row, which only {', '.join(self.types)} can hold"

    def notes(self, target: QuantType) -> tuple[str, ...]:
        """Raise UnsupportedModel if a scale would be rounded: the conversion must be exact."""
        if target.name in HALF_SCALE_TYPES and self._inexact:
            why = f"fp16 cannot hold the scales of {len(self._inexact)} tensors exactly, such as {self._inexact[0]}"
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
        why = f"{name} has a separate scale but weights other than -1, 0 and 1"
        raise CorruptFile("the checkpoint is corrupt", why=why, tensor=name)
    return Ternary(codes, np.full(len(codes), scale, np.float32))
