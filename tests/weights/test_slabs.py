"""Encodings of slabs against the numpy codecs of the gguf package."""

import gguf
import numpy as np
import pytest

from edgellm.errors import UnsupportedModel
from edgellm.formats.quant_types import named_type
from edgellm.weights.slabs import Floats as FloatSlab
from edgellm.weights.slabs import Grouped, Ternary, half, ternary_rows
from tests.weights.numpy_models import Floats


def tricky() -> Floats:
    """Rows with zeros, one huge value, ties of rounding, and magnitudes from 1e-30 to 1e4."""
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((64, 256)).astype(np.float32)
    rows[0] = 0
    rows[1] *= 1e-30
    rows[2] *= 1e4
    rows[3] = np.arange(256) / 2 - 63.5
    rows[4, ::2] = 0
    return rows


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0"])
def test_plain_weights_are_encoded_as_gguf_does(name: str) -> None:
    expected = gguf.quants.quantize(tricky(), gguf.GGMLQuantizationType[name]).view(np.uint8)
    np.testing.assert_array_equal(FloatSlab(tricky()).encode(named_type(name)), expected.reshape(64, -1))


def test_half_precision_ends_at_65504() -> None:
    assert half(np.array([65504, 65519], np.float32)).tolist() == [65504, 65504]
    with pytest.raises(UnsupportedModel, match="fp16") as refused:
        half(np.array([1, -65520], np.float32))
    assert "65520" in refused.value.why


def test_rows_that_are_ternary_already() -> None:
    rows = np.array([[0.5, 0, -0.5, 0.5], [0, 0, 0, 0], [-2, -2, 0, 2]], np.float32)
    slab = ternary_rows(rows)
    assert slab.codes.tolist() == [[1, 0, -1, 1], [0, 0, 0, 0], [-1, -1, 0, 1]]
    assert slab.scales.tolist() == [0.5, 0, 2]
    with pytest.raises(UnsupportedModel, match="ternary"):
        ternary_rows(np.array([[0.5, 0.25]], np.float32))


def test_ternary_in_q4_0_is_exact() -> None:
    codes = np.random.default_rng(0).integers(-1, 2, (8, 64)).astype(np.int8)
    scales = np.linspace(0.25, 2, 8, dtype=np.float32)
    data = Ternary(codes, scales).encode(named_type("Q4_0"))
    np.testing.assert_array_equal(gguf.quants.dequantize(data, gguf.GGMLQuantizationType.Q4_0), codes * scales[:, None])


def test_four_bit_groups() -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 16, (8, 128)).astype(np.uint8)
    scales = rng.random((8, 2)).astype(np.float16)
    slab = Grouped(codes, scales, np.full((8, 2), 8, np.uint8))
    expected = (codes.astype(np.float32) - 8) * scales.astype(np.float32).repeat(64, axis=1)
    np.testing.assert_array_equal(slab.values, expected)
    for name in ("Q4_0", "Q4_1"):
        data = slab.encode(named_type(name))
        np.testing.assert_array_equal(gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name]), expected)
    with pytest.raises(ValueError, match="zero"):
        Grouped(codes, scales, np.full((8, 2), 7, np.uint8)).encode(named_type("Q4_0"))
