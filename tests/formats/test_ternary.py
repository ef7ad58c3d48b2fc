import ctypes

import numpy as np
import pytest

from edgellm.errors import CorruptFile
from edgellm.formats.ternary import (
    i2_s_scale,
    i2_s_tail,
    pack_bitlinear,
    pack_i2_s,
    pack_q1_0,
    pack_q2_0,
    pack_q2_0_g128,
    pack_tq1_0,
    pack_tq2_0,
    unpack_bitlinear,
    unpack_i2_s,
    unpack_q1_0,
    unpack_q2_0,
    unpack_q2_0_g128,
    unpack_tq1_0,
    unpack_tq2_0,
)


def random_codes(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, (rows, columns), np.int8)


class TestI2S:
    def test_the_picture_of_a_block(self):
        codes = np.full((1, 128), -1, np.int8)
        codes[0, [0, 32, 64, 96]] = [1, 0, -1, 1]  # byte 0: 10 01 00 10
        codes[0, 31 + 96] = 0  # byte 31: 00 00 00 01
        data = pack_i2_s(codes)
        assert data.shape == (1, 32)
        assert (data[0, 0], data[0, 31], data[0, 1:31].any()) == (0b10010010, 0b00000001, False)

    def test_agrees_with_the_formula_of_the_format(self):
        codes = random_codes(6, 384)
        buffer = pack_i2_s(codes).tobytes()
        c = np.frombuffer(buffer, np.uint8).reshape(-1, 32)
        by_formula = np.stack([(c >> s) & 3 for s in (6, 4, 2, 0)], 1).reshape(6, 384).astype(np.int8) - 1
        assert (by_formula == codes).all()

    @pytest.mark.parametrize("columns", [128, 640])
    def test_round_trip(self, columns: int):
        codes = random_codes(5, columns)
        assert (unpack_i2_s(pack_i2_s(codes), name="t") == codes).all()

    def test_slabs_are_independent(self):
        codes = random_codes(9, 256)
        assert (pack_i2_s(codes)[3:7] == pack_i2_s(codes[3:7])).all()

    @pytest.mark.parametrize("shift", [0, 2, 4, 6])
    def test_code_3_is_refused(self, shift: int):
        data = pack_i2_s(random_codes(2, 128))
        data[1, 17] |= 3 << shift
        with pytest.raises(CorruptFile, match="tensor ffn is corrupt") as caught:
            unpack_i2_s(data, name="ffn")
        assert "contain a 3" in caught.value.why

    def test_tail(self):
        tail = i2_s_tail(0.75)
        assert tail == b"\x00\x00\x40\x3f" + bytes(28)
        assert i2_s_scale(np.frombuffer(bytes(32) + tail, np.uint8), name="t") == np.float32(0.75)

    @pytest.mark.parametrize("scale", [np.nan, np.inf])
    def test_a_scale_that_is_no_number_is_refused(self, scale: float):
        with pytest.raises(CorruptFile, match="corrupt"):
            i2_s_scale(np.frombuffer(i2_s_tail(scale), np.uint8), name="t")


def test_codes_that_are_not_ternary_are_a_bug():
    for wrong in (2, -2, 127, -128):
        codes = random_codes(1, 256)
        codes[0, 9] = wrong
        for pack in (pack_i2_s, lambda c: pack_tq2_0(c, np.float16(1)), lambda c: pack_tq1_0(c, np.float16(1))):
            with pytest.raises(ValueError, match="ternary codes"):
                pack(codes)


class TestTQ:
    def test_the_picture_of_tq2_0(self):
        codes = np.full((1, 256), -1, np.int8)
        codes[0, [0, 32, 64, 96]] = [1, 0, -1, 1]  # byte 0: 10 00 01 10
        codes[0, 128 + 5] = 1  # byte 32 + 5: 00 00 00 10
        data = pack_tq2_0(codes, np.float16(1))[0]
        assert (data[0], data[37], data[64:].tobytes()) == (0b10000110, 0b00000010, b"\x00\x3c")

    def test_the_picture_of_tq1_0(self):
        codes = np.full((1, 256), -1, np.int8)
        codes[0, [0, 32, 64, 96, 128]] = [1, 0, 1, -1, 1]  # 2 1 2 0 2 in base 3 = 209
        codes[0, [160, 160 + 64]] = [0, 1]  # 1 0 0 0 2 = 83
        codes[0, [243, 255]] = [1, 1]  # 2 0 0 2 (0) = 168
        data = pack_tq1_0(codes, np.float16(1))[0]
        assert (data[0], data[32], data[51]) == (-(-209 * 256 // 243), -(-83 * 256 // 243), -(-168 * 256 // 243))
        assert np.count_nonzero(data[:52]) == 3

    @pytest.mark.parametrize(("pack", "unpack"), [(pack_tq1_0, unpack_tq1_0), (pack_tq2_0, unpack_tq2_0)])
    def test_round_trip_with_a_scale_for_every_block(self, pack, unpack):
        codes = random_codes(5, 768)
        d = np.random.default_rng(1).random((5, 3)).astype(np.float16)
        found, scales = unpack(pack(codes, d), name="t")
        assert (found == codes).all()
        assert (scales == d).all()

    def test_a_scale_a_row(self):
        d = np.array([[1], [2]], np.float16)
        assert unpack_tq2_0(pack_tq2_0(random_codes(2, 512), d), name="t")[1].tolist() == [[1, 1], [2, 2]]

    def test_code_3_is_refused_in_tq2_0(self):
        data = pack_tq2_0(random_codes(2, 256), np.float16(1))
        data[1, 40] = 0xFF
        with pytest.raises(CorruptFile, match="tensor t is corrupt"):
            unpack_tq2_0(data, name="t")

    def test_every_byte_of_tq1_0_is_some_code(self):
        data = np.zeros((1, 54 * 6), np.uint8)
        data.reshape(6, 54)[:, :48].flat[:256] = np.arange(256)
        assert set(np.unique(unpack_tq1_0(data, name="t")[0])) == {-1, 0, 1}

    @pytest.mark.parametrize(("pack", "unpack"), [(pack_tq1_0, unpack_tq1_0), (pack_tq2_0, unpack_tq2_0)])
    def test_a_scale_that_is_no_number_is_refused(self, pack, unpack):
        with pytest.raises(CorruptFile, match="corrupt"):
            unpack(pack(random_codes(1, 256), np.float16("nan")), name="t")


class TestGroups:
    """Q2_0 in its two sizes, and Q1_0."""

    def test_the_picture_of_q2_0(self):
        codes = np.full((1, 128), -1, np.int8)
        codes[0, [0, 1, 2, 3]] = [1, 0, -1, 2]  # byte 0: 11 00 01 10
        codes[0, 64 + 63] = 1  # the last byte of the second block: 10 00 00 00
        data = pack_q2_0(codes, np.array([[1, 2]], np.float16))[0]
        assert data[:3].tobytes() == b"\x00\x3c" + bytes([0b11000110])
        assert (data[18:20].tobytes(), data[35]) == (b"\x00\x40", 0b10000000)
        assert np.count_nonzero(data) == 4

    def test_128_weights_share_the_scale_of_a_larger_block(self):
        codes = np.concatenate([random_codes(1, 64), random_codes(1, 64, seed=1)], axis=1)
        small, large = pack_q2_0(codes, np.float16(3))[0], pack_q2_0_g128(codes, np.float16(3))[0]
        assert large.tobytes() == small[:18].tobytes() + small[20:].tobytes()

    def test_the_picture_of_q1_0(self):
        codes = np.full((1, 128), -1, np.int8)
        codes[0, [0, 9, 127]] = 1
        data = pack_q1_0(codes, np.float16(1))[0]
        assert data.tobytes() == b"\x00\x3c" + bytes([1, 2, *[0] * 13, 128])

    @pytest.mark.parametrize(
        ("pack", "unpack", "blocks"),
        [(pack_q2_0, unpack_q2_0, 6), (pack_q2_0_g128, unpack_q2_0_g128, 3), (pack_q1_0, unpack_q1_0, 3)],
    )
    def test_round_trip(self, pack, unpack, blocks: int):
        codes = np.random.default_rng(0).integers(-1, 3, (5, 384), np.int8)
        if pack is pack_q1_0:
            codes = np.where(codes > 0, np.int8(1), np.int8(-1))
        d = np.random.default_rng(1).random((5, blocks)).astype(np.float16)
        found, scales = unpack(pack(codes, d), name="t")
        assert (found == codes).all()
        assert (scales == d).all()
        with pytest.raises(CorruptFile, match="tensor t is corrupt"):
            unpack(pack(codes, np.float16("inf")), name="t")

    def test_q2_0_has_four_codes_and_no_more(self):
        with pytest.raises(ValueError, match="ternary codes"):
            pack_q2_0(np.full((1, 64), 3, np.int8), np.float16(1))


class TestBitlinear:
    def test_the_picture(self):
        codes = np.array([[1, -1], [0, 0], [-1, 1], [1, 0], [0, 0], [-1, -1], [-1, 1], [1, 1]], np.int8)
        # column 0, rows 0 2 4 6: 2 0 1 0 from the low bits up; rows 1 3 5 7: 1 2 0 2
        assert pack_bitlinear(codes)[:, 0].tolist() == [0b00010010, 0b10001001]

    def test_round_trip_in_slabs_that_cross_the_quarters(self):
        codes = random_codes(24, 10)
        packed = pack_bitlinear(codes)
        assert packed.shape == (6, 10)
        for start in range(24):
            for stop in range(start, 25):
                assert (unpack_bitlinear(packed, name="t", start=start, stop=stop) == codes[start:stop]).all()

    def test_code_3_is_refused_where_it_is(self):
        packed = pack_bitlinear(random_codes(8, 4))
        packed[1, 2] |= 0b11000000  # row 1 + 3 * 2
        unpack_bitlinear(packed, name="t", stop=7)
        with pytest.raises(CorruptFile, match="tensor t is corrupt"):
            unpack_bitlinear(packed, name="t", start=7)


@pytest.mark.engine
class TestAgainstTheEngine:
    """Compares with ggml's reference quantizers, which give a block of zeros the scale 0."""

    @pytest.mark.parametrize("kind", ["tq1_0", "tq2_0"])
    @pytest.mark.parametrize("scale", [1.0, 0.0123, 3e-5, 60000.0, 1e-7])
    def test_bytes_and_values_are_equal(self, ggml_base: ctypes.CDLL, kind: str, scale: float):
        pack, unpack = {"tq1_0": (pack_tq1_0, unpack_tq1_0), "tq2_0": (pack_tq2_0, unpack_tq2_0)}[kind]
        codes = random_codes(7, 1024, seed=int(scale))
        codes[2, 256:512] = 0
        weights = codes * np.float32(scale)
        amax = np.abs(weights).reshape(7, 4, 256).max(-1)
        ours = pack(codes, amax.astype(np.float16))
        theirs = np.zeros_like(ours)
        getattr(ggml_base, f"quantize_row_{kind}_ref")(_pointer(weights), _pointer(theirs), ctypes.c_int64(codes.size))
        assert ours.tobytes() == theirs.tobytes()
        values = np.empty_like(weights)
        getattr(ggml_base, f"dequantize_row_{kind}")(_pointer(ours), _pointer(values), ctypes.c_int64(codes.size))
        found, d = unpack(ours, name="t")
        assert ((found.reshape(7, 4, 256) * d[..., None].astype(np.float32)).reshape(7, 1024) == values).all()

    @pytest.mark.parametrize("scale", [1.0, 0.0123, 3e-5, 60000.0])
    def test_groups_are_equal(self, ggml_base: ctypes.CDLL, scale: float):
        codes = random_codes(7, 1024)
        codes[2, 256:512] = 0
        signs = np.where(codes > 0, np.int8(1), np.int8(-1))
        signs[3, :128] = 0
        half = np.float16(scale)
        for kind, pack, block, used in (("q2_0", pack_q2_0, 64, codes), ("q1_0", pack_q1_0, 128, signs)):
            weights = used * np.float32(half)
            amax = np.abs(weights).reshape(7, -1, block).max(-1)
            ours = pack(used, amax.astype(np.float16))
            theirs = np.zeros_like(ours)
            encode = getattr(ggml_base, f"quantize_row_{kind}_ref")
            encode(_pointer(weights), _pointer(theirs), ctypes.c_int64(used.size))
            assert ours.tobytes() == theirs.tobytes()

    @pytest.mark.parametrize(("kind", "unpack", "block"), [("q2_0", unpack_q2_0, 64), ("q1_0", unpack_q1_0, 128)])
    def test_every_byte_of_a_group_decodes_equally(self, ggml_base: ctypes.CDLL, kind: str, unpack, block: int):
        data = np.random.default_rng(5).integers(0, 256, (1, 18 * 64), np.uint8)
        data.reshape(64, 18)[:, :2] = np.array([0.75], "<f2").view(np.uint8)
        values = np.empty((1, block * 64), np.float32)
        getattr(ggml_base, f"dequantize_row_{kind}")(_pointer(data), _pointer(values), ctypes.c_int64(values.size))
        assert (unpack(data, name="t")[0] * np.float32(0.75) == values).all()

    def test_every_byte_of_tq1_0_decodes_equally(self, ggml_base: ctypes.CDLL):
        data = np.random.default_rng(5).integers(0, 256, (1, 54 * 64), np.uint8)
        data.reshape(64, 54)[:, 52:] = np.array([1], "<f2").view(np.uint8)
        values = np.empty((1, 256 * 64), np.float32)
        ggml_base.dequantize_row_tq1_0(_pointer(data), _pointer(values), ctypes.c_int64(values.size))
        assert (unpack_tq1_0(data, name="t")[0] == values).all()


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)
