"""Every number in a converted file equals the checkpoint's, in every type that can hold it."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest

from edgellm.formats.quant_types import QuantType
from edgellm.weights.convert.converter import Conversion, convert
from tests.weights import checkpoint_maker as make
from tests.weights import tokenizer_files
from tests.weights.gguf_values import read_keys, read_values
from tests.weights.numpy_models import Floats, Shape

SHAPE = Shape()
LLAMA_PARTS = {
    "attn_norm": "attn_norm",
    "attn_q": "q",
    "attn_k": "k",
    "attn_v": "v",
    "attn_output": "o",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
    "attn_sub_norm": "attn_sub_norm",
    "ffn_sub_norm": "ffn_sub_norm",
}
FIXED = {"token_embd.weight": "embed", "output.weight": "head", "output_norm.weight": "norm"}


def run(made: make.Made, outtype: str | None = None, **more: object) -> tuple[Conversion, dict[str, Floats]]:
    result = convert(made.directory, made.directory / "out.gguf", outtype=outtype, **more)  # type: ignore[arg-type]
    return result, read_values(result.path)


def original(made: make.Made, name: str) -> Floats:
    """Return the weight behind a tensor of a Llama-like file, with rows in the checkpoint's order."""
    if name in FIXED:
        return made.weights[FIXED[name]]
    _, layer, part, suffix = name.split(".")
    return made.weights[f"{layer}.{LLAMA_PARTS[part]}" + ("_bias" if suffix == "bias" else "")]


def neighbours(rows: Floats, heads: int) -> Floats:
    """Reorder the rows of each head, so that row j and row j + half become neighbours."""
    out = rows.copy()
    size = len(rows) // heads
    for head in range(heads):
        for j in range(size // 2):
            out[head * size + 2 * j] = rows[head * size + j]
            out[head * size + 2 * j + 1] = rows[head * size + j + size // 2]
    return out


def assert_same(
    made: make.Made, values: dict[str, Floats], *, swapped: bool, rounded: Callable[[Floats], Floats]
) -> None:
    for name, value in values.items():
        expected = original(made, name)
        if swapped and name.split(".")[2:3] == ["attn_q"]:
            expected = neighbours(expected, SHAPE.heads)
        if swapped and name.split(".")[2:3] == ["attn_k"]:
            expected = neighbours(expected, SHAPE.kv_heads)
        if expected.ndim == 2:
            expected = rounded(expected)
        np.testing.assert_array_equal(value, expected, err_msg=name)


def exactly(values: Floats) -> Floats:
    return values


def through_half(values: Floats) -> Floats:
    return values.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("outtype", ["I2_S", "F32"])
def test_bitnet_keeps_codes_and_float32_scales(tmp_path: Path, packed: bool, outtype: str) -> None:
    made = make.bitnet(tmp_path, SHAPE, packed=packed)
    result, values = run(made, outtype, head="F32")
    assert result.outtype == outtype
    assert len(values) == 2 + SHAPE.layers * 11
    assert_same(made, values, swapped=False, rounded=exactly)


@pytest.mark.parametrize("outtype", ["TQ1_0", "TQ2_0", "Q4_0", "F16"])
def test_bitnet_types_with_half_scales(tmp_path: Path, outtype: str) -> None:
    made = make.bitnet(tmp_path, SHAPE)
    _, values = run(made, outtype)
    assert_same(made, values, swapped=False, rounded=through_half)


def test_bitnet_metadata_names_the_activation(tmp_path: Path) -> None:
    made = make.bitnet(tmp_path / "relu2", SHAPE)
    i2_s, tq2_0 = (read_keys(run(made, outtype)[0].path) for outtype in ("I2_S", "TQ2_0"))
    assert i2_s["general.architecture"] == "bitnet-b1.58"  # bitnet.cpp uses squared ReLU for this name
    assert i2_s["bitnet-b1.58.hidden_activation"] == "relu2"
    assert i2_s["general.file_type"] == 40
    assert tq2_0["general.architecture"] == "bitnet"
    assert tq2_0["bitnet.hidden_activation"] == "relu2"
    assert tq2_0["bitnet.rope.freq_base"] == SHAPE.theta
    silu = read_keys(run(make.bitnet(tmp_path / "silu", SHAPE, act="silu"), "I2_S")[0].path)
    assert silu["general.architecture"] == "bitnet"
    assert silu["bitnet.hidden_activation"] == "silu"


def test_weights_that_are_ternary_already_keep_their_scale(tmp_path: Path) -> None:
    made = make.bitnet(tmp_path, SHAPE, packed=False)
    name = "model.layers.0.self_attn.q_proj.weight"
    codes = np.sign(np.rint(made.weights["0.q"] / np.abs(made.weights["0.q"]).max()))
    again = make.plain_tensors(make.random_weights(SHAPE, 0, sub_norms=True))
    make.write(tmp_path, made.config, again | {name: make.Bf16((codes * 0.375).astype(np.float32))})
    _, values = run(made, "I2_S")
    np.testing.assert_array_equal(values["blk.0.attn_q.weight"], codes * np.float32(0.375))


@pytest.mark.parametrize(("outtype", "rounded"), [("I2_S", exactly), ("TQ2_0", through_half), ("F32", exactly)])
def test_bitlinear_scales_divide(tmp_path: Path, outtype: str, rounded: Callable[[Floats], Floats]) -> None:
    made = make.bitlinear(tmp_path, SHAPE)
    result, values = run(made, outtype, head="F32" if rounded is exactly else "F16")
    assert result.architecture == "llama"
    assert result.notes == (() if rounded is exactly else ("14 of 14 scales are rounded, by at most 0.05 %",))
    assert_same(made, values, swapped=True, rounded=rounded)


@pytest.mark.parametrize("outtype", ["F16", "TQ2_0", "TQ1_0", "Q4_0", "BF16", "F32"])
def test_bonsai_rows_keep_their_scales_exactly(tmp_path: Path, outtype: str) -> None:
    made = make.bonsai(tmp_path, SHAPE)
    _, values = run(made, outtype, head="F32")
    assert_same(made, values, swapped=True, rounded=exactly)


@pytest.mark.parametrize(("outtype", "rounded"), [("BF16", exactly), ("F32", exactly), ("F16", through_half)])
def test_llama(tmp_path: Path, outtype: str, rounded: Callable[[Floats], Floats]) -> None:
    made = make.llama(tmp_path, SHAPE, biases=True)
    _, values = run(made, outtype)
    assert "output.weight" not in values  # tied: the engine uses the embedding
    assert_same(made, values, swapped=True, rounded=rounded)


def test_llama_that_is_ternary_already_fits_a_ternary_type(tmp_path: Path) -> None:
    made = make.bonsai(tmp_path / "bonsai", SHAPE)
    dense = tmp_path / "dense"
    make.write(dense, made.config | {"architectures": ["LlamaForCausalLM"]}, make.plain_tensors(made.weights))
    tokenizer_files.write_spm(dense)
    _, values = run(make.Made(dense, {}, made.weights, made.logits), "TQ2_0", head="F32")
    assert_same(made, values, swapped=True, rounded=exactly)


@pytest.mark.parametrize("longrope", [False, True])
def test_phi3_stays_fused(tmp_path: Path, longrope: bool) -> None:
    shape = Shape(kv_heads=4)
    made = make.phi3(tmp_path, shape, longrope=longrope)
    result, values = run(made, "BF16")
    qkv = np.concatenate([made.weights[f"1.{part}"] for part in "qkv"])
    np.testing.assert_array_equal(values["blk.1.attn_qkv.weight"], qkv)
    gate_up = np.concatenate([made.weights["1.gate"], made.weights["1.up"]])
    np.testing.assert_array_equal(values["blk.1.ffn_up.weight"], gate_up)
    keys = read_keys(result.path)
    assert keys["phi3.attention.sliding_window"] == 2047
    assert ("rope_factors_long.weight" in values) == longrope
    if longrope:
        assert keys["phi3.rope.scaling.original_context_length"] == 256
        assert keys["phi3.rope.scaling.attn_factor"] == pytest.approx((1 + np.log(2) / np.log(256)) ** 0.5)
        np.testing.assert_allclose(values["rope_factors_long.weight"], 3 * values["rope_factors_short.weight"])


@pytest.mark.parametrize("maker", [make.qwen2, make.qwen])
@pytest.mark.parametrize("version", [1, 2])
def test_symmetric_gptq_is_q4_0_to_the_bit(tmp_path: Path, maker: Callable[..., make.Made], version: int) -> None:
    shape = Shape(kv_heads=2 if maker is make.qwen2 else 4)
    made = maker(tmp_path, shape, gptq=make.Gptq(version=version))
    result, values = run(made)
    assert (result.outtype, result.head) == ("Q4_0", "F16")
    assert_gptq(made, values, relative=0)


@pytest.mark.parametrize("maker", [make.qwen2, make.qwen])
@pytest.mark.parametrize("group", [32, 128])
def test_asymmetric_gptq_is_q4_1(tmp_path: Path, maker: Callable[..., make.Made], group: int) -> None:
    made = maker(tmp_path, Shape(kv_heads=4), gptq=make.Gptq(group=group, symmetric=False))
    result, values = run(made)
    assert result.outtype == "Q4_1"
    assert result.notes
    assert_gptq(made, values, relative=1e-3)


def test_gptq_as_plain_weights(tmp_path: Path) -> None:
    made = make.qwen2(tmp_path, SHAPE, gptq=make.Gptq(symmetric=False))
    _, values = run(made, "F32")
    assert_gptq(made, values, relative=0)


def assert_gptq(made: make.Made, values: dict[str, Floats], *, relative: float) -> None:
    fused = {"attn_qkv": "qkv"} if "blk.0.attn_qkv.weight" in values else {}
    for name, value in values.items():
        part = name.split(".")[-2]
        layer = name.split(".")[1]
        if part in fused:
            suffix = "_bias" if name.endswith("bias") else ""
            expected = np.concatenate([made.weights[f"{layer}.{p}{suffix}"] for p in fused[part]])
        else:
            expected = original(made, name)
        error = np.sqrt(((value - expected) ** 2).mean() / (expected**2).mean())
        assert error <= relative, name
    # The zero biases of AutoGPTQ are dropped, and the real ones kept.
    biases = {name.split(".")[2] for name in values if name.endswith(".bias")}
    assert biases == set(fused or ("attn_q", "attn_k", "attn_v"))


@pytest.mark.parametrize("maker", [make.qwen2, make.qwen])
def test_unquantized_qwen(tmp_path: Path, maker: Callable[..., make.Made]) -> None:
    made = maker(tmp_path, Shape(kv_heads=4))
    result, values = run(made)
    assert result.outtype == "F16"
    assert_gptq(made, values, relative=0)


def test_bert_keeps_what_embeddings_need(tmp_path: Path) -> None:
    made = make.bert(tmp_path)
    result, values = run(made, "F32")
    assert result.architecture == "bert"
    assert not any("pooler" in name for name in values)
    names = {"position_embd.weight": "embeddings.position_embeddings.weight", "blk.1.attn_q.bias": None}
    names |= {"blk.1.layer_output_norm.bias": "encoder.layer.1.output.LayerNorm.bias"}
    names |= {"blk.1.attn_q.bias": "encoder.layer.1.attention.self.query.bias"}
    for name, source in names.items():
        np.testing.assert_array_equal(values[name], made.weights[str(source)])
    keys = read_keys(result.path)
    assert (keys["bert.pooling_type"], keys["bert.attention.causal"]) == (1, False)


def test_head_types(tmp_path: Path) -> None:
    made = make.bitnet(tmp_path, SHAPE)

    def quantize(values: Floats, target: QuantType) -> np.ndarray:
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType(target.id))

    for head in ("F16", "BF16", "Q8_0", "Q5_0"):
        result, values = run(made, "I2_S", head=head, quantize=quantize)
        assert result.head == head
        counts = {count.type: count.n_tensors for count in result.types}
        assert counts == {"I2_S": 14, "F32": 9, head: 1}
        error = np.abs(values["token_embd.weight"] - made.weights["embed"]).max()
        assert error < {"F16": 1e-3, "BF16": 1e-9, "Q8_0": 0.02, "Q5_0": 0.2}[head]


def test_the_result_counts_what_is_in_the_file(tmp_path: Path) -> None:
    made = make.bonsai(tmp_path / "Bonsai", SHAPE)
    result, values = run(made)
    assert result.outtype == "TQ2_0"
    assert result.name == "Bonsai"
    assert result.n_bytes == result.path.stat().st_size
    assert result.n_params == sum(value.size for value in values.values())
    assert {count.type: count.n_tensors for count in result.types} == {"F16": 2, "F32": 5, "TQ2_0": 14}
    assert read_keys(result.path)["general.name"] == "Bonsai"
