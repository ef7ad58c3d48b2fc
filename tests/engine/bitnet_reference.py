"""BitNet b1.58 in plain numpy, written from its description: the reference for the engine.

    logits = forward(TINY, weights(TINY), tokens)     # float32 [tokens, vocabulary]

Every ternary product quantizes its activations to int8 per token and sums integers, as in training.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from tests.engine.bitnet_file import Array, Shape, Ternary

Floats = npt.NDArray[np.float32]


def ternary_product(matrix: Ternary, x: Floats) -> Floats:
    """Multiply x [tokens, columns] by the matrix [rows, columns] to [tokens, rows], in float32 step by step."""
    s = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5))
    q = np.clip(np.rint(x * s), -128, 127).astype(np.float64)
    sums = q @ matrix.codes.T.astype(np.float64)  # integers far below 2^53: exact in any order
    return sums.astype(np.float32) * matrix.scale / s


def forward(shape: Shape, tensors: Mapping[str, Array | Ternary], tokens: npt.NDArray[np.int64]) -> Floats:
    """Logits [tokens, vocabulary] of a sequence that starts at position 0."""

    def array(name: str) -> Floats:
        return np.asarray(tensors[f"{name}.weight"], np.float32)

    def product(name: str, x: Floats) -> Floats:
        matrix = tensors[f"{name}.weight"]
        assert isinstance(matrix, Ternary)
        return ternary_product(matrix, x)

    def norm(x: Floats, name: str) -> Floats:
        # a difference in the last bit here flips a tie in int8 rounding, which changes logits by per cents
        mean = (x * x).mean(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
        return x * (1 / np.sqrt(mean + np.float32(shape.eps))) * array(name)

    embedding = array("token_embd")
    x = embedding[tokens]
    for layer in range(shape.n_layers):
        blk = f"blk.{layer}."
        h = norm(x, blk + "attn_norm")
        q, k, v = (product(f"{blk}attn_{name}", h) for name in "qkv")
        h = norm(_attention(shape, q, k, v), blk + "attn_sub_norm")
        x = x + product(blk + "attn_output", h)
        h = norm(x, blk + "ffn_norm")
        gate, up = product(blk + "ffn_gate", h), product(blk + "ffn_up", h)
        h = norm(np.maximum(gate, 0) ** 2 * up, blk + "ffn_sub_norm")
        x = x + product(blk + "ffn_down", h)
    return norm(x, "output_norm") @ embedding.T


def _attention(shape: Shape, q: Floats, k: Floats, v: Floats) -> Floats:
    n = len(q)
    q = _rotate(shape, q.reshape(n, shape.n_heads, shape.head_size))
    k = _rotate(shape, k.reshape(n, shape.n_kv_heads, shape.head_size))
    group = shape.n_heads // shape.n_kv_heads
    k = k.repeat(group, axis=1)
    v = v.reshape(n, shape.n_kv_heads, shape.head_size).repeat(group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.float32(np.sqrt(shape.head_size))
    scores = np.where(np.tri(n, dtype=bool), scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", scores / scores.sum(axis=-1, keepdims=True), v).reshape(n, shape.width)


def _rotate(shape: Shape, x: Floats) -> Floats:
    """Rotary positions, NEOX order: element i of a head turns with element i + head_size / 2."""
    half = shape.head_size // 2
    angles = np.arange(len(x))[:, None] * shape.rope_base ** (-np.arange(half) / half)
    cos, sin = (f(angles).astype(np.float32)[:, None, :] for f in (np.cos, np.sin))
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
