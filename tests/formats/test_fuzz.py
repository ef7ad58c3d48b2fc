"""A mutated file is read or raises an EdgellmError: no other exception, no long wait, no large allocation."""

import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgellm.errors import EdgellmError
from edgellm.formats.checkpoint import INDEX_FILE, Checkpoint
from edgellm.formats.gguf_file import GGUFFile, check_tensors
from edgellm.formats.gguf_header import HeaderIncomplete, parse_header
from edgellm.formats.gguf_metadata import GGUFArray
from edgellm.formats.quant_types import QuantType, tensor_nbytes
from edgellm.formats.safetensors_file import SafetensorsFile
from edgellm.formats.ternary_transcode import I2_S, TQ1_0, TQ2_0, transcode
from tests.formats.gguf_bytes import tiny_model
from tests.formats.safetensors_bytes import raw, safetensors

SOME_MEMORY = 8 << 20

GGUF_BYTES = tiny_model()
SAFETENSORS_BYTES = safetensors(
    {"w": np.ones((3, 4), np.float32), "b": np.zeros(4, np.uint16), "q": np.zeros((2, 8), np.uint8)}, {"format": "pt"}
)
EXTREMES = [0, 1, 3, 9, 31, 36, 42, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**61, 2**63 - 1, 2**63, 2**64 - 1]


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    """Flip bits, overwrite numbers with extreme ones, cut, repeat and splice."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["flip", "u64", "u32", "cut", "drop", "repeat", "insert"])):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "u64":
                data[at : at + 8] = struct.pack("<Q", draw(st.sampled_from(EXTREMES)))
            case "u32":
                data[at : at + 4] = struct.pack("<I", draw(st.sampled_from(EXTREMES)) & 0xFFFFFFFF)
            case "cut":
                del data[at:]
            case "drop":
                del data[at : at + draw(st.integers(1, 40))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 80))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=40))
    return bytes(data)


def read_gguf(data: bytes) -> None:
    """Open the file, then access everything in it."""
    header = parse_header(data, file_size=len(data), name="fuzzed.gguf")
    model = GGUFFile(
        Path("fuzzed.gguf"), data, header, check_tensors(header, file_size=len(data), name="fuzzed.gguf"), len(data)
    )
    for key, value in model.metadata.items():
        assert len(model.metadata.raw(key)) <= len(data)
        if isinstance(value, GGUFArray):
            assert len(list(value)) == len(value)
    for name, info in model.tensors.items():
        assert model.tensor_bytes(name).nbytes == info.nbytes == tensor_nbytes(info.type, info.shape)
    assert model.n_params >= 0
    for getter in (model.get_str, model.get_int, model.get_float, model.get_bool, model.get_array):
        for key in ("general.architecture", "llama.context_length", "tokenizer.ggml.tokens"):
            try:
                getter(key)
            except EdgellmError:
                continue
    try:
        model.get_ints("llama.attention.head_count_kv", model.get_int("llama.context_length"))
    except EdgellmError:
        return


def read_prefix(data: bytes, available: int) -> None:
    try:
        parse_header(data[:available], file_size=len(data), name="fuzzed.gguf")
    except HeaderIncomplete as incomplete:
        assert available < incomplete.needed <= len(data)


def read_safetensors(path: Path) -> None:
    file = SafetensorsFile.open(path)
    for name, tensor in file.tensors.items():
        assert file.read(name).shape == tensor.shape
        if tensor.shape:
            assert file.read(name, 1, 2).shape[1:] == tensor.shape[1:]


json_values = st.recursive(
    st.none() | st.booleans() | st.sampled_from(EXTREMES) | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "U8", "F8_E5M2", "I64"]) | json_values,
        "shape": st.lists(st.sampled_from(EXTREMES), max_size=4) | json_values,
        "data_offsets": st.lists(st.sampled_from(EXTREMES), max_size=3) | json_values,
    },
)
headers = st.dictionaries(st.sampled_from(["w", "v", "__metadata__"]), entries | json_values, max_size=3)
indexes = st.fixed_dictionaries(
    {"weight_map": st.dictionaries(st.text(max_size=5), st.text(max_size=20) | json_values, max_size=3) | json_values}
)
safetensors_files = mutations(SAFETENSORS_BYTES) | st.builds(
    lambda header, data: raw(json.dumps(header).encode(), data), headers, st.binary(max_size=40)
)

LENGTHS = pytest.mark.parametrize("examples", [250, pytest.param(10_000, marks=pytest.mark.soak)])


def check_all(examples: int, read: Callable[..., object], **strategies: st.SearchStrategy) -> None:
    """Run `read` on `examples` examples; it may raise EdgellmError and nothing else."""

    @settings(max_examples=examples, deadline=1000, suppress_health_check=list(HealthCheck))
    @given(**strategies)
    def within_bounds(**drawn: object) -> None:
        tracemalloc.start()
        try:
            read(**drawn)
        except EdgellmError as error:
            assert error.what
            assert 0 < len(error.why) <= 600
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < SOME_MEMORY

    within_bounds()


@LENGTHS
def test_gguf_files(examples: int):
    check_all(examples, read_gguf, data=mutations(GGUF_BYTES))


@LENGTHS
def test_prefixes_of_gguf_files(examples: int):
    check_all(examples, read_prefix, data=mutations(GGUF_BYTES), available=st.integers(0, len(GGUF_BYTES)))


@LENGTHS
def test_safetensors_files(examples: int, tmp_path: Path):
    def read(data: bytes) -> None:
        path = tmp_path / "fuzzed.safetensors"
        path.write_bytes(data)
        read_safetensors(path)

    check_all(examples, read, data=safetensors_files)


@LENGTHS
def test_indexes(examples: int, tmp_path: Path):
    (tmp_path / "w.safetensors").write_bytes(SAFETENSORS_BYTES)

    def read(index: object) -> None:
        (tmp_path / INDEX_FILE).write_text(json.dumps(index))
        assert set(Checkpoint.open(tmp_path).names) <= {"w", "b", "q"}

    check_all(examples, read, index=indexes)


@LENGTHS
def test_ternary_tensors(examples: int):
    def read(data: bytes, source: QuantType, target: QuantType) -> None:
        nbytes = tensor_nbytes(source, (512, 3))
        tensor = np.resize(np.frombuffer(data, np.uint8), nbytes)
        made = sum(slab.nbytes for slab in transcode(tensor, (512, 3), source, target, name="t", round_scale=True))
        assert made == tensor_nbytes(target, (512, 3))

    kinds = st.sampled_from([I2_S, TQ1_0, TQ2_0])
    check_all(examples, read, data=st.binary(min_size=1, max_size=600), source=kinds, target=kinds)


def test_the_originals_are_read(tmp_path: Path):
    read_gguf(GGUF_BYTES)
    path = tmp_path / "original.safetensors"
    path.write_bytes(SAFETENSORS_BYTES)
    read_safetensors(path)
