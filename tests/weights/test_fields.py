"""Every field of a configuration that changes results is read, or refused by its name."""

import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from edgellm.errors import CorruptFile, EdgellmError, UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile
from edgellm.weights.convert.converter import convert
from tests.weights import checkpoint_maker as make
from tests.weights.engine_run import Loaded, relative_rmse
from tests.weights.numpy_models import Floats, Shape, decode
from tests.weights.test_logits import TOKENS
from tests.weights.test_refusals import edit, refuse

SHAPE = Shape()
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}


@pytest.mark.parametrize(
    ("maker", "field", "value"),
    [
        (make.llama, "logit_scale", 0.0625),
        (make.llama, "final_logit_softcapping", 30.0),
        (make.llama, "attention_multiplier", 0.0078),
        (make.llama, "partial_rotary_factor", 0.5),
        (make.llama, "use_qk_norm", True),
        (make.llama, "is_causal", False),
        (make.llama, "layer_norm_eps", 1e-6),
        (make.llama, "clip_qkv", 8.0),
        (make.llama, "a_field_of_tomorrow", "on"),
        (make.llama, "num_local_experts", 8),
        (make.llama, "rope_scaling", YARN | {"alpha": 1000.0}),
        (make.llama, "rope_scaling", {"rope_type": "default", "mrope_section": [16, 24, 24]}),
        (make.llama, "rope_scaling", {"type": "dynamic", "factor": 2.0}),
        (make.llama, "rope_scaling", {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}),
        (make.qwen2, "rope_scaling", YARN | {"beta_fast": 16}),
        (make.qwen2, "rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        (make.qwen2, "layer_types", ["full_attention", "chunked_attention"]),
        (make.phi3, "rope_scaling", YARN),
        (make.bitnet, "rope_scaling", {"rope_type": "llama3", "factor": 8.0}),
        (make.bitnet, "weight_bits", 2),
        (make.bert, "is_decoder", True),
        (make.qwen, "scale_attn_weights", False),
        (make.bitlinear, "quantization_config", {"quant_method": "bitnet", "use_rms_norm": True}),
        (make.bitlinear, "quantization_config", {"quant_method": "bitnet", "modules_to_not_convert": ["o_proj"]}),
    ],
)
def test_a_field_that_changes_results_is_refused_by_name(tmp_path: Path, maker: Any, field: str, value: Any) -> None:
    made = maker(tmp_path) if maker is make.bert else maker(tmp_path, Shape(kv_heads=4))
    why = refuse(edit(made, **{field: value}), EdgellmError).why
    inner = {"rope_scaling": "rope type", "quantization_config": "modules_to_not_convert"}.get(field, field)
    named = [inner, field, *(value if isinstance(value, dict) else ())]
    assert any(name in why for name in named), why


def test_per_module_settings_of_gptq_are_refused(tmp_path: Path) -> None:
    made = make.qwen2(tmp_path, SHAPE, gptq=make.Gptq())
    settings = made.config["quantization_config"] | {"dynamic": {"+:.*down.*": {"bits": 8}}}
    assert "dynamic" in refuse(edit(made, quantization_config=settings), UnsupportedModel).why


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_scale": 1.0, "partial_rotary_factor": 1.0, "final_logit_softcapping": None, "use_qk_norm": False},
        {"sliding_window": None, "attention_dropout": 0.1, "_attn_implementation": "eager", "pruned_heads": {}},
        {"attention_bias": False, "mlp_bias": False, "pretraining_tp": 1, "torch_dtype": "bfloat16"},
        {"rope_theta": ..., "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
        {"layer_norm_eps": 1e-5, "n_embd": 256, "layer_types": ["full_attention", "full_attention"]},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 16}},
    ],
)
def test_fields_without_effect_are_accepted(tmp_path: Path, fields: dict[str, Any]) -> None:
    made = edit(make.llama(tmp_path, SHAPE), **fields)
    assert convert(made.directory, tmp_path / "out.gguf").notes == ()


def test_contradictions(tmp_path: Path) -> None:
    made = make.llama(tmp_path, SHAPE, biases=True)
    assert "q_proj.bias is not zero" in refuse(edit(made, attention_bias=False), UnsupportedModel).why
    assert "mlp_bias is true" in refuse(edit(made, mlp_bias=True), CorruptFile).why
    assert "vocab_size is 481" in refuse(edit(made, vocab_size=481), CorruptFile).why
    both = {"rope_scaling": YARN, "rope_parameters": {"rope_type": "default"}}
    assert "rope_scaling and rope_parameters" in refuse(edit(made, **both), CorruptFile).why
    for wrong in ({"factor": 0}, {"beta_fast": 1, "beta_slow": 2}, {"original_max_position_embeddings": 0}):
        refuse(edit(made, rope_scaling=YARN | wrong), CorruptFile)


def test_a_sliding_window_limits_the_context_or_is_told(tmp_path: Path) -> None:
    for maker, fields, n_ctx in (
        (make.llama, {"sliding_window": 64}, 64),
        (make.qwen2, {"sliding_window": 64}, 512),
        (make.qwen2, {"sliding_window": 64, "use_sliding_window": True}, 64),
        (make.qwen2, {"sliding_window": 64, "use_sliding_window": True, "max_window_layers": 2}, 512),
        (make.phi3, {"sliding_window": 64}, 512),
    ):
        directory = tmp_path / f"{maker.__name__}{len(list(tmp_path.iterdir()))}"
        made = edit(maker(directory, Shape(kv_heads=4)), **fields)
        result = convert(made.directory, directory / "out.gguf")
        with GGUFFile.open(result.path) as file:
            assert file.get_int(file.key("context_length")) == n_ctx
        assert bool(result.notes) == (n_ctx == 64 or maker is make.phi3)
        assert all("64 tokens" in note for note in result.notes)


def test_what_generation_config_asks_for_is_told(tmp_path: Path) -> None:
    made = make.llama(tmp_path, SHAPE)
    generation = {"temperature": 0.6, "top_p": 1.0, "suppress_tokens": [3], "bad_words_ids": None, "do_sample": True}
    (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    sampling, rules = convert(made.directory, tmp_path / "out.gguf").notes
    assert "temperature 0.6;" in sampling and "top_p" not in sampling and "sets suppress_tokens," in rules


def yarn_reference(shape: Shape, scaling: dict[str, Any]) -> tuple[Floats, float]:
    """The divisors and the attention factor, one frequency at a time, as the paper describes them."""
    factor, original = scaling["factor"], scaling["original_max_position_embeddings"]
    fast, slow = scaling.get("beta_fast", 32), scaling.get("beta_slow", 1)

    def place(turns: float) -> float:
        return shape.head * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(shape.theta))

    low, high = place(fast), place(slow)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, shape.head - 1)
    divisors = []
    for i in range(shape.head // 2):
        scaled = min(max((i - low) / (high - low), 0), 1)
        frequency = shape.theta ** (-2 * i / shape.head)
        divisors.append(frequency / (frequency / factor * scaled + frequency * (1 - scaled)))

    def scale(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1

    weights = scaling.get("mscale", 0), scaling.get("mscale_all_dim", 0)
    attention = scale(weights[0]) / scale(weights[1]) if all(weights) else scale(1)
    return np.array(divisors, np.float32), scaling.get("attention_factor", attention)


@pytest.mark.engine
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"attention_factor": 0.5},
        {"mscale": 1.2, "mscale_all_dim": 0.7},
        {"beta_fast": 16, "beta_slow": 2, "attention_factor": 0.5},
        {"beta_fast": 8},
        {"truncate": False},
    ],
)
@pytest.mark.parametrize("maker", [make.llama, make.qwen2])
def test_yarn_as_transformers_computes_it(tmp_path: Path, llama: ModuleType, maker: Any, more: dict[str, Any]) -> None:
    made = edit(maker(tmp_path, SHAPE), rope_scaling=YARN | more)
    if maker is make.qwen2 and {"beta_fast", "truncate"} & more.keys():
        assert "the engine computes YaRN with" in refuse(made, UnsupportedModel).why
        return
    result = convert(made.directory, tmp_path / "out.gguf", outtype="F32", head="F16")
    divisors, attention = yarn_reference(SHAPE, YARN | more)
    expected = decode(SHAPE, made.weights, TOKENS, frequency_divisors=divisors, attention_factor=attention)
    with Loaded(llama, result.path) as model:
        assert relative_rmse(model.logits(TOKENS), expected).max() <= 0.002
