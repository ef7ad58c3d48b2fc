"""BitNet files in bitnet.cpp's format load unchanged, and compute what the reference computes."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.engine.base import ModelInfo
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile
from tests.engine.bitnet_file import TINY, Keys, Tensor, Ternary, metadata, small_bpe, tensors, weights, write
from tests.engine.bitnet_reference import forward
from tests.engine.engine_logits import logits

pytestmark = pytest.mark.engine

Floats = npt.NDArray[np.float32]
TOKENS = [7, 300, 11, 42, 42, 256, 3, 99, 150, 8, 19, 77]
NO_VOCAB: Keys = {"tokenizer.ggml.model": "no_vocab"}
# llama_ftype and ggml_type
ALL_F32, MOSTLY_Q8_0, I2_S = 0, 7, 36


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny-i2_s.gguf"
    return write(path, {**metadata(TINY), **small_bpe(TINY.vocab)}, tensors(TINY))


@pytest.fixture(scope="module")
def reference() -> Floats:
    return forward(TINY, weights(TINY), np.array(TOKENS))


def relative_rmse(actual: Floats, expected: Floats) -> float:
    return float(np.sqrt(((actual - expected) ** 2).mean() / (expected**2).mean()))


def kl_divergence(actual: Floats, expected: Floats) -> float:
    def log_softmax(x: Floats) -> npt.NDArray[np.float64]:
        y = x.astype(np.float64) - x.max(axis=-1, keepdims=True)
        return y - np.log(np.exp(y).sum(axis=-1, keepdims=True))

    p, q = log_softmax(expected), log_softmax(actual)
    return float((np.exp(p) * (p - q)).sum(axis=-1).mean())


@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("extra_bufts", [True, False])
def test_logits_match_the_reference(
    llama: LlamaEngine, tiny: Path, reference: Floats, use_mmap: bool, extra_bufts: bool
) -> None:
    actual = logits(llama, tiny, TOKENS, use_mmap=use_mmap, extra_bufts=extra_bufts)
    assert relative_rmse(actual[0], reference[0]) < 0.002
    assert kl_divergence(actual, reference) < 0.006


@pytest.mark.parametrize("token", [0, 5, 255, 319])
def test_first_positions_match_the_reference(llama: LlamaEngine, tiny: Path, token: int) -> None:
    assert relative_rmse(logits(llama, tiny, [token]), forward(TINY, weights(TINY), np.array([token]))) < 0.002


def test_threads_change_nothing_and_batches_only_what_comes_later(llama: LlamaEngine, tiny: Path) -> None:
    one = logits(llama, tiny, TOKENS, n_threads=1)
    np.testing.assert_array_equal(logits(llama, tiny, TOKENS, n_threads=2), one)
    singly = logits(llama, tiny, TOKENS, n_batch=1)
    np.testing.assert_allclose(singly[0], one[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", ["bitnet-b1.58", "bitnet-25", "bitnet"])
def test_names_of_the_architecture(llama: LlamaEngine, tmp_path: Path, reference: Floats, architecture: str) -> None:
    keys = {**metadata(TINY, architecture), **NO_VOCAB}
    if architecture == "bitnet":
        keys["bitnet.hidden_activation"] = "relu2"
    path = write(tmp_path / "model.gguf", keys, tensors(TINY))
    info = describe(llama, path)
    assert (info.architecture, info.quant) == (architecture, "I2_S - 2.00 bpw ternary")
    assert relative_rmse(logits(llama, path, TOKENS)[0], reference[0]) < 0.002


def test_an_activation_in_the_file_is_not_overruled(llama: LlamaEngine, tmp_path: Path, reference: Floats) -> None:
    keys = {**metadata(TINY), **NO_VOCAB, "bitnet-b1.58.hidden_activation": "silu"}
    path = write(tmp_path / "model.gguf", keys, tensors(TINY))
    assert relative_rmse(logits(llama, path, TOKENS)[0], reference[0]) > 0.1


def tokenize(llama: LlamaEngine, path: Path, text: str) -> list[bytes]:
    model = llama.load(path)
    try:
        return [model.piece(token) for token in model.tokenize(text, bos=False)]
    finally:
        model.close()


def test_the_missing_pre_tokenizer_is_llama_3s(llama: LlamaEngine, tiny: Path) -> None:
    # Llama 3 splits digits in threes; the default for files without the key would keep 1234 together.
    assert tokenize(llama, tiny, "1234") == [b"123", b"4"]


def test_a_pre_tokenizer_in_the_file_is_kept(llama: LlamaEngine, tmp_path: Path) -> None:
    keys = {**metadata(TINY), **small_bpe(TINY.vocab), "tokenizer.ggml.pre": "gpt-2"}
    assert tokenize(llama, write(tmp_path / "model.gguf", keys, tensors(TINY)), "1234") == [b"1234"]


def describe(llama: LlamaEngine, path: Path) -> ModelInfo:
    model = llama.load(path)
    model.close()
    return model.info


def in_f16(tensor: Tensor) -> Tensor:
    value = tensor.value()
    if not isinstance(value, Ternary):
        return tensor
    return tensor._replace(type="F16", value=lambda: value.codes.astype(np.float16))


def test_file_type_40_without_i2_s_is_still_q1_0(llama: LlamaEngine, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", {**metadata(TINY), **NO_VOCAB}, map(in_f16, tensors(TINY)))
    assert describe(llama, path).quant == "Q1_0"


def refusal(llama: LlamaEngine, path: Path) -> str:
    with pytest.raises(UnsupportedModel):
        llama.load(path)
    return "\n".join(llama.messages)


def test_rows_that_are_no_multiple_of_128_are_refused(llama: LlamaEngine, tiny: Path, tmp_path: Path) -> None:
    data = tiny.read_bytes()
    matrix, wider = (np.array(ne, "<u8").tobytes() for ne in [(256, 384), (64, 1536)])
    assert data.count(matrix) == 4  # gate and up of two layers; as many weights in rows of half a block
    path = tmp_path / "narrow.gguf"
    path.write_bytes(data.replace(matrix, wider))
    assert "of type 36 (i2_s) has 64 elements per row, not a multiple of block size (128)" in refusal(llama, path)


def test_an_i2_s_embedding_is_refused(llama: LlamaEngine, tmp_path: Path) -> None:
    codes = Ternary(np.ones((TINY.vocab, TINY.width), np.int8), np.float32(1))
    embedding, *others = tensors(TINY)
    values = [embedding._replace(type="I2_S", value=lambda: codes), *others]
    log = refusal(llama, write(tmp_path / "model.gguf", {**metadata(TINY), **NO_VOCAB}, values))
    assert "failed to find a compatible buffer type for tensor token_embd.weight" in log


def test_a_file_that_ends_in_the_scale_is_refused(llama: LlamaEngine, tmp_path: Path) -> None:
    values = [tensor for tensor in tensors(TINY) if tensor.name != "output_norm.weight"]
    path = write(tmp_path / "model.gguf", {**metadata(TINY), **NO_VOCAB}, values)
    path.write_bytes(path.read_bytes()[:-30])
    assert "data is not within the file bounds" in refusal(llama, path)


def quantize(llama: LlamaEngine, source: Path, target: Path, **options: int | bool) -> str:
    """Run the engine's own quantizer; return its log if it fails, and "" if it succeeds."""
    parameters = llama._c.llama_model_quantize_default_params()
    for name, value in options.items():
        setattr(parameters, name, value)
    llama.messages.clear()
    failed = llama._c.llama_model_quantize(str(source).encode(), str(target).encode(), parameters)
    return "\n".join(llama.messages) if failed else ""


@pytest.mark.parametrize("max_buf_size", [1 << 15, 1 << 30])
@pytest.mark.parametrize("nthread", [1, 2])
def test_the_quantizer_dequantizes_exactly(
    llama: LlamaEngine, tiny: Path, tmp_path: Path, nthread: int, max_buf_size: int
) -> None:
    target = tmp_path / "f32.gguf"
    options = {"ftype": ALL_F32, "allow_requantize": True, "nthread": nthread, "max_buf_size": max_buf_size}
    assert not quantize(llama, tiny, target, **options)
    with GGUFFile.open(target) as file:
        for name, value in weights(TINY).items():
            if isinstance(value, Ternary):
                written = file.tensor_bytes(name).view("<f4").reshape(value.codes.shape)
                np.testing.assert_array_equal(written, value.codes * value.scale)
                del written


def test_a_copy_keeps_bytes_file_type_and_names(llama: LlamaEngine, tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.gguf"
    assert not quantize(llama, tiny, target, only_copy=True)
    with GGUFFile.open(tiny) as before, GGUFFile.open(target) as after:
        assert after.architecture == "bitnet-b1.58"
        assert after.get_int("general.file_type") == 40
        added = {"bitnet-b1.58.hidden_activation", "general.quantization_version", "tokenizer.ggml.pre"}
        assert set(after.metadata) - set(before.metadata) == added
        for name in before.tensors:
            assert before.tensor_bytes(name).tobytes() == after.tensor_bytes(name).tobytes()


def test_the_quantizer_refuses_to_make_i2_s(llama: LlamaEngine, tiny: Path, tmp_path: Path) -> None:
    error = quantize(llama, tiny, tmp_path / "no.gguf", ftype=MOSTLY_Q8_0, token_embedding_type=I2_S)
    assert "i2_s has one scale for a whole tensor" in error
