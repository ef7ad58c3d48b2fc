"""Transformers in plain numpy, written from their descriptions: the reference for converted files.

Weights are float32 under short names: "embed", "head", "norm", and for layer i "i.q", "i.attn_norm" and so on.
Rows of q and k are in transformers' order (a head's row j turns with row j + half).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Weights = Mapping[str, Floats]


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder."""

    hidden: int = 256
    ffn: int = 512
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    vocab: int = 480
    theta: float = 10000.0
    eps: float = 1e-5
    head_size: int | None = None

    @property
    def head(self) -> int:
        return self.head_size or self.hidden // self.heads

    @property
    def q(self) -> int:
        return self.head * self.heads

    @property
    def kv(self) -> int:
        return self.head * self.kv_heads


def plain_product(w: Floats, x: Floats) -> Floats:
    return x @ w.T


def int8_product(w: Floats, x: Floats) -> Floats:
    """Multiply as W1.58A8 does: activations become int8 per token, and the integer sums are exact."""
    s = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5))
    scale = np.abs(w).max()
    sums = np.clip(np.rint(x * s), -128, 127).astype(np.float64) @ np.rint(w / scale).T.astype(np.float64)
    return (sums.astype(np.float32) * scale / s).astype(np.float32)


def silu(x: Floats) -> Floats:
    return x / (1 + np.exp(-x))


def relu2(x: Floats) -> Floats:
    return np.maximum(x, 0) ** 2


def rms_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    mean = (x * x).mean(axis=-1, keepdims=True, dtype=np.float64).astype(np.float32)
    return x / np.sqrt(mean + np.float32(eps)) * weight


def decode(
    shape: Shape,
    w: Weights,
    tokens: list[int],
    *,
    activation: Callable[[Floats], Floats] = silu,
    product: Callable[[Floats, Floats], Floats] = plain_product,
    frequency_divisors: Floats | None = None,
    attention_factor: float = 1.0,
    scales: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Floats:
    """Logits [tokens, vocabulary]; sub-norms, head norms and biases apply where there are weights for them.

    `scales` multiply the embedding and what each branch adds, and divide the logits.
    """
    embedding_scale, residual_scale, logit_scale = (np.float32(scale) for scale in scales)
    x = w["embed"][tokens] * embedding_scale
    divisors = np.ones(shape.head // 2, np.float32) if frequency_divisors is None else frequency_divisors
    angles = np.arange(len(tokens))[:, None] * shape.theta ** (-np.arange(0, shape.head, 2) / shape.head) / divisors
    turn = tuple((f(angles) * attention_factor).astype(np.float32)[:, None] for f in (np.cos, np.sin))
    for i in range(shape.layers):
        h = rms_norm(x, w[f"{i}.attn_norm"], shape.eps)
        q, k, v = (product(w[f"{i}.{part}"], h) + w.get(f"{i}.{part}_bias", 0) for part in "qkv")
        if f"{i}.q_norm" in w:
            q, k = (head_norm(y, w[f"{i}.{part}_norm"], shape.eps) for y, part in ((q, "q"), (k, "k")))
        h = attention(rotate(q, shape.heads, turn), rotate(k, shape.kv_heads, turn), v, shape.heads, causal=True)
        if f"{i}.attn_sub_norm" in w:
            h = rms_norm(h, w[f"{i}.attn_sub_norm"], shape.eps)
        x = x + product(w[f"{i}.o"], h) * residual_scale
        h = rms_norm(x, w[f"{i}.ffn_norm"], shape.eps)
        h = activation(product(w[f"{i}.gate"], h)) * product(w[f"{i}.up"], h)
        if f"{i}.ffn_sub_norm" in w:
            h = rms_norm(h, w[f"{i}.ffn_sub_norm"], shape.eps)
        x = x + product(w[f"{i}.down"], h) * residual_scale
    return rms_norm(x, w["norm"], shape.eps) @ w.get("head", w["embed"]).T / logit_scale


def head_norm(x: Floats, weight: Floats, eps: float) -> Floats:
    return rms_norm(x.reshape(len(x), -1, len(weight)), weight, eps).reshape(x.shape)


def rotate(x: Floats, heads: int, turn: tuple[Floats, ...]) -> Floats:
    cos, sin = turn
    a, b = np.split(x.reshape(len(x), heads, -1), 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)


def attention(q: Floats, k: Floats, v: Floats, heads: int, *, causal: bool, window: int | None = None) -> Floats:
    """Return the mixed values [tokens, heads * head]; with a `window`, a token sees itself and those just before."""
    n, head = len(q), q.shape[1] // heads
    q = q.reshape(n, heads, head)
    k, v = (y.reshape(n, -1, head).repeat(heads * head // y.shape[1], axis=1) for y in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.float32(np.sqrt(head))
    if causal:
        seen = np.tri(n, dtype=bool) & ~np.tri(n, k=-(window or n), dtype=bool)
        scores = np.where(seen, scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", scores / scores.sum(axis=-1, keepdims=True), v).reshape(n, -1)


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * weight + bias


def erf(x: Floats) -> Floats:
    """The error function to 1.5e-7 (Abramowitz and Stegun 7.1.26)."""
    t = 1 / (1 + 0.3275911 * np.abs(x))
    poly = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return np.sign(x) * (1 - poly * np.exp(-x * x))


def bert_vector(w: Weights, tokens: list[int], layers: int, heads: int, eps: float = 1e-12) -> Floats:
    """Return the normalised mean of BERT's token vectors; names are BERT's own, without "bert."."""

    def linear(name: str, x: Floats) -> Floats:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: Floats) -> Floats:
        return layer_norm(x, w[f"{name}.LayerNorm.weight"], w[f"{name}.LayerNorm.bias"], eps)

    words, positions = w["embeddings.word_embeddings.weight"], w["embeddings.position_embeddings.weight"]
    types = w["embeddings.token_type_embeddings.weight"]
    x = norm("embeddings", words[tokens] + positions[: len(tokens)] + types[0])
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        q, k, v = (linear(f"{layer}.attention.self.{part}", x) for part in ("query", "key", "value"))
        h = linear(f"{layer}.attention.output.dense", attention(q, k, v, heads, causal=False))
        x = norm(f"{layer}.attention.output", x + h)
        h = linear(f"{layer}.intermediate.dense", x)
        h = linear(f"{layer}.output.dense", h * (1 + erf(h / np.sqrt(2))) / 2)
        x = norm(f"{layer}.output", x + h)
    mean = x.mean(axis=0)
    return mean / np.sqrt((mean**2).sum())
