"""Models trained with one magnitude for every 64, 128 or 256 weights go into the types for them without loss."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.engine.builds.installed import InstalledEngine, library_path
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import LossyTranscode, UnsupportedModel, UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.ternary import BLOCK_CODECS, unpack_q2_0_g128
from edgellm.weights.convert.converter import convert
from edgellm.weights.quantize.quantization import Quantization
from edgellm.weights.quantize.quantizer import QuantizeOptions, quantize
from edgellm.weights.tensor_codec import _to_q2_0_g128
from edgellm.weights.tensor_table import tensor_table
from tests.weights import checkpoint_maker as make
from tests.weights.engine_run import Loaded, divergence
from tests.weights.gguf_maker import write_llama
from tests.weights.gguf_values import decode
from tests.weights.numpy_models import Floats, Shape

Quantize = Callable[..., Quantization]
SHAPE = Shape(layers=1)
# The models that each type holds: the group of their scales, and whether they are binary.
HELD = {
    "Q2_0": [(64, False), (128, False), (256, False), (128, True)],
    "Q2_0_G128": [(128, False), (256, False), (128, True)],
    "TQ2_0": [(256, False)],
    "TQ1_0": [(256, False)],
    "Q1_0": [(128, True), (256, True)],
}
CASES = [(kind, group, binary) for kind, models in HELD.items() for group, binary in models]


def values(path: Path) -> dict[str, Floats]:
    """Return all matrices of a file, decoded by the numpy codecs."""
    decoded = {}
    with GGUFFile.open(path) as file:
        for name, info in file.tensors.items():
            data = file.tensor_bytes(name)
            if info.type.name in BLOCK_CODECS:
                rows = data.reshape(-1, info.shape[0] // info.type.block_size * info.type.block_bytes)
                codes, d = BLOCK_CODECS[info.type.name].unpack(rows, name=name)
                decoded[name] = (codes.reshape(*d.shape, -1) * d[..., None].astype(np.float32)).reshape(codes.shape)
            elif len(info.shape) == 2:
                assert info.type.name == "F32"
                decoded[name] = data.view(np.float32).reshape(info.shape[::-1])
    return decoded


def types(path: Path) -> dict[str, str]:
    with GGUFFile.open(path) as file:
        return {name: info.type.name for name, info in file.tensors.items() if len(info.shape) == 2}


def assert_same(one: Path, other: Path) -> None:
    expected = values(other)
    for name, weights in values(one).items():
        np.testing.assert_array_equal(weights, expected[name], err_msg=name)


@pytest.mark.parametrize(("kind", "group", "binary"), CASES)
def test_convert_is_exact_and_takes_the_head_along(tmp_path: Path, kind: str, group: int, binary: bool) -> None:
    made = make.qwen3(tmp_path, SHAPE, group=group, binary=binary)
    result = convert(made.directory, tmp_path / "few.gguf", outtype=kind)
    assert set(types(result.path).values()) == {kind}
    assert_same(result.path, convert(made.directory, tmp_path / "floats.gguf", outtype="F32").path)


@pytest.mark.parametrize(
    ("group", "binary", "kind"), [(64, False, "Q2_0"), (128, False, "Q2_0"), (256, False, "TQ2_0"), (128, True, "Q1_0")]
)
def test_the_type_that_suits_the_weights_is_the_default(tmp_path: Path, group: int, binary: bool, kind: str) -> None:
    made = make.qwen3(tmp_path, SHAPE, group=group, binary=binary)
    result = convert(made.directory, tmp_path / "out.gguf")
    assert (result.outtype, result.head) == (kind, kind)
    plain = convert(made.directory, tmp_path / "plain.gguf", outtype="BF16")
    assert f"--outtype {kind.lower()} holds them in fewer bits, exactly" in plain.notes[0]


def test_weights_that_stop_being_ternary_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    made = make.qwen3(tmp_path / "model", SHAPE, group=64)
    weights = {name: array.copy() for name, array in made.weights.items()}
    weights["0.down"][-1, -1] = 0.3125
    make.write(made.directory, made.config, make.plain_tensors(weights))
    with pytest.raises(UnsupportedModel) as refused:
        convert(made.directory, tmp_path / "out.gguf")
    assert "tensor blk.0.ffn_down.weight: its weights are not ternary" in refused.value.why
    assert list(tmp_path.glob("*.gguf")) == list(tmp_path.glob(".*part")) == []


@pytest.fixture(scope="module")
def llm(engine: InstalledEngine) -> LlamaEngine:
    return LlamaEngine(engine)


@pytest.fixture
def run(llm: LlamaEngine, tmp_path: Path) -> Quantize:
    def quantized(source: Path, kind: str | None, out: str = "out.gguf", **options: object) -> Quantization:
        return quantize(llm, source, kind, tmp_path / out, QuantizeOptions(**{"n_threads": 2, **options}))  # type: ignore[arg-type]

    return quantized


@pytest.mark.engine
class TestQuantize:
    def floats(self, tmp_path: Path, group: int, *, binary: bool = False) -> Path:
        made = make.qwen3(tmp_path / "model", SHAPE, group=group, binary=binary)
        return convert(made.directory, tmp_path / "floats.gguf", outtype="F32").path

    @pytest.mark.parametrize(("kind", "group", "binary"), CASES)
    def test_is_exact_and_takes_the_head_along(
        self, run: Quantize, tmp_path: Path, kind: str, group: int, binary: bool
    ) -> None:
        source = self.floats(tmp_path, group, binary=binary)
        result = run(source, kind)
        assert set(types(result.path).values()) == {kind}
        assert_same(result.path, source)
        assert {tensor.action for tensor in result.tensors} == {"ternarise", "copy"}

    def test_is_byte_for_byte_what_convert_writes(self, run: Quantize, tmp_path: Path) -> None:
        source = self.floats(tmp_path, 128)
        for kind in ("Q2_0", "Q2_0_G128"):
            made = convert(tmp_path / "model", tmp_path / f"{kind}.gguf", outtype=kind)
            with GGUFFile.open(made.path) as one, GGUFFile.open(run(source, kind).path) as other:
                for name in one.tensors:
                    assert (one.tensor_bytes(name) == other.tensor_bytes(name)).all()

    @pytest.mark.parametrize("kind", ["Q2_0", "Q2_0_G128", "Q1_0"])
    def test_a_model_that_was_not_trained_so_is_refused(self, run: Quantize, tmp_path: Path, kind: str) -> None:
        source = write_llama(tmp_path / "llama-F16.gguf")
        with pytest.raises(UsageError) as caught:
            run(source, kind)
        assert "blk.0.attn_q.weight has " in caught.value.why
        assert "% of their size" in caught.value.why
        assert "--force" in caught.value.hint
        assert not (tmp_path / "out.gguf").exists()
        forced = run(source, kind, force=True)
        assert any(note.startswith("forced:") for note in forced.notes)

    def test_forced_groups_of_128_are_rounded_as_those_of_64(self, run: Quantize, tmp_path: Path) -> None:
        """ggml has no quantizer for them: ours agrees with its Q2_0 where two of its blocks have one scale."""
        source = write_llama(tmp_path / "llama-F16.gguf")
        small = values(run(source, "Q2_0", "q2_0.gguf", force=True, head="f32").path)
        large = values(run(source, "Q2_0_G128", "g128.gguf", force=True, head="f32").path)
        for name, weights in small.items():
            pairs = [array.reshape(-1, 2, 64) for array in (weights, large[name])]
            d = np.abs(pairs[0]).max(axis=-1)
            one_scale = d[:, 0] == d[:, 1]
            np.testing.assert_array_equal(pairs[0][one_scale], pairs[1][one_scale])
            larger = np.where(d[:, :1] >= d[:, 1:], [[True, False]], [[False, True]])
            np.testing.assert_array_equal(pairs[0][larger], pairs[1][larger])

    def test_groups_of_64_do_not_become_larger_ones(self, run: Quantize, tmp_path: Path) -> None:
        source = self.floats(tmp_path, 64)
        for kind in ("Q2_0_G128", "TQ2_0"):
            with pytest.raises(UsageError) as caught:
                run(source, kind)
            assert caught.value.hint == "use Q2_0, which holds one for every 64 weights"
        small = run(source, "Q2_0", "q2_0.gguf").path
        with pytest.raises(LossyTranscode) as caught:
            run(small, "TQ2_0")
        assert caught.value.why == "it has several scales within 256 weights, for which TQ2_0 holds one"

    def test_from_one_type_to_another_and_back(self, run: Quantize, tmp_path: Path) -> None:
        source = run(self.floats(tmp_path, 256), "Q2_0", "q2_0.gguf").path
        for kind in ("TQ2_0", "TQ1_0", "Q4_0"):
            there = run(source, kind, f"{kind}.gguf")
            assert {tensor.action for tensor in there.tensors} == {"transcode", "copy"}
            if kind == "Q4_0":  # nothing goes back from it
                with GGUFFile.open(there.path) as file:
                    decoded = {name: decode(file, name) for name in file.tensors}
                assert all((decoded[name] == weights).all() for name, weights in values(source).items())
                continue
            assert_same(there.path, source)
            back = run(there.path, "Q2_0", "back.gguf").path
            with GGUFFile.open(source) as one, GGUFFile.open(back) as other:
                assert all((one.tensor_bytes(name) == other.tensor_bytes(name)).all() for name in one.tensors)

    def test_both_sizes_of_q2_0_in_one_file_are_refused(self, run: Quantize, tmp_path: Path) -> None:
        source = self.floats(tmp_path, 128)
        with pytest.raises(UsageError, match="one file cannot hold Q2_0 and Q2_0_G128"):
            run(source, "Q2_0_G128", head="q2_0")

    def test_a_target_size_keeps_the_weights(self, run: Quantize, tmp_path: Path) -> None:
        source = run(self.floats(tmp_path, 64), "Q2_0", "q2_0.gguf").path
        assert run(source, None, target_size=source.stat().st_size, dry_run=True).type == "Q2_0"
        with pytest.raises(UsageError, match="as small as"):
            run(source, None, target_size=1000, dry_run=True)


def test_show_tells_the_two_apart_and_counts_scales(tmp_path: Path) -> None:
    made = make.qwen3(tmp_path, SHAPE, group=128)
    for kind, bpw in (("Q2_0", 2.25), ("Q2_0_G128", 2.125)):
        with GGUFFile.open(convert(made.directory, tmp_path / f"{kind}.gguf", outtype=kind).path) as file:
            table = {tensor.name: tensor for tensor in tensor_table(file).tensors}
        tensor = table["blk.0.attn_q.weight"]
        assert (tensor.type, tensor.bpw, tensor.ternary) == (kind, bpw, True)
        assert tensor.scales is not None
        assert tensor.scales.count == len(np.unique(np.abs(made.weights["0.q"]))) - 1  # without zero


@pytest.mark.engine
class TestGroupsOf128InTheEngine:
    """The engine knows them as a type of its own, by an id that no file has."""

    @pytest.fixture
    def library(self, engine: InstalledEngine) -> ctypes.CDLL:
        return ctypes.CDLL(str(library_path(engine.libraries, "ggml-base")))

    def test_bytes_and_values_are_equal(self, library: ctypes.CDLL) -> None:
        def pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
            return array.ctypes.data_as(ctypes.c_void_p)

        random = np.random.default_rng(0)
        codes = random.integers(-1, 2, (7, 1024), np.int8)
        d = random.random((7, 8)).astype(np.float16)
        d[2, 3] = 0
        weights = (codes.reshape(7, 8, 128) * d[..., None].astype(np.float32)).reshape(7, 1024)
        for values in (weights, random.standard_normal((64, 1024), np.float32)):
            theirs = np.zeros((len(values), 8 * 34), np.uint8)
            library.quantize_row_q2_0_g128(pointer(values), pointer(theirs), ctypes.c_int64(values.size))
            assert (_to_q2_0_g128(values) == theirs).all()
        data = random.integers(0, 256, (1, 34 * 64), np.uint8)
        data.reshape(64, 34)[:, :2] = np.array([0.75], "<f2").view(np.uint8)
        decoded = np.empty((1, 128 * 64), np.float32)
        library.dequantize_row_q2_0_g128(pointer(data), pointer(decoded), ctypes.c_int64(decoded.size))
        assert (unpack_q2_0_g128(data, name="t")[0] * np.float32(0.75) == decoded).all()

    def test_logits_are_those_of_the_same_weights_in_groups_of_64(self, llama: ModuleType, tmp_path: Path) -> None:
        made, tokens = make.qwen3(tmp_path, Shape(), group=128), [3, 65, 256, 17, 70, 70, 100, 5]
        found = []
        for kind in ("Q2_0", "Q2_0_G128"):
            with Loaded(llama, convert(made.directory, tmp_path / f"{kind}.gguf", outtype=kind).path) as model:
                found.append(model.logits(tokens))
        np.testing.assert_allclose(found[1], found[0], atol=1e-4 * np.abs(found[0]).max())
        assert divergence(found[1], made.logits(tokens)) <= 0.01

    def test_the_makers_file_becomes_that_of_llama_cpp(self, run: Quantize, tmp_path: Path) -> None:
        made = make.qwen3(tmp_path / "model", SHAPE, group=128)
        source = convert(made.directory, tmp_path / "g128.gguf", outtype="Q2_0_G128").path
        direct = convert(made.directory, tmp_path / "q2_0.gguf", outtype="Q2_0").path
        result = run(source, "Q2_0")
        assert {tensor.action for tensor in result.tensors} == {"transcode", "copy"}
        with GGUFFile.open(result.path) as one, GGUFFile.open(direct) as other:
            assert all((one.tensor_bytes(name) == other.tensor_bytes(name)).all() for name in one.tensors)
