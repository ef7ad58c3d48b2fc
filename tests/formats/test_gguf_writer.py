import ctypes
import shutil
import tracemalloc
from pathlib import Path

import gguf as gguf_package
import numpy as np
import pytest

from edgellm.errors import DiskFull, EdgellmError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_metadata import ValueType
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import named_type
from edgellm.formats.ternary import i2_s_tail, pack_i2_s
from tests.formats.gguf_bytes import LLAMA, gguf, strings, tensor, text, tiny_model, u32

F32, F16, I2_S = named_type("F32"), named_type("F16"), named_type("I2_S")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out.gguf"


def test_golden_bytes(path: Path):
    with GGUFWriter(path) as out:
        out.add("general.architecture", "llama")
        out.add("n", 7)
        out.add("tokens", ["a", "é"])
        out.declare("x", (3,), F32)
        out.declare("y", (2, 1), F32)
        out.write("x", np.array([1, 2, 3], np.float32))
        out.write("y", np.array([[4, 5]], np.float32))
    keys = [LLAMA, u32("n", 7), strings("tokens", ["a", "é"])]
    data = np.array([1, 2, 3, 0, 0, 0, 0, 0, 4, 5, 0, 0, 0, 0, 0, 0], np.float32).tobytes()
    assert path.read_bytes() == gguf(keys, [tensor("x", [3], 0, 0), tensor("y", [2, 1], 0, 32)], data)


def test_the_gguf_package_reads_what_we_write(path: Path):
    weights = np.random.default_rng(0).random((5, 64), np.float32)
    with GGUFWriter(path) as out:
        out.add("general.architecture", "llama")
        for kind, value in [(ValueType.INT8, -3), (ValueType.UINT64, 2**60), (ValueType.FLOAT64, 0.1)]:
            out.add(f"k.{kind.name}", value, kind)
        out.add("bools", [True, False])
        out.add("ints", [1, -2])
        out.add("none", [], ValueType.STRING)
        out.declare("w", (64, 5), F32)
        out.declare("h", (64, 5), F16)
        out.write("w", (weights[i : i + 2] for i in range(0, 5, 2)))
        out.write("h", weights.astype(np.float16).tobytes())
    reader = gguf_package.GGUFReader(path)
    contents = {key: field.contents() for key, field in reader.fields.items()}
    assert [contents[f"k.{name}"] for name in ("INT8", "UINT64", "FLOAT64")] == [-3, 2**60, 0.1]
    assert (contents["bools"], contents["ints"], contents["none"]) == ([True, False], [1, -2], [])
    assert (reader.tensors[0].data == weights).all()
    assert (reader.tensors[1].data == weights.astype(np.float16)).all()


def test_i2_s_which_the_gguf_package_does_not_know(path: Path):
    codes = np.random.default_rng(0).integers(-1, 2, (6, 256), np.int8)
    data = pack_i2_s(codes).tobytes() + i2_s_tail(0.5)
    with GGUFWriter(path) as out:
        out.add("general.architecture", "bitnet-b1.58")
        out.declare("w", (256, 6), I2_S)
        out.declare("norm", (4,), F32)
        out.write("w", data)
        out.write("norm", np.ones(4, np.float32))
        announced = out.nbytes
    with GGUFFile.open(path) as model:
        assert model.tensor_bytes("w").tobytes() == data
        assert model.size == announced


class TestCopies:
    def test_a_copy_is_byte_identical(self, path: Path, tmp_path: Path):
        original = tmp_path / "original.gguf"
        original.write_bytes(tiny_model())
        with GGUFFile.open(original) as source, GGUFWriter(path) as out:
            out.copy_metadata(source.metadata)
            for info in source.tensors.values():
                out.declare(info.name, info.shape, info.type)
            for info in source.tensors.values():
                out.write(info.name, source.tensor_bytes(info))
        assert path.read_bytes() == original.read_bytes()

    def test_edits_keep_the_order_and_touch_nothing_else(self, path: Path, tmp_path: Path):
        original = tmp_path / "original.gguf"
        broken_token = text("b", b"\xff\xfe")  # invalid UTF-8: decoding and encoding it would change the bytes
        original.write_bytes(gguf([u32("a", 1), broken_token, u32("general.alignment", 64), u32("c", 3)], alignment=64))
        with GGUFFile.open(original) as source, GGUFWriter(path) as out:
            out.copy_metadata(source.metadata)
            out.add("a", 9)
            out.remove("c")
            out.remove("absent")
            out.add("d", "new")
        assert path.read_bytes() == gguf([u32("a", 9), broken_token, text("d", "new")])


class TestFailures:
    def test_an_error_leaves_nothing_behind(self, path: Path):
        path.write_text("the old file")
        with pytest.raises(KeyboardInterrupt), GGUFWriter(path) as out:
            out.declare("x", (8,), F32)
            out.declare("y", (8,), F32)
            out.write("x", bytes(32))
            assert len(list(path.parent.iterdir())) == 2
            raise KeyboardInterrupt
        assert [p.name for p in path.parent.iterdir()] == [path.name]
        assert path.read_text() == "the old file"

    def test_an_error_before_anything_was_written_leaves_no_file(self, path: Path):
        with pytest.raises(RuntimeError), GGUFWriter(path):
            raise RuntimeError
        assert not list(path.parent.iterdir())

    @pytest.mark.parametrize("size", [0, 31, 33, 320])
    def test_a_tensor_of_the_wrong_size_is_a_bug(self, path: Path, size: int):
        with pytest.raises(ValueError, match="tensor 'x' has 32 bytes"), GGUFWriter(path) as out:
            out.declare("x", (8,), F32)
            out.write("x", bytes(size))
        assert not list(path.parent.iterdir())

    def test_so_are_tensors_in_another_order_or_missing(self, path: Path):
        with pytest.raises(ValueError, match="'y' is written where 'x' is due"), GGUFWriter(path) as out:
            out.declare("x", (8,), F32)
            out.write("y", bytes(32))
        with pytest.raises(ValueError, match="'x' was declared but never written"), GGUFWriter(path) as out:
            out.declare("x", (8,), F32)
        with pytest.raises(ValueError, match="'x' is written where None is due"), GGUFWriter(path) as out:
            out.write("x", b"")

    def test_and_declarations_that_no_file_can_hold(self, path: Path):
        out = GGUFWriter(path)
        out.declare("x", (8,), F32)
        for name, shape in [("x", (8,)), ("", (8,)), ("n" * 64, (8,)), ("y", (1,) * 5), ("y", (8, 0))]:
            with pytest.raises(ValueError, match="cannot be in a GGUF file"):
                out.declare(name, shape, F32)
        with pytest.raises(ValueError, match="aligned to 32"):
            out.add("general.alignment", 64)

    @pytest.mark.parametrize(
        ("value", "kind"),
        [(-1, None), (2**32, None), (300, ValueType.UINT8), ("a", ValueType.INT32), (["a", 1], None), ([], None)],
    )
    def test_and_values_that_do_not_fit_their_type(self, path: Path, value, kind):
        with pytest.raises(ValueError, match=r"fit|empty"):
            GGUFWriter(path).add("k", value, kind)

    def test_nothing_is_declared_after_the_header(self, path: Path):
        with GGUFWriter(path) as out:
            out.declare("x", (1,), F32)
            out.write("x", bytes(4))
            with pytest.raises(ValueError, match="already written"):
                out.add("k", 1)

    def test_a_full_disk_is_reported_before_the_work(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        usage = shutil.disk_usage(path.parent)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(DiskFull) as caught, GGUFWriter(path) as out:
            out.declare("x", (1000,), F32)
            out.write("x", bytes(4000))
        assert caught.value.facts["actual"] == 1000
        assert not list(path.parent.iterdir())

    def test_a_directory_that_does_not_exist(self, tmp_path: Path):
        with pytest.raises(EdgellmError, match="cannot be written"), GGUFWriter(tmp_path / "no" / "out.gguf") as out:
            out.declare("x", (1,), F32)
            out.write("x", bytes(4))


def test_memory_is_one_slab(path: Path):
    slab = np.ones((1, 1 << 18), np.float32)
    tracemalloc.start()
    try:
        with GGUFWriter(path) as out:
            out.declare("big", (1 << 18, 64), F32)
            out.write("big", (slab for _ in range(64)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert path.stat().st_size > 64 << 20
    assert peak < 2 << 20


@pytest.mark.engine
def test_the_engine_reads_what_we_write(path: Path, ggml_base: ctypes.CDLL):
    with GGUFWriter(path) as out:
        out.add("general.architecture", "llama")
        out.add("tokenizer.ggml.tokens", ["<s>", "▁café", ""])
        out.declare("norm", (7,), F32)
        out.declare("w", (512, 3), named_type("TQ1_0"))
        out.declare("h", (64, 2, 2), F16)
        out.write("norm", bytes(28))
        out.write("w", bytes(6 * 54))
        out.write("h", bytes(512))
    ggml_base.gguf_init_from_file.restype = ctypes.c_void_p
    ggml_base.gguf_get_tensor_name.restype = ctypes.c_char_p
    for function in ("gguf_get_n_tensors", "gguf_get_n_kv", "gguf_get_data_offset", "gguf_get_tensor_offset"):
        getattr(ggml_base, function).restype = ctypes.c_int64
    opened = ggml_base.gguf_init_from_file(str(path).encode(), InitParams(no_alloc=True))
    assert opened
    context = ctypes.c_void_p(opened)
    try:
        assert ggml_base.gguf_get_n_kv(context) == 2
        theirs = {}
        for i in map(ctypes.c_int64, range(ggml_base.gguf_get_n_tensors(context))):
            offset = ggml_base.gguf_get_data_offset(context) + ggml_base.gguf_get_tensor_offset(context, i)
            theirs[ggml_base.gguf_get_tensor_name(context, i).decode()] = offset
        with GGUFFile.open(path) as model:
            assert theirs == {info.name: info.offset for info in model.tensors.values()}
    finally:
        ggml_base.gguf_free(context)


class InitParams(ctypes.Structure):
    """`struct gguf_init_params` of gguf.h, passed by value."""

    _fields_ = (("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p))


def test_one_file_holds_one_kind_of_q2_0(tmp_path: Path):
    writer = GGUFWriter(tmp_path / "m.gguf")
    writer.declare("a", (128, 2), named_type("Q2_0_G128"))
    with pytest.raises(ValueError, match="has its id with another size"):
        writer.declare("b", (128, 2), named_type("Q2_0"))
