"""Files of Q2_0 with 64 and with 128 columns a scale, and of Q1_0, whose embedding is also the head.

Both kinds of Q2_0 have the id 42: only the offsets of tensors tell them apart.
"""

import struct
from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.llama import LlamaEngine
from edgellm.errors import UnsupportedModel
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import QuantType, named_type
from tests.engine.engine_logits import logits
from tests.engine.group_weights import TYPES, GroupWeights

pytestmark = pytest.mark.engine

WIDTH, FFN, HEADS, LAYERS, VOCABULARY = 256, 384, 4, 2, 320
TOKENS = [7, 300, 11, 42, 42, 256, 3, 99]
KINDS = {"Q2_0": QuantType(42, "Q2_0", 64, 18), "Q2_0_G128": QuantType(42, "", 128, 34), "Q1_0": named_type("Q1_0")}
SHAPES = {
    "attn_q": (WIDTH, WIDTH), "attn_k": (WIDTH, WIDTH), "attn_v": (WIDTH, WIDTH), "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (WIDTH, FFN), "ffn_up": (WIDTH, FFN), "ffn_down": (FFN, WIDTH),
}  # fmt: skip


def write(path: Path, kind: str, *, dequantised: bool = False) -> Path:
    """A Llama of two layers with random weights of a kind, or with the same weights in F32."""
    matrices = {"token_embd": (WIDTH, VOCABULARY)}
    matrices |= {f"blk.{layer}.{name}": shape for layer in range(LAYERS) for name, shape in SHAPES.items()}
    norms = ["output_norm", *(f"blk.{layer}.{name}" for layer in range(LAYERS) for name in ("attn_norm", "ffn_norm"))]
    sizes = {
        "context_length": 256, "embedding_length": WIDTH, "block_count": LAYERS, "feed_forward_length": FFN,
        "attention.head_count": HEADS, "vocab_size": VOCABULARY,
    }  # fmt: skip
    with GGUFWriter(path) as out:
        out.add("general.architecture", "llama")
        out.add("tokenizer.ggml.model", "no_vocab")
        for name, size in sizes.items():
            out.add(f"llama.{name}", size)
        out.add("llama.attention.layer_norm_rms_epsilon", 1e-5)
        for name in norms:
            out.declare(f"{name}.weight", (WIDTH,), named_type("F32"))
        for name, shape in matrices.items():
            out.declare(f"{name}.weight", shape, named_type("F32") if dequantised else KINDS[kind])
        for name in norms:
            out.write(f"{name}.weight", np.ones(WIDTH, np.float32))
        for seed, (name, (columns, rows)) in enumerate(matrices.items()):
            weights = GroupWeights(TYPES[kind], rows, columns, seed=seed)
            weights.d *= np.float16(0.1)
            out.write(f"{name}.weight", weights.floats() if dequantised else weights.data())
    return path


@pytest.mark.parametrize("extra_bufts", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_match_the_same_weights_in_floats(
    llama: LlamaEngine, tmp_path: Path, kind: str, extra_bufts: bool
) -> None:
    """Embedding, every matrix and the head, on our kernels and on upstream's; only activations are rounded."""
    expected = logits(llama, write(tmp_path / "floats.gguf", kind, dequantised=True), TOKENS)
    actual = logits(llama, write(tmp_path / "model.gguf", kind), TOKENS, extra_bufts=extra_bufts)
    error = np.sqrt(((actual - expected) ** 2).mean(axis=1) / (expected**2).mean(axis=1))
    assert error[0] < 0.04 and error.max() < 0.08


def test_a_copy_opens_as_the_same_kind(llama: LlamaEngine, tmp_path: Path) -> None:
    """What the engine writes has the id of files again."""
    path = write(tmp_path / "model.gguf", "Q2_0_G128")
    parameters = llama._c.llama_model_quantize_default_params()
    parameters.only_copy = True
    copy = tmp_path / "copy.gguf"
    assert llama._c.llama_model_quantize(str(path).encode(), str(copy).encode(), parameters) == 0
    np.testing.assert_array_equal(logits(llama, copy, TOKENS), logits(llama, path, TOKENS))
    assert copy.read_bytes().count(entry("blk.0.attn_q", 42)) == 1


def refusal(llama: LlamaEngine, path: Path) -> str:
    with pytest.raises(UnsupportedModel):
        llama.load(path)
    return "\n".join(llama.messages)


def edited(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))
    return path


def entry(name: str, type_id: int) -> bytes:
    """The name, the shape and the type of a tensor in the header."""
    columns, rows = SHAPES[name.split(".")[2]]
    text = f"{name}.weight".encode()
    return struct.pack("<Q", len(text)) + text + struct.pack("<IQQi", 2, columns, rows, type_id)


def test_offsets_that_fit_neither_kind_are_refused(llama: LlamaEngine, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "Q2_0_G128")
    edited(path, entry("blk.0.attn_q", 42), entry("blk.0.attn_q", 41))
    assert "has offset" in refusal(llama, path)


def test_the_engines_own_id_is_refused_in_files(llama: LlamaEngine, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "Q2_0_G128")
    edited(path, entry("blk.0.attn_q", 42), entry("blk.0.attn_q", 37))
    assert "invalid ggml type 37" in refusal(llama, path)


def test_rows_that_are_no_multiple_of_128_are_refused(llama: LlamaEngine, tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "Q2_0_G128")
    last = f"blk.{LAYERS - 1}.ffn_down"
    narrow = entry(last, 42).replace(struct.pack("<QQ", FFN, WIDTH), struct.pack("<QQ", 192, 2 * WIDTH))
    edited(path, entry(last, 42), narrow)
    assert "has offset" in refusal(llama, path)


@pytest.mark.parametrize("kind", ["Q2_0", "Q2_0_G128"])
def test_a_file_that_ends_too_soon_is_refused(llama: LlamaEngine, tmp_path: Path, kind: str) -> None:
    """Without its last bytes a file does not become one of the other kind."""
    path = write(tmp_path / "model.gguf", kind)
    path.write_bytes(path.read_bytes()[:-1000])
    assert "data is not within the file bounds" in refusal(llama, path)
