import pytest
from gguf import GGML_QUANT_SIZES

from edgellm.errors import UsageError
from edgellm.formats.quant_types import RETIRED_IDS, TYPES, QuantType, find_type, named_type, tensor_nbytes


def test_sizes_and_ids_are_those_of_the_gguf_package():
    ours = {(t.id, t.name): (t.block_size, t.block_bytes) for t in TYPES if t.name not in ("I2_S", "Q2_0_G128")}
    theirs = {(int(t), t.name): size for t, size in GGML_QUANT_SIZES.items()}
    del theirs[9, "Q8_1"]  # 40 bytes there, 36 in ggml since its scales became fp16
    del ours[9, "Q8_1"]
    common = ours.keys() & theirs.keys()
    assert {key: ours[key] for key in common} == {key: theirs[key] for key in common}
    assert theirs.keys() - ours.keys() == set()
    assert {name for _, name in ours.keys() - theirs.keys()} <= {"Q2_0"}  # missing from some releases of the package


def test_ids_and_names_are_unique_and_never_retired():
    assert len({t.name for t in TYPES}) == len(TYPES)
    assert [t.name for t in TYPES if find_type(t.id) is not t] == ["Q2_0_G128"]  # it shares the id of Q2_0
    assert not {t.id for t in TYPES} & RETIRED_IDS.keys()


@pytest.mark.engine
def test_sizes_are_those_of_the_engine(ggml_base):
    added = ("I2_S", "Q2_0_G128")  # by patches, and tested with them
    for quant_type in [t for t in TYPES if t.name not in added]:
        assert ggml_base.ggml_blck_size(quant_type.id) == quant_type.block_size, quant_type
        assert ggml_base.ggml_type_size(quant_type.id) == quant_type.block_bytes, quant_type
        assert ggml_base.ggml_type_name(quant_type.id).decode().upper() == quant_type.name


def test_i2s_stores_two_bits_a_weight_and_one_tail_a_tensor():
    i2s = named_type("i2_s")
    assert i2s is find_type(36)
    assert i2s.ternary
    assert i2s.bpw == 2.0
    assert tensor_nbytes(i2s, (2560, 6912)) == 2560 * 6912 // 4 + 32
    assert not i2s.fits((8640, 3200))  # bitnet_b1_58-3B


@pytest.mark.parametrize(
    ("name", "shape", "nbytes"),
    [("F32", (), 4), ("F16", (7,), 14), ("Q4_0", (64, 3), 108), ("TQ1_0", (512, 2, 2), 8 * 54), ("F32", (0, 5), 0)],
)
def test_nbytes(name: str, shape: tuple[int, ...], nbytes: int):
    assert tensor_nbytes(named_type(name), shape) == nbytes


def test_nbytes_of_a_broken_row_is_a_bug():
    with pytest.raises(ValueError, match="rows of 100 are not a multiple of Q4_0's block of 32"):
        tensor_nbytes(named_type("Q4_0"), (100, 32))


def test_the_types_of_one_magnitude():
    assert [t.name for t in TYPES if t.ternary] == ["TQ1_0", "TQ2_0", "I2_S", "Q2_0", "Q2_0_G128"]
    assert [t.name for t in TYPES if t.binary] == ["Q1_0"]


def test_the_makers_name_of_q2_0():
    assert named_type("Q2_0_g64") is named_type("q2_0")
    assert (named_type("Q2_0").bpw, named_type("q2_0_g128").bpw, named_type("Q1_0").bpw) == (2.25, 2.125, 1.125)


def test_a_misspelt_name_gets_a_suggestion():
    with pytest.raises(UsageError) as caught:
        named_type("Q4_KM")
    assert caught.value.why == "did you mean Q4_K?"


def test_bits_per_weight():
    assert QuantType(12, "Q4_K", 256, 144).bpw == 4.5
