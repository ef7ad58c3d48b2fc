"""A checkpoint that cannot be converted raises one clear error before anything is written."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm.errors import CorruptFile, EdgellmError, ModelNotFound, UnsupportedModel, UsageError
from edgellm.progress import Progress
from edgellm.weights.convert.checkpoints import UnknownArchitecture
from edgellm.weights.convert.converter import convert
from tests.weights import checkpoint_maker as make
from tests.weights.numpy_models import Shape

SHAPE = Shape()


def refuse(made: make.Made, error: type[EdgellmError], **options: Any) -> EdgellmError:
    """Convert, expect the error, and check that no file is left."""
    output = made.directory / "out.gguf"
    before = sorted(made.directory.iterdir())
    with pytest.raises(error) as refused:
        convert(made.directory, output, **options)
    assert sorted(made.directory.iterdir()) == before
    return refused.value


def edit(made: make.Made, **changes: Any) -> make.Made:
    config = {key: value for key, value in (made.config | changes).items() if value is not ...}
    (made.directory / "config.json").write_text(json.dumps(config))
    return made


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": True}, "desc_act"),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, "8 bits"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 48}, "groups of 48"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "marlin"}, "marlin"),
        ({"quant_method": "fp8"}, "fp8"),
    ],
)
def test_quantizations_are_refused_before_a_weight_is_opened(
    tmp_path: Path, settings: dict[str, Any], why: str
) -> None:
    made = edit(make.llama(tmp_path, SHAPE), quantization_config=settings)
    (tmp_path / "model.safetensors").unlink()
    assert why in refuse(made, UnsupportedModel).why


def test_scattered_groups_without_desc_act(tmp_path: Path) -> None:
    made = make.qwen2(tmp_path, SHAPE, gptq=make.Gptq())
    tensors = read_tensors(tmp_path)
    tensors["model.layers.0.mlp.up_proj.g_idx"][:2] = [1, 0]
    make.write_safetensors(tmp_path / "model.safetensors", tensors)
    assert "act-order" in refuse(made, UnsupportedModel).why


def test_a_bias_that_the_architecture_has_not(tmp_path: Path) -> None:
    made = make.qwen2(tmp_path, SHAPE, gptq=make.Gptq())
    tensors = read_tensors(tmp_path)
    tensors["model.layers.1.mlp.down_proj.bias"][0] = 1
    make.write_safetensors(tmp_path / "model.safetensors", tensors)
    assert "down_proj.bias is not zero" in refuse(made, UnsupportedModel).why


def test_tensors_that_nobody_knows(tmp_path: Path) -> None:
    made = make.bitlinear(tmp_path, SHAPE)
    tensors = read_tensors(tmp_path) | {"model.layers.0.mlp.up_proj.rms_norm.weight": np.ones(8, np.float32)}
    make.write_safetensors(tmp_path / "model.safetensors", tensors)
    assert "rms_norm" in refuse(made, UnsupportedModel).why


def test_an_unknown_architecture_names_upstreams_converter(tmp_path: Path) -> None:
    error = refuse(edit(make.llama(tmp_path, SHAPE), architectures=["MambaForCausalLM"]), UnknownArchitecture)
    assert "MambaForCausalLM" in error.what
    assert "convert_hf_to_gguf.py" in error.hint
    assert "torch" in error.hint


@pytest.mark.parametrize(
    ("maker", "outtype", "why"),
    [
        (make.bonsai, "I2_S", "one scale per tensor"),
        (make.llama, "I2_S", "not trained for that"),
        (make.llama, "Q4_K", "edgellm quantize"),
        (make.llama, "TQ2_0", "not ternary"),
        (make.bitnet, "Q8_0", "ternary weights can be written as"),
        (lambda d, s: make.qwen2(d, s, gptq=make.Gptq(symmetric=False)), "Q4_0", "zero points"),
    ],
)
def test_types_a_checkpoint_cannot_have(
    tmp_path: Path, maker: Callable[..., make.Made], outtype: str, why: str
) -> None:
    assert why in refuse(maker(tmp_path, SHAPE), UnsupportedModel, outtype=outtype).why


def test_no_such_type(tmp_path: Path) -> None:
    refuse(make.llama(tmp_path, SHAPE), UsageError, outtype="q4_zero")


def test_rows_that_are_not_whole_blocks(tmp_path: Path) -> None:
    made = make.bonsai(tmp_path, Shape(hidden=224, heads=4))
    error = refuse(made, UnsupportedModel, outtype="TQ2_0")
    assert "rows of 224" in error.why
    assert error.hint == "--outtype q4_0 fits"
    assert convert(made.directory, tmp_path / "out.gguf").outtype == "Q4_0"


def test_heads_that_cannot_be(tmp_path: Path) -> None:
    made = make.bitnet(tmp_path, Shape(hidden=384, ffn=384, heads=6))
    assert "edgellm engine build" in refuse(made, UsageError, head="Q6_K").hint
    assert "rows of 384" in refuse(made, UsageError, head="Q6_K", quantize=lambda v, t: v.view(np.uint8)).why
    assert "types for --head" in refuse(made, UsageError, head="Q2_K").hint
    assert "not ternary" in refuse(made, UnsupportedModel, head="Q2_0").why
    made = make.llama(tmp_path / "odd", Shape(hidden=72, heads=4, kv_heads=2))
    assert "rows of 72" in refuse(made, UsageError, head="q8_0").why


def test_a_scale_that_half_precision_cannot_hold(tmp_path: Path) -> None:
    made = make.bonsai(tmp_path, SHAPE, smallest=1e-6)
    for outtype in ("TQ2_0", "F16"):
        assert "cannot hold the scales of 14 tensors" in refuse(made, UnsupportedModel, outtype=outtype).why
    assert convert(tmp_path, tmp_path / "out.gguf", outtype="BF16").outtype == "BF16"


@pytest.mark.parametrize("outtype", ["TQ2_0", "TQ1_0", "Q4_0", "F16"])
def test_a_scale_below_the_precision_of_half(tmp_path: Path, outtype: str) -> None:
    made = make.bitnet(tmp_path, SHAPE)
    tensors = read_tensors(tmp_path) | {f"{PACKED}_scale": np.full(1, 3e-8, np.float32)}
    make.write_safetensors(tmp_path / "model.safetensors", tensors)
    assert "blk.0.ffn_up.weight" in refuse(made, UnsupportedModel, outtype=outtype).why
    assert convert(tmp_path, tmp_path / "out.gguf", outtype="I2_S").outtype == "I2_S"


@pytest.mark.parametrize(("factor", "possible"), [(1.0, True), (1.001, False)])
def test_gptq_scales_of_more_bits(tmp_path: Path, factor: float, possible: bool) -> None:
    made = make.qwen2(tmp_path, SHAPE, gptq=make.Gptq())
    tensors = read_tensors(tmp_path)
    name = "model.layers.0.mlp.up_proj.scales"
    tensors[name] = (tensors[name].astype(np.float32) * np.float32(factor)).astype(np.float32)
    make.write_safetensors(tmp_path / "model.safetensors", tensors)
    if possible:
        assert convert(tmp_path, tmp_path / "out.gguf").outtype == "Q4_0"
    else:
        assert "fp16 cannot hold" in refuse(made, UnsupportedModel).why


def test_weights_beyond_half_precision(tmp_path: Path) -> None:
    made = make.llama(tmp_path, SHAPE)
    tensors = make.plain_tensors(made.weights)
    embedding = made.weights["embed"].copy()
    embedding[7, 7] = 1 << 17
    make.write_safetensors(
        tmp_path / "model.safetensors", tensors | {"model.embed_tokens.weight": make.Bf16(embedding)}
    )
    error = refuse(made, UnsupportedModel, outtype="F16")
    assert "token_embd.weight" in error.why
    assert "131072" in error.why
    assert convert(tmp_path, tmp_path / "out.gguf", outtype="F16", head="BF16").head == "BF16"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    made = make.bitnet(tmp_path, SHAPE, packed=False)
    tensors = read_tensors(tmp_path)
    tensors["model.layers.0.mlp.up_proj.weight"][3, 3] = value
    make.write_safetensors(tmp_path / "model.safetensors", tensors)
    assert "up_proj" in refuse(made, CorruptFile).why


def read_tensors(directory: Path) -> dict[str, Any]:
    """All tensors of a test checkpoint; bfloat16 as float32."""
    data = (directory / "model.safetensors").read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    dtypes = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "U8": "u1", "I32": "<i4"}
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = (8 + size + offset for offset in entry["data_offsets"])
            array = np.frombuffer(data[start:end], dtypes[entry["dtype"]]).reshape(entry["shape"])
            is_bf16 = entry["dtype"] == "BF16"
            tensors[name] = (array.astype(np.uint32) << 16).view(np.float32) if is_bf16 else array.copy()
    return tensors


def drop(tensors: dict[str, Any], name: str) -> None:
    del tensors[name]


PACKED = "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: drop(t, "model.norm.weight"), "no tensor 'model.norm.weight'"),
        (lambda t: drop(t, f"{PACKED}_scale"), "no weight_scale"),
        (lambda t: drop(t, "model.layers.1.mlp.down_proj.weight"), "no tensor"),
        (lambda t: t.update({f"{PACKED}_scale": np.zeros(1, np.float32)}), "one positive number"),
        (lambda t: t.update({f"{PACKED}_scale": np.full(1, np.nan, np.float32)}), "finite"),
        (lambda t: t.update({f"{PACKED}_scale": np.ones(2, np.float32)}), "one positive number"),
        (lambda t: t.update({f"{PACKED}_scale": np.ones(0, np.float32)}), "one positive number"),
        (lambda t: t.update({f"{PACKED}_scale": np.ones(1, np.int32)}), "is I32"),
        (lambda t: t.update({PACKED: np.full_like(t[PACKED], 0xFF)}), "3"),
        (lambda t: t.update({PACKED: t[PACKED][:-1]}), "not U8"),
        (lambda t: t.update({PACKED: t[PACKED].astype(np.int32)}), "is I32"),
        (lambda t: t.update({PACKED: np.full((512, 256), 0.5, np.float32)}), "other than -1, 0 and 1"),
        (lambda t: t.update({"model.norm.weight": np.ones((256, 1), np.float32)}), "model.norm.weight"),
        (lambda t: t.update({"model.embed_tokens.weight": np.float32(1)}), "has no rows"),
        (lambda t: t.update({"model.embed_tokens.weight": np.ones((0, 256), np.float32)}), "has no rows"),
        (lambda t: t.update({"model.embed_tokens.weight": np.ones((200, 256), np.float32)}), "has 200 rows"),
    ],
)
def test_damaged_bitnet(tmp_path: Path, change: Callable[[dict[str, Any]], None], why: str) -> None:
    made = make.bitnet(tmp_path, SHAPE)
    tensors = read_tensors(tmp_path)
    change(tensors)
    make.write_safetensors(tmp_path / "model.safetensors", tensors)
    error = refuse(made, EdgellmError)
    assert isinstance(error, (CorruptFile, UnsupportedModel))
    assert why in error.why


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": []},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [["LlamaForCausalLM"]]},
        {"hidden_size": ...},
        {"hidden_size": "256"},
        {"hidden_size": 0},
        {"hidden_size": -256},
        {"hidden_size": 1 << 62},
        {"hidden_size": 255},
        {"num_hidden_layers": 1 << 40},
        {"num_hidden_layers": 3},
        {"num_attention_heads": 0},
        {"num_attention_heads": True},
        {"num_key_value_heads": 3},
        {"num_key_value_heads": 8},
        {"head_dim": 10**30},
        {"rms_norm_eps": "small"},
        {"rope_theta": 0},
        {"rope_theta": 1e39},
        {"rope_theta": 5.0, "rope_parameters": {"rope_theta": 6.0}},
        {"rope_scaling": {"rope_type": "llama3", "low_freq_factor": 4, "high_freq_factor": 1}},
        {"rope_scaling": {"rope_type": "linear"}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 2}},
        {"rope_scaling": [1]},
        {"hidden_act": "gelu"},
        {"max_position_embeddings": None},
        {"quantization_config": "gptq"},
    ],
)
def test_wrong_configurations(tmp_path: Path, changes: dict[str, Any]) -> None:
    made = edit(make.llama(tmp_path, SHAPE), **changes)
    error = refuse(made, EdgellmError)
    assert isinstance(error, (CorruptFile, UnsupportedModel))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", r'{"a": "\ud800"}', "[" * 100_000, '{"a": NaN}', '{"a":1,"a":2}', "\udcff"]
)
def test_config_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    made = make.llama(tmp_path, SHAPE)
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refuse(made, CorruptFile)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no checkpoint"):
        convert(tmp_path)
    made = make.llama(tmp_path, SHAPE)
    with pytest.raises(UsageError, match="is a directory"):
        convert(made.directory, tmp_path)
    with pytest.raises(EdgellmError, match="cannot be written"):
        convert(made.directory, tmp_path / "no" / "such" / "out.gguf")


def test_longrope_of_the_wrong_length(tmp_path: Path) -> None:
    made = make.phi3(tmp_path, Shape(kv_heads=4), longrope=True)
    edit(made, rope_scaling={"type": "su", "long_factor": [1.0], "short_factor": [1.0]})
    assert "has 1 numbers, not 32" in refuse(made, CorruptFile).why


@pytest.mark.parametrize("path", ["../1_Pooling", "/etc", "missing"])
def test_pooling_that_is_elsewhere(tmp_path: Path, path: str) -> None:
    made = make.bert(tmp_path)
    (tmp_path / "modules.json").write_text(json.dumps([{"path": path, "type": "x.Pooling"}]))
    refuse(made, CorruptFile)


def test_pooling_by_maximum(tmp_path: Path) -> None:
    made = make.bert(tmp_path)
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    assert "max" in refuse(made, UnsupportedModel).why


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path) -> None:
    made = make.llama(tmp_path, SHAPE)

    def interrupt(progress: Progress) -> None:
        if progress.done:
            raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        convert(made.directory, tmp_path / "out.gguf", report=interrupt)
    assert sorted(tmp_path.iterdir()) == before


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    seen: list[Progress] = []
    convert(make.llama(tmp_path, SHAPE).directory, tmp_path / "out.gguf", report=seen.append)
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert seen[-1].done == seen[-1].total


@pytest.mark.parametrize("maker", [make.bitnet, make.bonsai, make.bert, make.qwen])
def test_random_damage_gives_one_error_or_a_file(tmp_path: Path, maker: Callable[..., make.Made]) -> None:
    """Random changes to the JSON files and the safetensors header may raise only EdgellmError."""
    made = maker(tmp_path) if maker is make.bert else maker(tmp_path, Shape(kv_heads=4, layers=1))
    rng = random.Random(11)
    files = sorted(
        path for path in tmp_path.iterdir() if path.suffix in (".json", ".safetensors", ".model", ".tiktoken")
    )
    for _ in range(150):
        path = rng.choice(files)
        original = path.read_bytes()
        damaged = bytearray(original)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(min(len(damaged), 4000))] = rng.randrange(256)
        path.write_bytes(damaged[: rng.choice([len(damaged), len(damaged), rng.randrange(len(damaged))])])
        try:
            convert(made.directory, tmp_path / "out.gguf")
        except EdgellmError as error:
            assert error.what
        path.write_bytes(original)
