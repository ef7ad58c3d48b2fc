"""Converted files compute in the engine what the checkpoint computes in plain numpy."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgellm.weights.convert.converter import convert
from tests.weights import checkpoint_maker as make
from tests.weights import tokenizer_files
from tests.weights.engine_run import Loaded, divergence, relative_rmse
from tests.weights.numpy_models import Shape, bert_vector

pytestmark = pytest.mark.engine

TOKENS = [3, 65, 256, 17, 70, 70, 100, 5, 261, 12, 33, 90, 141, 8, 2, 264]
SHAPES = [Shape(), Shape(hidden=384, ffn=640, layers=3, heads=6, kv_heads=6), Shape(hidden=512, heads=4, kv_heads=1)]


def compare(llama: ModuleType, made: make.Made, outtype: str | None, head: str | None = "F16") -> tuple[float, float]:
    """Return the relative RMSE at the first position, and the KL divergence over all positions."""
    result = convert(made.directory, made.directory / "out.gguf", outtype=outtype, head=head)
    reference = made.logits(TOKENS)
    with Loaded(llama, result.path) as model:
        logits = model.logits(TOKENS)
    return float(relative_rmse(logits, reference)[0]), divergence(logits, reference)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("packed", [True, False])
def test_bitnet_i2_s(tmp_path: Path, llama: ModuleType, shape: Shape, packed: bool) -> None:
    first, kld = compare(llama, make.bitnet(tmp_path, shape, seed=1, packed=packed), "I2_S")
    assert first <= 0.005
    assert kld <= 0.006


def test_bitnet_with_silu_is_not_run_with_squared_relu(tmp_path: Path, llama: ModuleType) -> None:
    first, kld = compare(llama, make.bitnet(tmp_path, SHAPES[0], act="silu"), "I2_S")
    assert first <= 0.005
    assert kld <= 0.006


def test_bitnet_tq2_0_differs_by_activation_rounding_only(tmp_path: Path, llama: ModuleType) -> None:
    _, kld = compare(llama, make.bitnet(tmp_path, SHAPES[0]), "TQ2_0")
    assert kld <= 0.02


def test_bitlinear_llama_i2_s(tmp_path: Path, llama: ModuleType) -> None:
    first, kld = compare(llama, make.bitlinear(tmp_path, SHAPES[0]), "I2_S")
    assert first <= 0.005
    assert kld <= 0.006


@pytest.mark.parametrize("shape", SHAPES)
def test_bonsai_f16(tmp_path: Path, llama: ModuleType, shape: Shape) -> None:
    assert compare(llama, make.bonsai(tmp_path, shape), "F16")[0] <= 0.002


@pytest.mark.parametrize("longrope", [False, True])
def test_phi3_f16(tmp_path: Path, llama: ModuleType, longrope: bool) -> None:
    first, kld = compare(llama, make.phi3(tmp_path, Shape(kv_heads=4), longrope=longrope), "F16")
    assert first <= 0.005
    assert kld <= 1e-4


@pytest.mark.parametrize("options", [{}, {"llama3": True}, {"biases": True}])
@pytest.mark.parametrize("shape", SHAPES)
def test_llama_f32(tmp_path: Path, llama: ModuleType, shape: Shape, options: dict[str, bool]) -> None:
    first, kld = compare(llama, make.llama(tmp_path, shape, **options), "F32")
    assert first <= 0.002  # the F16 head
    assert kld <= 1e-5


@pytest.mark.parametrize("maker", [make.qwen, make.qwen2])
@pytest.mark.parametrize("gptq", [None, make.Gptq(), make.Gptq(symmetric=False)])
def test_qwen_f32(tmp_path: Path, llama: ModuleType, maker: Callable[..., make.Made], gptq: make.Gptq | None) -> None:
    first, kld = compare(llama, maker(tmp_path, Shape(kv_heads=4), gptq=gptq), "F32")
    assert first <= 0.002
    assert kld <= 1e-5


@pytest.mark.parametrize("symmetric", [True, False])
def test_qwen_in_four_bits(tmp_path: Path, llama: ModuleType, symmetric: bool) -> None:
    made = make.qwen(tmp_path, Shape(kv_heads=4), gptq=make.Gptq(symmetric=symmetric))
    assert compare(llama, made, "Q4_0" if symmetric else "Q4_1")[1] <= 0.02  # activations become 8 bits


WIDE_HEADS = Shape(hidden=256, heads=4, kv_heads=2, head_size=128)


@pytest.mark.parametrize("shape", [*SHAPES, WIDE_HEADS])
def test_qwen3_f32(tmp_path: Path, llama: ModuleType, shape: Shape) -> None:
    first, kld = compare(llama, make.qwen3(tmp_path, shape), "F32", "F32")
    assert first <= 0.001
    assert kld <= 1e-5


@pytest.mark.parametrize("longrope", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_minicpm_f32(tmp_path: Path, llama: ModuleType, shape: Shape, longrope: bool) -> None:
    first, kld = compare(llama, make.minicpm(tmp_path, shape, longrope=longrope), "F32", "F32")
    assert first <= 0.001
    assert kld <= 1e-5


@pytest.mark.parametrize(("group", "binary"), [(64, False), (128, False), (256, False), (128, True)])
def test_weights_in_groups(tmp_path: Path, llama: ModuleType, group: int, binary: bool) -> None:
    """By default such a checkpoint keeps its weights, head included, in a type of few bits."""
    made = make.qwen3(tmp_path, Shape(), group=group, binary=binary)
    assert compare(llama, made, "F32", "F32")[0] <= 0.001
    assert compare(llama, made, None, None)[1] <= 0.01  # activations become 8 bits


def test_ternary_minicpm(tmp_path: Path, llama: ModuleType) -> None:
    assert compare(llama, make.minicpm(tmp_path, Shape(), group=256), "TQ2_0")[1] <= 0.01


def test_bert_vectors(tmp_path: Path, llama: ModuleType) -> None:
    made = make.bert(tmp_path)
    result = convert(made.directory, tmp_path / "out.gguf", outtype="F16")
    tokens = [2, 5, 6, 7, 8, 9, 3]
    with Loaded(llama, result.path) as model:
        assert model.tokenize("The cats SAT.") == tokens
        vector = model.embedding(tokens)
    expected = bert_vector(made.weights, tokens, layers=2, heads=4)
    assert np.dot(vector, expected) >= 0.9999


TEXT = "the cat 1212 in\nthe cat"


@pytest.mark.parametrize(
    ("maker", "tokens"),
    [
        # Llama 3 takes up to three digits together, "121" and "2", and joins 1 and 2 (token 260) in them.
        (make.bitnet, [264, 257, 263, 32, 260, 49, 50, 32, 259, 10, 257, 263]),
        # SmolLM and Qwen take digits one by one.
        (make.llama, [264, 257, 263, 32, 49, 50, 49, 50, 32, 259, 10, 257, 263]),
        (make.qwen2, [264, 257, 263, 32, 49, 50, 49, 50, 32, 259, 10, 257, 263]),
    ],
)
def test_byte_level_tokens(
    tmp_path: Path, llama: ModuleType, maker: Callable[..., make.Made], tokens: list[int]
) -> None:
    result = convert(maker(tmp_path, SHAPES[0]).directory, tmp_path / "out.gguf")
    with Loaded(llama, result.path) as model:
        assert model.tokenize(TEXT) == tokens


@pytest.mark.parametrize("as_json", [False, True])
def test_sentencepiece_tokens(tmp_path: Path, llama: ModuleType, as_json: bool) -> None:
    made = make.bonsai(tmp_path, SHAPES[0])
    (tmp_path / "tokenizer.model").unlink()
    tokenizer_files.write_spm(tmp_path, as_json=as_json)
    pieces = {text: i for i, (text, _, _) in enumerate(tokenizer_files.spm_pieces())}
    result = convert(made.directory, tmp_path / "out.gguf")
    with Loaded(llama, result.path) as model:
        # "the cat" in two pieces; "é" falls back to its two bytes; a control token is never split.
        text = ["<s>", "▁the", "▁cat", "<0xC3>", "<0xA9>", "</s>"]
        assert model.tokenize("the caté</s>") == [pieces[piece] for piece in text]
