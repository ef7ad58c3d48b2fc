"""Encodings of slabs against the numpy codecs of the gguf package."""

import gguf
import numpy as np
import pytest

from edgellm.errors import UnsupportedModel
from edgellm.formats.quant_types import named_type
from edgellm.formats.ternary import BLOCK_CODECS
from edgellm.weights.slabs import Floats as FloatSlab
from edgellm.weights.slabs import Grouped, Ternary, block_magnitudes, half, holds
from tests.weights.numpy_models import Floats


def tricky() -> Floats:
    """Return rows with zeros, one huge value, rounding ties, and magnitudes from 1e-30 to 1e4."""
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


def grouped(kind: str, rows: int = 6) -> Floats:
    """Return weights that a type holds exactly, with another scale for each block and one block of zeros."""
    target = named_type(kind)
    rng = np.random.default_rng(2)
    codes = rng.integers(-1, 2, (rows, 4, target.block_size)) if target.ternary else None
    signs = rng.choice([-1, 1], (rows, 4, target.block_size)) if codes is None else codes
    scales = rng.random((rows, 4, 1)).astype(np.float16).astype(np.float32)
    scales[1, 2] = 0
    return (signs * scales).astype(np.float32).reshape(rows, -1)


@pytest.mark.parametrize("kind", list(BLOCK_CODECS))
def test_weights_of_one_magnitude_a_block(kind: str) -> None:
    values = grouped(kind)
    data = FloatSlab(values).encode(named_type(kind))
    codes, d = BLOCK_CODECS[kind].unpack(data, name="t")
    decoded = codes.reshape(*d.shape, -1) * d[..., None].astype(np.float32)
    np.testing.assert_array_equal(decoded.reshape(values.shape), values)
    np.testing.assert_array_equal(d, block_magnitudes(values, named_type(kind)))


def test_what_a_type_of_one_magnitude_refuses() -> None:
    q2_0, q1_0 = named_type("Q2_0"), named_type("Q1_0")
    values = grouped("Q2_0")
    assert holds(q2_0, values)
    assert not holds(named_type("Q2_0_G128"), values)
    assert not holds(q1_0, values)  # it has zeros
    assert not holds(q2_0, values[:, :100])
    with pytest.raises(UnsupportedModel) as refused:
        FloatSlab(values).encode(q1_0)
    assert refused.value.why == "its weights are not binary: 128 of them have more than one magnitude"
    with pytest.raises(UnsupportedModel) as refused:
        FloatSlab(np.full((1, 64), 1.0001, np.float32)).encode(q2_0)
    assert refused.value.why == "fp16 cannot hold the scale 1.0001 exactly"


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
