"""Quantizing with the real engine: llama-quantize's bytes, exact ternary weights, and refusal of harmful requests."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import CorruptFile, EdgellmError, LossyTranscode, UnsupportedModel, UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.weights.quantize.imatrix import Imatrix, read_imatrix
from edgellm.weights.quantize.mixes import MIXES, named_mix
from edgellm.weights.quantize.plan import Rule
from edgellm.weights.quantize.quantization import Quantization
from edgellm.weights.quantize.quantizer import QuantizeOptions, quantize
from tests.weights.gguf_maker import write_bitnet, write_imatrix, write_llama
from tests.weights.gguf_values import read_keys, read_values

pytestmark = pytest.mark.engine

Quantize = Callable[..., Quantization]
NEEDING_IMPORTANCE = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"}
OWN = [mix.name for mix in MIXES if mix.stand_in is None]


@pytest.fixture(scope="module")
def llm(engine: InstalledEngine) -> LlamaEngine:
    return LlamaEngine(engine)


@pytest.fixture
def run(llm: LlamaEngine, tmp_path: Path) -> Quantize:
    """Returns quantize(source, type), which writes to OUT-TYPE.gguf in the test's directory."""

    def quantized(source: Path, kind: str | None, out: str = "out.gguf", **options: object) -> Quantization:
        return quantize(llm, source, kind, tmp_path / out, QuantizeOptions(**{"n_threads": 2, **options}))  # type: ignore[arg-type]

    return quantized


@pytest.fixture(scope="module")
def llama_f16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama") / "llama-F16.gguf")


@pytest.fixture(scope="module")
def imatrix(llama_f16: Path) -> Path:
    return write_imatrix(llama_f16.with_name("imatrix.gguf"), llama_f16)


def upstream(llm: LlamaEngine, source: Path, output: Path, file_type: int, imatrix: Imatrix | None) -> Path:
    """Quantize as llama-quantize does, with the same function."""
    c = llm.bindings
    params = c.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = file_type, 2, True
    if imatrix is not None:
        entries = [
            (name.encode(), (ctypes.c_float * values.size)(*values.reshape(-1).tolist()), values.size)
            for name, values in imatrix.importance.items()
        ]
        params.imatrix = (c.llama_model_imatrix_data * (len(entries) + 1))(
            *(c.llama_model_imatrix_data(*entry) for entry in entries)
        )
    assert c.llama_model_quantize(str(source).encode(), str(output).encode(), ctypes.byref(params)) == 0
    return output


def same_tensors(one: Path, other: Path) -> None:
    with GGUFFile.open(one) as a, GGUFFile.open(other) as b:
        assert {n: i.type.name for n, i in a.tensors.items()} == {n: i.type.name for n, i in b.tensors.items()}
        different = [name for name in a.tensors if (a.tensor_bytes(name) != b.tensor_bytes(name)).any()]
        assert not different


@pytest.mark.parametrize("name", OWN)
def test_every_mix_is_byte_for_byte_that_of_llama_quantize(
    llm: LlamaEngine, run: Quantize, llama_f16: Path, imatrix: Path, tmp_path: Path, name: str
) -> None:
    used = imatrix if name in NEEDING_IMPORTANCE else None
    expected = tmp_path / "upstream.gguf"
    upstream(llm, llama_f16, expected, named_mix(name).file_type, read_imatrix(used) if used else None)
    result = run(llama_f16, name, imatrix=used, force=named_mix(name).base.one_magnitude)
    same_tensors(result.path, expected)
    assert result.n_bytes == result.path.stat().st_size
    assert read_keys(result.path)["general.file_type"] == named_mix(name).file_type


@pytest.mark.parametrize("name", ["Q4_0", "Q4_K_M", "IQ3_M", "Q8_0"])
def test_an_imatrix_changes_mix_and_bytes_as_in_llama_quantize(
    llm: LlamaEngine, run: Quantize, llama_f16: Path, imatrix: Path, tmp_path: Path, name: str
) -> None:
    expected = tmp_path / "upstream.gguf"
    upstream(llm, llama_f16, expected, named_mix(name).file_type, read_imatrix(imatrix))
    result = run(llama_f16, name, imatrix=imatrix)
    same_tensors(result.path, expected)
    keys = read_keys(result.path)
    assert keys["quantize.imatrix.dataset"] == "words.txt" and keys["quantize.imatrix.chunks_count"] == 4


@pytest.mark.parametrize("ffn", [384, 416])
def test_fallbacks_are_those_of_llama_quantize_and_reported(
    llm: LlamaEngine, run: Quantize, tmp_path: Path, ffn: int
) -> None:
    source = write_llama(tmp_path / "odd.gguf", ffn=ffn, tied=False)
    for name in ("Q4_K_M", "IQ4_XS"):
        expected = upstream(llm, source, tmp_path / "upstream.gguf", named_mix(name).file_type, None)
        result = run(source, name)
        same_tensors(result.path, expected)
        fallen = [tensor for tensor in result.tensors if tensor.wanted]
        assert {tensor.name.split(".")[2] for tensor in fallen} == {"ffn_down"}
        assert all(f"rows of {ffn} are not a multiple of 256" in note for note in result.notes) and result.notes


def test_types_without_a_mix_of_their_own(run: Quantize, llama_f16: Path) -> None:
    original = read_values(llama_f16)
    for name in ("MXFP4", "NVFP4"):
        result = run(llama_f16, name)
        assert {kind.type for kind in result.types} == {name, "Q6_K", "F32"}
        values = read_values(result.path)
        for tensor, weights in original.items():
            assert np.sqrt(((values[tensor] - weights) ** 2).mean()) < 0.2 * weights.std(), tensor


def test_a_dry_run_writes_nothing_and_knows_the_size(run: Quantize, llama_f16: Path) -> None:
    dry = run(llama_f16, "Q4_K_M", dry_run=True)
    assert not dry.path.exists()
    real = run(llama_f16, "Q4_K_M")
    assert (dry.n_bytes, dry.tensors, dry.memory) == (real.path.stat().st_size, real.tensors, real.memory)
    in_file = sum(tensor.n_bytes for tensor in real.tensors)
    assert in_file <= real.memory.weights < 1.05 * in_file  # packed weights in K-quants take a little more


def test_head_and_rules(run: Quantize, llama_f16: Path, tmp_path: Path) -> None:
    rules = tuple(map(Rule.parse, (r"blk\.0\..*=q8_0", "ffn_(up|gate)=q5_k", "attn=iq4_nl")))
    types = {tensor.name: tensor.target for tensor in run(llama_f16, "Q4_K_S", head="f16", rules=rules).tensors}
    assert types["token_embd.weight"] == "F16" and types["blk.0.ffn_up.weight"] == "Q8_0"
    assert types["blk.1.ffn_up.weight"] == types["blk.3.ffn_gate.weight"] == "Q5_K"
    assert types["blk.2.attn_q.weight"] == "IQ4_NL" and types["blk.2.ffn_down.weight"] == "Q4_K"
    assert types["blk.0.attn_norm.weight"] == "F32"
    untied = run(write_llama(tmp_path / "untied.gguf", tied=False), "Q4_0", head="q5_1")
    assert [tensor.target for tensor in untied.tensors if tensor.name in ("token_embd.weight", "output.weight")] == [
        "Q5_1",
        "Q5_1",
    ]


def test_target_size_takes_the_best_that_fits(run: Quantize, llama_f16: Path) -> None:
    sizes = {name: run(llama_f16, name, dry_run=True).n_bytes for name in ("Q8_0", "Q6_K", "Q4_K_M", "Q2_K")}
    for name, size in sizes.items():
        chosen = run(llama_f16, None, target_size=size, dry_run=True)
        assert chosen.type == name and chosen.n_bytes <= size and any(name in note for note in chosen.notes)
    assert run(llama_f16, None, target_size=sizes["Q8_0"] - 1, dry_run=True).type == "Q6_K"
    with pytest.raises(UsageError, match="as small as"):
        run(llama_f16, None, target_size=1000, dry_run=True)


def test_target_size_of_a_ternary_model_shrinks_its_embedding_first(run: Quantize, tmp_path: Path) -> None:
    source = write_bitnet(tmp_path / "bitnet.gguf")
    full = run(source, "I2_S", head="f16", dry_run=True).n_bytes
    assert run(source, None, target_size=full, dry_run=True).type == "I2_S"
    smaller = run(source, None, target_size=full - 1, dry_run=True)
    assert smaller.type == "I2_S" and smaller.tensors[0].target == "Q8_0"


@pytest.mark.parametrize("ffn", [512, 384])
@pytest.mark.parametrize("between", ["TQ2_0", "TQ1_0", "Q4_0", "F32"])
def test_ternary_weights_come_back_to_the_byte(run: Quantize, tmp_path: Path, between: str, ffn: int) -> None:
    """The padding after an I2_S scale is undefined; this source has other bytes there, and they become zeros."""
    source = write_bitnet(tmp_path / "bitnet.gguf", ffn=ffn)
    clean = run(source, "TQ2_0", "clean-TQ2_0.gguf", head="f16").path
    clean = run(clean, "I2_S", "clean-I2_S.gguf", head="f16").path
    there = run(source, between, f"{between}.gguf", head="f16")
    values, expected = read_values(there.path), read_values(source)
    assert all((values[name] == weights).all() for name, weights in expected.items())
    back = run(there.path, "I2_S", "back.gguf", head="f16")
    same_tensors(back.path, clean)
    assert read_keys(back.path) | {"general.quantization_version": 2} == read_keys(clean) | {
        "general.quantization_version": 2
    }
    if between.startswith("TQ") and ffn == 512:
        assert back.path.read_bytes() == clean.read_bytes()
        assert len(clean.read_bytes()) == source.stat().st_size


def test_a_tied_embedding_of_a_ternary_model_becomes_q6_k_and_is_reported(run: Quantize, tmp_path: Path) -> None:
    source = write_bitnet(tmp_path / "bitnet.gguf")
    result = run(source, "TQ2_0")
    assert result.tensors[0].target == "Q6_K" and "--head F16 keeps it" in " ".join(result.notes)
    again = run(result.path, "TQ1_0", "again.gguf")
    assert again.tensors[0].action == "copy"


def test_a_scale_that_fp16_cannot_hold_is_refused_before_anything_is_written(run: Quantize, tmp_path: Path) -> None:
    source = write_bitnet(tmp_path / "bitnet.gguf", half_scales=False)
    for kind in ("TQ2_0", "TQ1_0", "Q4_0"):
        with pytest.raises(LossyTranscode, match="fp16"):
            run(source, kind, dry_run=True)
    rounded = read_values(run(source, "TQ2_0", force=True, head="f16").path)
    for name, weights in read_values(source).items():
        np.testing.assert_allclose(rounded[name], weights, rtol=2**-11)


@pytest.mark.parametrize("kind", ["I2_S", "TQ1_0", "TQ2_0"])
def test_a_model_that_is_not_ternary_is_refused_with_the_reason(run: Quantize, llama_f16: Path, kind: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(llama_f16, kind)
    assert "not trained with ternary weights" in caught.value.what and "different magnitudes" in caught.value.why
    assert "--force" in caught.value.hint
    forced = run(llama_f16, kind, force=True)
    assert any("forced" in note for note in forced.notes)
    assert len(np.unique(read_values(forced.path)["blk.0.attn_q.weight"][0, :128])) <= 3


def test_weights_that_stop_being_ternary_later_are_found_too(run: Quantize, tmp_path: Path) -> None:
    floats = run(write_bitnet(tmp_path / "bitnet.gguf"), "F32", "floats.gguf").path
    with GGUFFile.open(floats) as gguf:
        info = gguf.tensors["blk.1.ffn_down.weight"]
    data = bytearray(floats.read_bytes())
    data[info.offset + info.nbytes - 4 : info.offset + info.nbytes] = np.float32(0.123).tobytes()
    floats.write_bytes(data)
    for kind in ("I2_S", "TQ2_0"):
        with pytest.raises(UsageError, match="not trained"):
            run(floats, kind)
        assert not (tmp_path / "out.gguf").exists() and not list(tmp_path.glob(".*part"))


def test_what_is_quantized_is_not_quantized_again(run: Quantize, llama_f16: Path) -> None:
    small = run(llama_f16, "Q5_0", "small.gguf").path
    with pytest.raises(UsageError, match="already quantized") as caught:
        run(small, "Q4_K_M")
    assert "28 are Q5_0" in caught.value.why
    assert any("already quantized" in note for note in run(small, "Q4_K_M", force=True).notes)
    restored = run(small, "F32")
    assert all(
        (a == b).all() for a, b in zip(read_values(restored.path).values(), read_values(small).values(), strict=True)
    )
    assert "does not restore" in " ".join(restored.notes)


def test_types_that_need_an_importance_matrix(run: Quantize, llama_f16: Path, imatrix: Path) -> None:
    for name in sorted(NEEDING_IMPORTANCE - {"IQ2_M", "IQ3_XS"}):
        with pytest.raises(UsageError, match="needs an importance matrix"):
            run(llama_f16, name)
    for head in ("iq2_xs", "iq1_s"):  # the engine would abort the process
        with pytest.raises(UsageError, match="needs an importance matrix"):
            run(llama_f16, "Q4_0", head=head, imatrix=imatrix)


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        ("blk.0.attn_q.weight.in_sum2", np.full((1, 256), np.nan, np.float32)),
        ("blk.0.attn_q.weight.in_sum2", np.full((1, 256), -1, np.float32)),
        ("blk.0.attn_q.weight.in_sum2", np.ones((2, 256), np.float32)),
        ("blk.0.attn_q.weight.counts", np.full((1, 1), np.inf, np.float32)),
        ("nothing.weight.in_sum2", np.ones((1, 256), np.float32)),
    ],
)
def test_a_broken_importance_matrix(
    llama_f16: Path, tmp_path: Path, tensor: str, values: np.ndarray[tuple[int, int], np.dtype[np.float32]]
) -> None:
    path = write_imatrix(tmp_path / "broken.gguf", llama_f16, change={tensor: values})
    with pytest.raises(CorruptFile):
        read_imatrix(path)


def test_an_importance_matrix_of_another_model(run: Quantize, llama_f16: Path, tmp_path: Path) -> None:
    other = write_llama(tmp_path / "other.gguf", ffn=768)
    with pytest.raises(UsageError, match="another model"):
        run(llama_f16, "Q4_K_M", imatrix=write_imatrix(tmp_path / "imatrix.gguf", other))
    with pytest.raises(CorruptFile, match="not an importance matrix"):
        run(llama_f16, "Q4_K_M", imatrix=llama_f16)


@pytest.mark.parametrize(("number", "error"), [(np.nan, CorruptFile), (np.inf, CorruptFile), (1e6, UnsupportedModel)])
def test_weights_that_are_no_numbers_or_too_large(
    run: Quantize, tmp_path: Path, number: float, error: type[EdgellmError]
) -> None:
    source = write_llama(tmp_path / "spoilt.gguf", kind="F32", spoil={"blk.2.ffn_up.weight": number})
    with pytest.raises(error, match=r"blk\.2\.ffn_up"):
        run(source, "Q4_K_M")
    assert not (tmp_path / "out.gguf").exists() and not list(tmp_path.glob(".*part"))


def test_usage_errors(run: Quantize, llm: LlamaEngine, llama_f16: Path, tmp_path: Path) -> None:
    def refused(kind: str | None, match: str, **options: object) -> None:
        with pytest.raises(UsageError, match=match):
            run(llama_f16, kind, **options)

    refused("Q4_X", "no quantization")
    refused(None, "give either a type or")
    refused("Q4_0", "give either a type or", target_size=10**9)
    refused("Q4_0", "a rule matches no tensor", rules=(Rule.parse("nosuch=q8_0"),))
    refused("Q4_0", "a rule matches no tensor", rules=(Rule.parse("attn_norm=q8_0"),))
    refused("Q4_0", "cannot be stored as Q8_K", head="q8_k")
    for rule in ("q8_0", "=q8_0", "(=q8_0", "x=q9"):
        with pytest.raises(UsageError):
            Rule.parse(rule)
    with pytest.raises(UsageError, match="model itself"):
        quantize(llm, llama_f16, "Q4_0", llama_f16, QuantizeOptions())
    with pytest.raises(UsageError, match="is a directory"):
        quantize(llm, llama_f16, "Q4_0", tmp_path, QuantizeOptions())
    part = write_llama(tmp_path / "part.gguf", keys={"split.count": 2})
    with pytest.raises(UsageError, match="alone"):
        run(part, "Q4_0")


def test_an_architecture_that_the_engine_does_not_know(run: Quantize, tmp_path: Path) -> None:
    source = write_llama(tmp_path / "strange.gguf", keys={"general.architecture": "strange"})
    with pytest.raises(UnsupportedModel) as caught:
        run(source, "Q4_0")
    assert "strange" in caught.value.why


@pytest.mark.parametrize("layers", [0, 513, 1 << 31])
def test_layers_for_which_the_engine_would_end_the_process(run: Quantize, tmp_path: Path, layers: int) -> None:
    source = write_llama(tmp_path / "hostile.gguf", keys={"llama.block_count": layers})
    with pytest.raises(CorruptFile, match="is corrupt") as caught:
        run(source, "Q4_0", dry_run=True)
    assert f"{layers} layers" in caught.value.why
