"""Tiny GGUF models with random weights and upstream's real vocabularies, for tests that run the engine."""

from pathlib import Path

import numpy as np

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import named_type

WIDTH, FFN, HEADS, LAYERS = 64, 96, 4, 2
CONTEXT = 512
NORMS = {"attn_norm": WIDTH, "attn_sub_norm": WIDTH, "ffn_norm": WIDTH, "ffn_sub_norm": FFN}
MATRICES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (WIDTH, WIDTH),
    "attn_v": (WIDTH, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (WIDTH, FFN),
    "ffn_up": (WIDTH, FFN),
    "ffn_down": (FFN, WIDTH),
}


def write_bitnet(
    path: Path,
    vocabularies: Path,
    *,
    vocabulary: str = "phi-3",
    hidden_act: str | None = None,
    architecture: str = "bitnet",
) -> Path:
    """A `bitnet` model of two layers in F32; the seed is fixed, so files differ only in the given arguments."""
    random = np.random.default_rng(7)
    with GGUFFile.open(vocabularies / f"ggml-vocab-{vocabulary}.gguf") as source, GGUFWriter(path) as out:
        out.copy_metadata(source.metadata)
        n_vocab = len(source.get_array("tokenizer.ggml.tokens"))
        out.add("general.architecture", architecture)
        sizes = {
            "context_length": CONTEXT,
            "embedding_length": WIDTH,
            "block_count": LAYERS,
            "feed_forward_length": FFN,
        }
        sizes |= {"attention.head_count": HEADS, "attention.head_count_kv": HEADS, "vocab_size": n_vocab}
        for name, value in sizes.items():
            out.add(f"{architecture}.{name}", value)
        out.add(f"{architecture}.attention.layer_norm_rms_epsilon", 1e-5)
        out.add(f"{architecture}.rope.freq_base", 10000.0)
        if hidden_act is not None:
            out.add(f"{architecture}.hidden_activation", hidden_act)
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (WIDTH, n_vocab), "output_norm.weight": (WIDTH,)}
        for layer in range(LAYERS):
            shapes |= {f"blk.{layer}.{name}.weight": (size,) for name, size in NORMS.items()}
            shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in MATRICES.items()}
        for name, shape in shapes.items():
            out.declare(name, shape, named_type("F32"))
        for name, shape in shapes.items():
            scale = 0.5 if len(shape) == 2 else 1.0
            out.write(name, (scale * random.standard_normal(shape[::-1])).astype(np.float32))
    return path
