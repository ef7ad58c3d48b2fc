import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from edgellm.errors import CorruptFile, EdgellmError, ModelNotFound, UnsupportedModel
from edgellm.formats.safetensors_file import SafetensorsFile
from tests.formats.safetensors_bytes import entry, raw, safetensors

ONE = entry("F32", [1], 0, 4)


@pytest.fixture
def opened(tmp_path: Path):
    """Open bytes as a file."""

    def open_bytes(data: bytes) -> SafetensorsFile:
        path = tmp_path / "model.safetensors"
        path.write_bytes(data)
        return SafetensorsFile.open(path)

    return open_bytes


class TestReading:
    def test_every_kind_comes_back(self, opened):
        arrays = {
            "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
            "f16": np.arange(4, dtype=np.float16),
            "packed": np.arange(256, dtype=np.uint8).reshape(16, 16),
            "zeros": np.array([-(2**31), 7], np.int32),
            "scalar": np.array(2.5, np.float32),
            "nothing": np.zeros((0, 4), np.float32),
        }
        file = opened(safetensors(arrays, {"format": "pt"}))
        assert file.metadata == {"format": "pt"}
        assert list(file.tensors) == list(arrays)
        for name, array in arrays.items():
            found = file.read(name)
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            assert (found == array).all()

    def test_bf16_becomes_the_float32_it_is(self, opened):
        file = opened(safetensors({"w": np.array([[0x3F80, 0xC000], [0x7F80, 0x0001]], np.uint16)}))
        found = file.read("w")
        assert found.dtype == np.float32
        assert found.tolist() == [[1.0, -2.0], [float("inf"), 2.0**-133]]
        assert file.tensors["w"].dtype == "BF16"

    def test_rows(self, opened):
        array = np.random.default_rng(0).random((7, 3, 2)).astype(np.float32)
        file = opened(safetensors({"before": np.zeros(5, np.uint8), "w": array}))
        for start in range(8):
            for stop in (*range(9), None):
                assert (file.read("w", start, stop) == array[start:stop]).all()

    def test_a_slab_takes_the_memory_of_a_slab(self, opened):
        file = opened(safetensors({"w": np.zeros((1024, 1 << 14), np.uint8)}))
        tracemalloc.start()
        try:
            file.read("w", 500, 510)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 20 << 14

    def test_a_padded_header(self, opened):
        assert opened(raw(b'{"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]}}   ', b"\x07")).read("w") == 7


class TestRefusals:
    @pytest.mark.parametrize(
        ("data", "meaning"),
        [
            (b"", "it is empty"),
            (b"GGUF" + bytes(60), "it is a GGUF model"),
            (b"<html>" + bytes(60), "an HTML page"),
            (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
            (b"PK\x03\x04" + bytes(60), "a zip archive"),
        ],
    )
    def test_other_files_are_named(self, opened, data: bytes, meaning: str):
        with pytest.raises(CorruptFile, match="is not a safetensors file") as caught:
            opened(data)
        assert meaning in caught.value.why

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (raw({"w": ONE}, bytes(4), length=2**64 - 9), "truncated: its header ends"),
            (raw({"w": ONE}, bytes(3)), "truncated: its tensors end at byte"),
            (raw({"w": ONE}, bytes(5)), "bytes follow the last tensor"),
            (raw({"w": ONE})[:-9], "truncated: its header ends"),
            (raw(b"{]"), "its JSON is wrong"),
            (raw(b'{"\xff":1}'), "its JSON is wrong"),
            (raw(b'{"a":1}, 2'), "its JSON is wrong"),
            (raw(b'{"a":' + b"[" * 100_000), "nested too deeply"),
            (raw(b'{"a":' + b'{"a":' * 100_000), "nested too deeply"),
            (raw(b'{"w":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}"), "an integer of 5000 digits"),
            (raw(b'{"w":NaN}'), "NaN is not JSON"),
            (raw(b'{"w":1,"w":2}'), "the key 'w' appears twice"),
            (raw({"w": 1}), "described by a int"),
            (raw({"n" * 2000: ONE}, bytes(4)), "its name is too long"),
            (raw({"w": {}}), "incomplete or of the wrong kind"),
            (raw({"w": entry("F32", [1], 0, 4) | {"data_offsets": [0]}}), "incomplete or of the wrong kind"),
            (raw({"w": entry("F32", [True], 0, 4)}, bytes(4)), "incomplete or of the wrong kind"),
            (raw({"w": entry("F32", [-1, -1], 0, 4)}, bytes(4)), "incomplete or of the wrong kind"),
            (raw({"w": entry("F32", [1.0], 0, 4)}, bytes(4)), "incomplete or of the wrong kind"),
            (raw({"w": entry("F32", [1] * 9, 0, 4)}, bytes(4)), "incomplete or of the wrong kind"),
            (raw({"w": entry(["F32"], [1], 0, 4)}, bytes(4)), "incomplete or of the wrong kind"),
            (raw({"w": entry("F32", [2], 0, 4)}, bytes(4)), "takes 8 bytes, the header gives it 4"),
            (raw({"w": entry("F32", [2**63, 2**63], 0, 4)}, bytes(4)), "takes"),
            (raw({"w": entry("F32", [0, 2**63], 0, 0)}), "takes 0 bytes"),
            (raw({"w": entry("F32", [1], 4, 0)}, bytes(4)), "the header gives it -4"),
            (raw({"w": entry("F32", [1], 4, 8)}, bytes(8)), "leaves a gap before it"),
            (raw({"v": ONE, "w": entry("F32", [2], 0, 8)}, bytes(8)), "tensor 'w' at byte"),
            (raw({"v": ONE, "w": entry("F32", [1], 2, 6)}, bytes(8)), "overlaps the one before it"),
            (raw({"w": entry("F32", [1], 2**62, 2**62 + 4)}, bytes(8)), "leaves a gap"),
            (raw({"__metadata__": {"a": 1}}), "__metadata__ is not a table of strings"),
            (raw({"__metadata__": []}), "__metadata__ is not a table of strings"),
        ],
    )
    def test_hostile_headers(self, opened, data: bytes, why: str):
        with pytest.raises(CorruptFile) as caught:
            opened(data)
        assert type(caught.value) is CorruptFile
        assert why in caught.value.why
        assert len(caught.value.why) < 300

    def test_a_header_beyond_the_limit(self, opened, tmp_path: Path):
        path = tmp_path / "huge.safetensors"
        with path.open("wb") as file:
            file.write(raw(b"{" + b" " * 100, length=64 << 20))
            file.truncate(100 << 20)
        with pytest.raises(CorruptFile) as caught:
            SafetensorsFile.open(path)
        assert "larger than 16 MiB" in caught.value.why

    def test_an_unknown_dtype(self, opened):
        with pytest.raises(UnsupportedModel) as caught:
            opened(raw({"w": entry("F8_E4M3", [4], 0, 4)}, bytes(4)))
        assert "tensor 'w' has the dtype 'F8_E4M3'" in caught.value.why

    def test_a_file_that_shrinks_after_it_was_opened(self, opened):
        file = opened(safetensors({"w": np.zeros(1000, np.float32)}))
        with file.path.open("r+b") as handle:
            handle.truncate(2000)
        with pytest.raises(CorruptFile) as caught:
            file.read("w")
        assert "bytes are missing" in caught.value.why

    def test_rows_of_a_single_number(self, opened):
        with pytest.raises(CorruptFile):
            opened(safetensors({"w": np.array(1, np.float32)})).read("w", 0, 1)

    def test_no_file(self, tmp_path: Path):
        with pytest.raises(ModelNotFound):
            SafetensorsFile.open(tmp_path / "absent.safetensors")
        with pytest.raises(EdgellmError, match="cannot be read"):
            SafetensorsFile.open(tmp_path)
