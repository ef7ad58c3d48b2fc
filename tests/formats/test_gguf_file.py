import gc
import struct
import time
from pathlib import Path

import gguf as gguf_package
import numpy as np
import pytest

from edgellm.errors import CorruptFile, EdgellmError, ModelNotFound, UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile, check_tensors
from edgellm.formats.gguf_header import HeaderIncomplete, parse_header
from tests.formats.gguf_bytes import (
    ARRAY,
    FLOAT32,
    LLAMA,
    STRING,
    UINT64,
    array,
    gguf,
    string,
    strings,
    tensor,
    text,
    tiny_model,
    u32,
)


@pytest.fixture
def opened(tmp_path: Path):
    """Open bytes as a file."""
    files = []

    def open_bytes(data: bytes) -> GGUFFile:
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        files.append(GGUFFile.open(path))
        return files[-1]

    yield open_bytes
    for file in files:
        file.close()


def refusal(opened, data: bytes, kind: type[EdgellmError] = CorruptFile) -> str:
    with pytest.raises(kind) as caught:
        opened(data)
    assert type(caught.value) is kind
    return f"{caught.value.what}: {caught.value.why}"


class TestReading:
    def test_everything_in_a_tiny_model(self, opened):
        model = opened(tiny_model())
        assert (model.version, model.architecture, model.n_params) == (3, "llama", 7 + 192 + 256)
        assert model.get_int(model.key("context_length")) == 2048
        assert model.get_float("llama.rope.freq_base") == 10000.0
        assert model.get_bool("tokenizer.ggml.add_bos_token") is True
        assert model.get_ints("llama.attention.head_count_kv", 2) == [4, 2]
        assert model.get_ints("llama.context_length", 3) == [2048] * 3
        tokens = model.get_array("tokenizer.ggml.tokens")
        assert (len(tokens), list(tokens), tokens[2]) == (4, ["<s>", "", "▁café", "x" * 300], "▁café")
        scores = model.get_array("tokenizer.ggml.scores")
        assert (list(scores), scores[-1], scores[1:3]) == ([0, -1, -2, -3], -3, [-1, -2])
        info = model.tensors["b.weight"]
        assert (info.type.name, info.shape, info.nbytes, info.offset) == ("I2_S", (128, 2), 96, model.data_offset + 160)
        assert model.tensor_bytes("norm.weight").view(np.float32).tolist() == list(range(7))
        assert model.tensor_bytes(model.tensors["a.weight"]).tolist() == list(range(108))

    def test_version_2_is_the_same(self, opened):
        assert opened(gguf([LLAMA], version=2)).version == 2

    def test_bytes_that_are_no_utf8_do_not_stop_a_vocabulary(self, opened):
        assert opened(gguf([text("a", b"\xff!")])).get_str("a") == "\ufffd!"

    def test_agrees_with_the_gguf_package(self, tmp_path: Path):
        path = tmp_path / "theirs.gguf"
        writer = gguf_package.GGUFWriter(path, "phi3")
        writer.add_context_length(4096)
        writer.add_token_list([f"token {i}" for i in range(500)])
        writer.add_token_types([1] * 500)
        writer.add_array("float", [0.5, 2.0])
        writer.add_key_value("small", -3, gguf_package.GGUFValueType.INT8)
        writer.add_tensor("a", np.arange(96, dtype=np.float32).reshape(3, 32))
        writer.add_tensor("b", np.arange(5, dtype=np.float16))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        theirs = gguf_package.GGUFReader(path)
        with GGUFFile.open(path) as ours:
            for key, field in theirs.fields.items():
                if not key.startswith("GGUF."):
                    value = ours.metadata[key]
                    assert (list(value) if isinstance(field.contents(), list) else value) == field.contents()
            for expected in theirs.tensors:
                info = ours.tensors[expected.name]
                assert (list(info.shape), info.nbytes) == (list(expected.shape), expected.n_bytes)
                assert info.offset == expected.data_offset
                assert ours.tensor_bytes(info).tobytes() == expected.data.tobytes()

    def test_a_llama_3_vocabulary_opens_fast(self, opened):
        tokens = strings("tokenizer.ggml.tokens", (f"token{i}" for i in range(128_256)))
        merges = strings("tokenizer.ggml.merges", (f"ab{i} cd" for i in range(280_147)))
        data = gguf([LLAMA, tokens, merges])
        opened(data)
        seconds = min(_timed(opened, data) for _ in range(3))
        assert seconds < 0.5  # 0.03 s on an idle machine; decoding every string takes more

    def test_arrays_of_tensor_bytes_outlive_the_file(self, opened):
        model = opened(tiny_model())
        data = model.tensor_bytes("norm.weight")
        model.close()
        del model
        gc.collect()
        assert data.view(np.float32)[6] == 6

    def test_a_released_tensor_can_be_read_again(self, opened):
        model = opened(tiny_model())
        data = model.tensor_bytes("a.weight")
        before = data.tolist()
        model.release("a.weight")
        assert data.tolist() == before


def _timed(opened, data: bytes) -> float:
    start = time.process_time()
    opened(data)
    return time.process_time() - start


class TestGetters:
    @pytest.mark.parametrize("getter", ["get_int", "get_float", "get_bool", "get_str", "get_array"])
    def test_an_absent_key_is_named(self, opened, getter: str):
        with pytest.raises(CorruptFile) as caught:
            getattr(opened(gguf([LLAMA])), getter)("llama.context_length")
        assert caught.value.why == "it has no metadata key 'llama.context_length'"

    def test_defaults(self, opened):
        model = opened(gguf([LLAMA]))
        assert model.get_int("a", 0) == 0
        assert model.get_float("a", 0.5) == 0.5
        assert model.get_bool("a", False) is False
        assert model.get_str("a", "") == ""

    @pytest.mark.parametrize("getter", ["get_float", "get_bool", "get_int", "get_array"])
    def test_a_value_of_another_type_is_named(self, opened, getter: str):
        with pytest.raises(CorruptFile, match=r"model\.gguf is corrupt") as caught:
            getattr(opened(gguf([LLAMA])), getter)("general.architecture")
        assert "'general.architecture' should hold" in caught.value.why
        assert "holds 'llama'" in caught.value.why

    def test_a_number_is_no_string_and_true_is_no_number(self, opened):
        model = opened(tiny_model())
        with pytest.raises(CorruptFile):
            model.get_str("llama.context_length")
        with pytest.raises(CorruptFile):
            model.get_int("tokenizer.ggml.add_bos_token")
        with pytest.raises(CorruptFile, match="corrupt"):
            model.get_ints("llama.attention.head_count_kv", 3)


class TestOtherFiles:
    @pytest.mark.parametrize(
        ("data", "meaning"),
        [
            (b"", "it is empty"),
            (b"<!DOCTYPE html><html>", "an HTML page"),
            (b'{"error": "not found"}', "JSON text"),
            (b"PK\x03\x04" + bytes(40), "a zip archive"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
            (struct.pack("<Q", 40) + b'{"a":{}}' + bytes(32), "a safetensors checkpoint"),
            (b"tjgg" + bytes(40), "before GGUF"),
            (bytes(500), "zero bytes only"),
            (b"\x93NUMPY\x01\x00" + bytes(40), "unknown data starting with"),
        ],
    )
    def test_are_named(self, opened, data: bytes, meaning: str):
        said = refusal(opened, data)
        assert said.startswith("model.gguf is not a GGUF file: ")
        assert meaning in said

    def test_no_file_at_all(self, tmp_path: Path):
        with pytest.raises(ModelNotFound):
            GGUFFile.open(tmp_path / "absent.gguf")

    def test_a_directory(self, tmp_path: Path):
        with pytest.raises(EdgellmError, match="cannot be read"):
            GGUFFile.open(tmp_path)

    def test_big_endian(self, opened):
        data = b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
        assert "big-endian" in refusal(opened, data, UnsupportedModel)

    @pytest.mark.parametrize("version", [0, 1, 4])
    def test_other_versions(self, opened, version: int):
        assert f"version {version}" in refusal(opened, gguf(version=version), UnsupportedModel)


class TestHostileHeaders:
    def test_every_truncation_is_refused(self):
        data = tiny_model()
        for size in range(4, len(data)):
            with pytest.raises(CorruptFile) as caught:
                check_tensors(parse_header(data[:size], file_size=size, name="x"), file_size=size, name="x")
            assert "truncated" in caught.value.why

    def test_truncation_reports_the_sizes(self, opened):
        data = tiny_model()
        with pytest.raises(CorruptFile) as caught:
            opened(data[:-1])
        assert caught.value.facts["expected"] == len(data)
        assert caught.value.facts["actual"] == len(data) - 1

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (gguf(n_tensors=2**63), "it claims 9223372036854775808 tensors"),
            (gguf(n_keys=2**40), "metadata keys"),
            (gguf([string("k") + struct.pack("<I", 13)]), "unknown value type 13"),
            (gguf([string("k") + struct.pack("<IQ", STRING, 2**64 - 1)]), "truncated"),
            (gguf([string(b"")]), "length of 0 bytes"),
            (gguf([struct.pack("<Q", 2**62)]), "a metadata key has a length of"),
            (gguf([string(b"\xff") + bytes(12)]), "a metadata key is not UTF-8"),
            (gguf([string(b"\0b") + bytes(12)]), "a metadata key, '\\x00b', contains a NUL"),
            (gguf([array("k", FLOAT32, 2**62, b"")]), "truncated"),
            (gguf([array("k", STRING, 2**61, b"")]), "truncated"),
            (gguf([strings("k", ["a", "b"], count=9)]), "truncated"),
            (gguf([array("k", STRING, 2, string("a") + struct.pack("<Q", 2**64 - 9))]), "truncated"),
            (gguf([array("k", ARRAY, 1, b"")]), "an array of arrays"),
            (gguf([u32("k", 1), u32("k", 2)]), "the metadata key 'k' appears twice"),
            (gguf([u32("general.alignment", 24)]), "general.alignment is 24, not a power of two"),
            (gguf([u32("general.alignment", 0)]), "general.alignment is 0"),
            (gguf([text("general.alignment", "32")]), "general.alignment is a STRING, not a UINT32"),
            (gguf(tensors=[tensor("t", [1], 0, 0)] * 2, data=bytes(4)), "the tensor 't' appears twice"),
            (gguf(tensors=[tensor("t", [1] * 5, 0, 0)], data=bytes(4)), "5 dimensions"),
            (gguf(tensors=[tensor("t", [2**32, 2**32], 0, 0)]), "impossible shape"),
            (gguf(tensors=[tensor("t", [2**62], 0, 0)]), "truncated: tensor 't'"),
            (
                gguf(tensors=[tensor("t", [33], 2, 0)], data=bytes(64)),
                "33, not a multiple of Q4_0's block of 32",
            ),
            (gguf(tensors=[tensor("t", [1], 0, 32)], data=bytes(64)), "tensor 't' starts at byte 96, not at 64"),
            (gguf(tensors=[tensor("t", [1], 0, 2**64 - 32)], data=bytes(64)), "not at 64 where"),
            (gguf(tensors=[tensor("t", [9], 0, 0), tensor("u", [1], 0, 0)], data=bytes(64)), "tensor 'u' starts at"),
        ],
    )
    def test_are_refused(self, opened, data: bytes, why: str):
        assert why in refusal(opened, data)

    def test_a_huge_alignment_is_a_missing_tensor(self, opened):
        data = gguf([u32("general.alignment", 2**31)], [tensor("t", [1], 0, 0)], bytes(64))
        assert "truncated: tensor 't'" in refusal(opened, data)

    @pytest.mark.parametrize(
        ("type_id", "why"), [(38, "TL1 of bitnet.cpp"), (4, "Q4_2, removed"), (999, "unknown to this")]
    )
    def test_types_that_the_engine_lacks(self, opened, type_id: int, why: str):
        data = gguf(tensors=[tensor("blk.0.ffn_up.weight", [256], type_id, 0)], data=bytes(512))
        said = refusal(opened, data, UnsupportedModel)
        assert f"tensor 'blk.0.ffn_up.weight' has type {type_id}, {why}" in said


class TestGroupsOf128:
    """prism-ml packs 128 weights into 34 bytes, under the id that ggml uses for 64 weights in 18 bytes."""

    @pytest.mark.parametrize("padding", [0, 24])
    def test_are_distinguished_from_the_engines_q2_0(self, opened, padding: int):
        tensors = [tensor("a", [1024, 2], 42, 0), tensor("norm", [8], 0, 544), tensor("b", [256, 1], 42, 576)]
        model = opened(gguf([LLAMA], tensors, bytes(576 + 68 + padding)))
        assert [info.type.name for info in model.tensors.values()] == ["Q2_0_G128", "F32", "Q2_0_G128"]
        assert [info.nbytes for info in model.tensors.values()] == [544, 32, 68]

    def test_in_a_last_tensor(self, opened):
        model = opened(gguf([LLAMA], [tensor("a", [1024, 2], 42, 0)], bytes(544)))
        assert model.tensors["a"].type.name == "Q2_0_G128"

    def test_the_engines_own_are_read(self, opened):
        data = gguf([LLAMA], [tensor("a", [256, 2], 42, 0), tensor("norm", [8], 0, 160)], bytes(160 + 32))
        assert opened(data).tensors["a"].type.name == "Q2_0"
        assert opened(data).tensors["a"].nbytes == 144

    @pytest.mark.parametrize(("rows", "size"), [(2, 300), (2, 543), (2, 575)])
    def test_sizes_that_fit_neither_are_refused(self, opened, rows: int, size: int):
        said = refusal(opened, gguf([LLAMA], [tensor("a", [1024, rows], 42, 0)], bytes(size)))
        assert "truncated" in said
        assert "Q2_0_G128 does not fit either" in said

    def test_a_mix_of_both_is_refused(self, opened):
        tensors = [tensor("a", [1024, 2], 42, 0), tensor("b", [1024, 2], 42, 576), tensor("norm", [8], 0, 1120)]
        assert "tensor 'norm' starts at" in refusal(opened, gguf([LLAMA], tensors, bytes(1152)))


class TestPrefixes:
    def test_a_growing_prefix_ends_with_the_whole_header(self):
        data = tiny_model()
        available, steps = 0, 0
        while True:
            try:
                header = parse_header(data[:available], file_size=len(data), name="remote.gguf")
                break
            except HeaderIncomplete as incomplete:
                assert available < incomplete.needed <= len(data)
                available, steps = incomplete.needed, steps + 1
        assert steps < 200
        assert header.metadata["general.architecture"] == "llama"
        assert [raw.name for raw in header.tensors] == ["norm.weight", "a.weight", "b.weight"]

    def test_every_prefix_asks_for_more_or_is_enough(self):
        data = tiny_model()
        enough = []
        for size in range(len(data)):
            try:
                enough.append(len(parse_header(data[:size], file_size=len(data), name="x").tensors))
            except HeaderIncomplete as incomplete:
                assert incomplete.needed > size
                assert not enough
        assert enough
        assert set(enough) == {3}

    def test_a_value_larger_than_the_file_needs_no_more_bytes(self):
        data = gguf([array("k", UINT64, 2**50, b"")])
        with pytest.raises(CorruptFile, match="corrupt"):
            parse_header(data, file_size=10**9, name="x")

    def test_a_header_that_never_ends_is_refused(self):
        data = gguf([array("k", UINT64, 2**30, b"")])
        with pytest.raises(CorruptFile) as caught:
            parse_header(data, file_size=2**40, name="x")
        assert "larger than 256 MiB" in caught.value.why
