"""A reranker with random weights, and its scores computed with numpy from the same weights.

path, score = reranker(directory)
score([2, 5, 6, 3, 8, 3])    # [CLS] the cat [SEP] sat [SEP]
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import named_type
from edgellm.weights.convert.converter import convert
from tests.weights import checkpoint_maker as make

Floats = npt.NDArray[np.float32]
HIDDEN, HEADS, LAYERS = 64, 4, 2


def reranker(directory: Path) -> tuple[Path, Callable[[Sequence[int]], float]]:
    """A BERT with a classification head whose file says that it ranks; and what it gives for a row of token ids."""
    made = make.bert(directory, hidden=HIDDEN, heads=HEADS, layers=LAYERS, positions=64)
    plain = convert(directory, directory / "plain.gguf", outtype="F32").path
    rng = np.random.default_rng(7)
    head = {
        "cls.weight": (rng.standard_normal((HIDDEN, HIDDEN)) / 8).astype(np.float32),
        "cls.bias": rng.standard_normal(HIDDEN).astype(np.float32),
        "cls.output.weight": rng.standard_normal((1, HIDDEN)).astype(np.float32),
        "cls.output.bias": rng.standard_normal(1).astype(np.float32),
    }
    path = directory / "reranker.gguf"
    f32 = named_type("F32")
    with GGUFFile.open(plain) as source, GGUFWriter(path) as out:
        out.copy_metadata(source.metadata)
        out.add("bert.pooling_type", 4)
        out.add("tokenizer.ggml.add_sep_token", False)  # one [SEP] between the texts: the end of the query is one
        for name, info in source.tensors.items():
            out.declare(name, info.shape, info.type)
        for name, values in head.items():
            out.declare(name, values.shape[::-1], f32)
        for name in source.tensors:
            out.write(name, source.tensor_bytes(name))
        for name, values in head.items():
            out.write(name, values)
    return path, lambda ids: _score(made.weights, head, ids)


def _score(w: dict[str, Floats], head: dict[str, Floats], ids: Sequence[int]) -> float:
    n = len(ids)
    x = w["embeddings.word_embeddings.weight"][list(ids)] + w["embeddings.position_embeddings.weight"][:n]
    x = _norm(x + w["embeddings.token_type_embeddings.weight"][0], w, "embeddings")
    for i in range(LAYERS):
        name = f"encoder.layer.{i}"
        q, k, v = (
            _linear(x, w, f"{name}.attention.self.{part}").reshape(n, HEADS, -1).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        out = _linear(mixed.transpose(1, 0, 2).reshape(n, -1), w, f"{name}.attention.output.dense")
        x = _norm(x + out, w, f"{name}.attention.output")
        inner = _linear(x, w, f"{name}.intermediate.dense")
        inner = inner * (1 + np.vectorize(math.erf)(inner / math.sqrt(2))) / 2
        x = _norm(x + _linear(inner, w, f"{name}.output.dense"), w, f"{name}.output")
    first = np.tanh(head["cls.weight"] @ x[0] + head["cls.bias"])
    return float(head["cls.output.weight"][0] @ first + head["cls.output.bias"][0])


def _linear(x: Floats, w: dict[str, Floats], name: str) -> Floats:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(x: Floats, w: dict[str, Floats], name: str) -> Floats:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
    return x * w[f"{name}.LayerNorm.weight"] + w[f"{name}.LayerNorm.bias"]
