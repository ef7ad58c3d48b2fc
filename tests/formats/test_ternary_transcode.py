import itertools
import math

import numpy as np
import pytest

from edgellm.errors import CorruptFile, LossyTranscode
from edgellm.formats import ternary_transcode
from edgellm.formats.quant_types import tensor_nbytes
from edgellm.formats.ternary import (
    BLOCK_CODECS,
    i2_s_tail,
    pack_i2_s,
    pack_q1_0,
    pack_q2_0,
    pack_tq1_0,
    pack_tq2_0,
    unpack_q2_0,
    unpack_tq1_0,
    unpack_tq2_0,
)
from edgellm.formats.ternary_transcode import I2_S, Q1_0, Q2_0, Q2_0_G128, TQ1_0, TQ2_0, half_scales, transcode

SHAPE = (512, 12)
CODES = np.random.default_rng(3).integers(-1, 2, (12, 512), np.int8)
BF16_SCALE = 1.21875  # as official checkpoints have: 8 bits of mantissa


def tensor_of(kind, codes=CODES, scale=BF16_SCALE) -> np.ndarray:
    if kind is I2_S:
        return np.frombuffer(pack_i2_s(codes).tobytes() + i2_s_tail(scale), np.uint8)
    return BLOCK_CODECS[kind.name].pack(codes, np.float16(scale)).reshape(-1)


def run(tensor, source, target, shape=SHAPE, **options) -> np.ndarray:
    return np.concatenate([s.reshape(-1) for s in transcode(tensor, shape, source, target, name="t", **options)])


@pytest.mark.parametrize(("source", "target"), [*itertools.product((I2_S, TQ1_0, TQ2_0, Q2_0, Q2_0_G128), repeat=2)])
@pytest.mark.parametrize("slab_weights", [1 << 22, 512 * 5])
def test_every_pair_is_lossless(source, target, slab_weights: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ternary_transcode, "SLAB_WEIGHTS", slab_weights)
    there = run(tensor_of(source), source, target)
    assert len(there) == tensor_nbytes(target, SHAPE)
    assert (there == tensor_of(target)).all()
    assert (run(there, target, source) == tensor_of(source)).all()


def test_experts_are_rows_like_others():
    shape = (512, 4, 3)
    assert math.prod(shape) == CODES.size
    assert (run(tensor_of(I2_S), I2_S, TQ2_0, shape) == tensor_of(TQ2_0)).all()


def test_padding_with_garbage_does_not_matter():
    tensor = tensor_of(I2_S).copy()
    tensor[-28:] = 0xAB
    assert (run(tensor, I2_S, TQ2_0) == tensor_of(TQ2_0)).all()
    assert (run(tensor, I2_S, I2_S) == tensor_of(I2_S)).all()


class TestScales:
    def test_a_scale_beyond_fp16_is_refused_before_anything_is_made(self):
        with pytest.raises(LossyTranscode) as caught:
            transcode(tensor_of(I2_S, scale=1.2345678), SHAPE, I2_S, TQ2_0, name="t")
        assert caught.value.why == "its scale 1.2345678 would become 1.234 in fp16"

    def test_or_rounded_when_that_is_asked_for(self):
        rounded = run(tensor_of(I2_S, scale=1.2345678), I2_S, TQ2_0, round_scale=True)
        assert (rounded == tensor_of(TQ2_0, scale=1.234)).all()

    @pytest.mark.parametrize("scale", [1e6, 1e-9, 3e-8])
    def test_but_never_by_more_than_rounding(self, scale: float):
        with pytest.raises(LossyTranscode):
            run(tensor_of(I2_S, scale=scale), I2_S, TQ1_0, round_scale=True)

    def test_one_scale_a_row_does_not_fit_i2_s(self):
        rows = np.arange(1, 13, dtype=np.float16)[:, None]
        tensor = pack_tq2_0(CODES, rows).reshape(-1)
        with pytest.raises(LossyTranscode) as caught:
            transcode(tensor, SHAPE, TQ2_0, I2_S, name="t")
        assert caught.value.why == "it has 12 different scales, but I2_S holds one per tensor"
        assert (run(tensor, TQ2_0, TQ1_0) == pack_tq1_0(CODES, rows).reshape(-1)).all()

    @pytest.mark.parametrize(("pack", "kind"), [(pack_tq1_0, TQ1_0), (pack_tq2_0, TQ2_0)])
    def test_blocks_without_a_scale_hold_zeros(self, pack, kind):
        d = np.full((12, 2), BF16_SCALE, np.float16)
        d[3, 1] = d[7, 0] = 0
        codes = CODES.copy()
        codes[3, 256:] = codes[7, :256] = 0
        assert (run(pack(CODES, d).reshape(-1), kind, I2_S) == tensor_of(I2_S, codes)).all()

    def test_all_zero(self):
        tensor = tensor_of(TQ2_0, np.zeros_like(CODES), scale=0)
        assert (run(run(tensor, TQ2_0, I2_S), I2_S, TQ2_0) == tensor).all()

    def test_half_scales(self):
        exact = np.array([[1.5], [-0.25], [2**-14], [0.0]], np.float32)
        assert (half_scales(exact, name="t") == exact).all()
        assert half_scales([], name="t").size == 0
        with pytest.raises(LossyTranscode):
            half_scales([1.0, np.nan], name="t", round_scale=True)
        with pytest.raises(LossyTranscode, match="tensor t cannot have fp16 scales"):
            half_scales([1.0, 1.0001], name="t")


class TestWrongTensors:
    def test_rows_that_are_no_multiple_of_256(self):
        codes = CODES[:, :384]
        with pytest.raises(LossyTranscode) as caught:
            transcode(tensor_of(I2_S, codes), (384, 12), I2_S, TQ2_0, name="t")
        assert caught.value.why == "its rows of 384 are not a multiple of TQ2_0's block of 256"

    @pytest.mark.parametrize(("source", "target"), [*itertools.product((I2_S, TQ2_0), (I2_S, TQ1_0, TQ2_0))])
    def test_code_3(self, source, target):
        tensor = tensor_of(source).copy()
        tensor[40] = 0xFF
        with pytest.raises(CorruptFile, match="tensor t is corrupt"):
            run(tensor, source, target)

    def test_scales_that_are_no_numbers(self):
        with pytest.raises(CorruptFile):
            transcode(tensor_of(I2_S, scale=np.nan), SHAPE, I2_S, TQ2_0, name="t")
        with pytest.raises(CorruptFile):
            transcode(tensor_of(I2_S, scale=np.nan), SHAPE, I2_S, I2_S, name="t")
        with pytest.raises(CorruptFile):
            transcode(tensor_of(TQ1_0, scale=np.inf), SHAPE, TQ1_0, I2_S, name="t")


def test_both_tq_types_hold_what_was_put_in():
    for kind, unpack in ((TQ1_0, unpack_tq1_0), (TQ2_0, unpack_tq2_0)):
        codes, d = unpack(run(tensor_of(I2_S), I2_S, kind).reshape(12, -1), name="t")
        assert (codes == CODES).all()
        assert (d == np.float16(BF16_SCALE)).all()


class TestGroups:
    """Scales for 64 or 128 weights become scales for 256 only where they agree."""

    def test_binary_weights_fit_everywhere_and_come_back(self):
        signs = np.where(CODES > 0, np.int8(1), np.int8(-1))
        tensor = tensor_of(Q1_0, signs)
        for kind in (I2_S, TQ1_0, TQ2_0, Q2_0, Q2_0_G128):
            there = run(tensor, Q1_0, kind)
            assert (there == tensor_of(kind, signs)).all()
            assert (run(there, kind, Q1_0) == tensor).all()

    def test_zeros_do_not_become_one_bit(self):
        for kind in (I2_S, TQ2_0, Q2_0):
            with pytest.raises(LossyTranscode) as caught:
                transcode(tensor_of(kind), SHAPE, kind, Q1_0, name="t")
            assert caught.value.why == "some of its weights are 0, which one bit cannot say"

    def test_a_scale_for_every_64_weights_stays_with_q2_0(self):
        d = np.arange(1, 97, dtype=np.float16).reshape(12, 8)
        tensor = pack_q2_0(CODES, d).reshape(-1)
        for kind in (Q2_0_G128, TQ1_0, TQ2_0, I2_S):
            with pytest.raises(LossyTranscode):
                transcode(tensor, SHAPE, Q2_0, kind, name="t")
        pairs = np.repeat(d[:, ::2], 2, axis=1)
        tensor = pack_q2_0(CODES, pairs).reshape(-1)
        there = run(tensor, Q2_0, Q2_0_G128)
        assert (there == BLOCK_CODECS["Q2_0_G128"].pack(CODES, d[:, ::2]).reshape(-1)).all()
        assert (run(there, Q2_0_G128, Q2_0) == tensor).all()

    def test_a_group_without_a_scale_joins_its_neighbour_as_zeros(self):
        d = np.full((12, 8), BF16_SCALE, np.float16)
        d[3, 1] = d[5, 0] = 0
        codes = CODES.copy()
        codes[3, 64:128] = codes[5, :64] = 0
        assert (run(pack_q2_0(CODES, d).reshape(-1), Q2_0, TQ2_0) == tensor_of(TQ2_0, codes)).all()

    def test_twice_the_scale_stays_with_q2_0(self):
        codes = CODES.copy()
        codes[4, 300] = 2
        tensor = tensor_of(Q2_0, codes)
        with pytest.raises(LossyTranscode) as caught:
            transcode(tensor, SHAPE, Q2_0, TQ2_0, name="t")
        assert caught.value.why == "some of its weights are twice the scale, which only Q2_0 holds"
        assert (run(run(tensor, Q2_0, Q2_0_G128), Q2_0_G128, Q2_0) == tensor).all()
        assert unpack_q2_0(tensor.reshape(12, -1), name="t")[0].max() == 2

    def test_negative_scales_are_kept(self):
        tensor = pack_q1_0(np.where(CODES > 0, np.int8(1), np.int8(-1)), np.float16(-0.5)).reshape(-1)
        assert (run(run(tensor, Q1_0, TQ2_0), TQ2_0, Q1_0) == tensor).all()
