"""Maple in plain numpy: a mixture of ternary experts, as the engine's source describes it (src/models/maple.cpp).

    logits = forward(shape, read_weights(path), tokens)     # float32 [tokens, vocabulary]

Each token goes through the experts with the largest probabilities, and their results are weighted by these. Layers with
a sliding window rotate queries and keys; the others have no positions. Products of ternary weights quantize activations
to int8 in segments of 256, as patches/native/ternary does for rows with scales of their own.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.ternary import unpack_tq2_0
from edgellm.models.fit.shape import Shape
from tests.weights.numpy_models import Floats, attention, rms_norm, rotate

SEGMENT = 256
LIMIT = 7.0


def read_weights(path: Path) -> dict[str, Floats]:
    """Return all tensors of a file in TQ2_0 and F32: float32 [..., rows, columns], ternary ones code times scale."""
    weights = {}
    with GGUFFile.open(path) as gguf:
        for name, info in gguf.tensors.items():
            data = gguf.tensor_bytes(info)
            if info.type.name == "F32":
                weights[name] = data.view(np.float32).reshape(info.shape[::-1]).copy()
                continue
            codes, d = unpack_tq2_0(data.reshape(int(np.prod(info.shape[1:])), -1), name=name)
            weights[name] = (codes * d[:, :1].astype(np.float32)).reshape(info.shape[::-1])
            del data
    return weights


def ternary_product(w: Floats, x: Floats) -> Floats:
    """Multiply x [tokens, columns] by ternary w [rows, columns]; a matrix with one scale takes one for each token."""
    scale = np.abs(w).max(axis=1)
    n = SEGMENT if len(np.unique(scale)) > 1 else x.shape[1]
    total = np.zeros((len(x), len(w)), np.float32)
    for start in range(0, x.shape[1], n):
        part, codes = x[:, start : start + n], np.rint(w[:, start : start + n] / scale[:, None])
        s = np.float32(127) / np.maximum(np.abs(part).max(axis=-1, keepdims=True), np.float32(1e-5))
        q = np.clip(np.rint(part * s), -128, 127).astype(np.float64)
        total += (q @ codes.T.astype(np.float64) / s).astype(np.float32)
    return total * scale


def forward(shape: Shape, w: Mapping[str, Floats], tokens: npt.NDArray[np.int64]) -> Floats:
    """Logits [tokens, vocabulary] of a sequence that starts at position 0."""
    x = w["token_embd.weight"][tokens]
    half = np.arange(0, shape.head_dim, 2) / shape.head_dim
    angles = np.arange(len(tokens))[:, None] * shape.rope_base**-half
    turn = tuple(f(angles).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    for layer in range(shape.n_layer):
        mine = {name.split(".")[2]: value for name, value in w.items() if name.startswith(f"blk.{layer}.")}
        windowed = layer % 4 != 3
        h = rms_norm(x, mine["attn_norm"], shape.rms_eps)
        q, k, v = (ternary_product(mine[f"attn_{part}"], h) for part in "qkv")
        q, k = (_norm_heads(y, mine[f"attn_{part}_norm"], shape.rms_eps) for part, y in (("q", q), ("k", k)))
        if windowed:
            q, k = rotate(q, shape.n_head, turn), rotate(k, shape.n_head_kv, turn)
        mixed = attention(q, k, v, shape.n_head, causal=True, window=shape.window if windowed else None)
        x = x + ternary_product(mine["attn_output"], mixed)
        x = x + _experts(mine, rms_norm(x, mine["ffn_norm"], shape.rms_eps), shape.n_expert_used)
    return rms_norm(x, w["output_norm.weight"], shape.rms_eps) @ w["output.weight"].T


def _norm_heads(x: Floats, weight: Floats, eps: float) -> Floats:
    return rms_norm(x.reshape(len(x), -1, len(weight)), weight, eps).reshape(x.shape)


def _experts(mine: Mapping[str, Floats], h: Floats, n_used: int) -> Floats:
    logits = h @ mine["ffn_gate_inp"].T
    probabilities = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    total = np.zeros_like(h)
    for i, row in enumerate(probabilities):
        chosen = np.argsort(-row, kind="stable")[:n_used]
        for expert in chosen:
            gate, up = (ternary_product(mine[f"ffn_{name}_exps"][expert], h[i : i + 1]) for name in ("gate", "up"))
            gate, up = np.minimum(gate, LIMIT), np.clip(up, -LIMIT, LIMIT)
            result = ternary_product(mine["ffn_down_exps"][expert], gate / (1 + np.exp(-gate)) * up)
            total[i] += result[0] * (row[expert] / row[chosen].sum())
    return total
