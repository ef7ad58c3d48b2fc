"""A Llama in torch, written to be read: the blocks of Llama, BitNet and Qwen, with packed sequences.

    model = Decoder(shape, base.weights, latent=True)
    hidden = model(tokens, positions, mask)      # [rows, tokens, n_embd]
    model.logits(hidden)                         # [rows, tokens, n_vocab]

Submodules and parameters have the names of GGUF's tensors: `blk.0.attn_q`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from edgellm.errors import CorruptFile
from edgellm.training.base_model import Weights
from edgellm.training.decoder_shape import DecoderShape
from edgellm.training.linear import make_linear

LINEAR = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
NORMS = ("attn_norm", "ffn_norm", "attn_sub_norm", "ffn_sub_norm", "attn_q_norm", "attn_k_norm")
ROPE_DIVISORS = "rope_freqs.weight"


class RmsNorm(nn.Module):
    """x / sqrt(mean x^2 + eps) * weight, over the last axis."""

    def __init__(self, weight: Tensor, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        return functional.rms_norm(x.float(), self.weight.shape, self.weight, self.eps)


class Table(nn.Module):
    """A row for each token of the vocabulary: the embedding, or the output head."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


class DecoderBlock(nn.Module):
    """Attention and a gated feed-forward network, with whatever norms and biases the weights have."""

    def __init__(self, shape: DecoderShape, weights: Mapping[str, Weights], prefix: str, *, latent: bool) -> None:
        super().__init__()
        self.shape = shape
        for name in LINEAR:
            bias = weights.get(f"{prefix}.{name}.bias")
            tensor = None if bias is None else torch.from_numpy(bias.values.reshape(-1))
            self.add_module(name, make_linear(_required(weights, f"{prefix}.{name}.weight"), tensor, latent=latent))
        for name in NORMS:
            if (norm := weights.get(f"{prefix}.{name}.weight")) is not None:
                self.add_module(name, RmsNorm(torch.from_numpy(norm.values.reshape(-1)), shape.eps))

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Compute a block: x [rows, tokens, n_embd], `mask` [rows, 1, tokens, tokens] true where a token sees one."""
        x = x + self._attention(self._norm("attn_norm", x), turn, mask)
        h = self._norm("ffn_norm", x)
        gate = self._linear("ffn_gate", h)
        gate = functional.relu(gate).square() if self.shape.activation == "relu2" else functional.silu(gate)
        return x + self._linear("ffn_down", self._norm("ffn_sub_norm", gate * self._linear("ffn_up", h)))

    def _attention(self, h: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        shape = self.shape
        q, k, v = (self._linear(f"attn_{part}", h) for part in "qkv")
        q, k, v = (y.reshape(*h.shape[:2], -1, shape.head_dim) for y in (q, k, v))
        q, k = self._norm("attn_q_norm", q), self._norm("attn_k_norm", k)
        q, k = rotate(q, turn, halves=shape.halves), rotate(k, turn, halves=shape.halves)
        times = shape.n_head // shape.n_head_kv
        q, k, v = (y.transpose(1, 2) for y in (q, k, v))
        k, v = (y.repeat_interleave(times, dim=1) for y in (k, v))
        mixed = functional.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), mask)
        return self._linear("attn_output", self._norm("attn_sub_norm", mixed.transpose(1, 2).flatten(2)))

    def _norm(self, name: str, x: Tensor) -> Tensor:
        """Normalise, if the model has this norm."""
        module = self._modules.get(name)
        return x if module is None else module(x)

    def _linear(self, name: str, x: Tensor) -> Tensor:
        result: Tensor = self.get_submodule(name)(x)
        return result


class Decoder(nn.Module):
    """The whole model. With `latent`, the codes of ternary layers can be trained."""

    def __init__(self, shape: DecoderShape, weights: Mapping[str, Weights], *, latent: bool) -> None:
        super().__init__()
        self.shape = shape
        self.token_embd = Table(torch.from_numpy(_required(weights, "token_embd.weight").values))
        self.blk = nn.ModuleList(DecoderBlock(shape, weights, f"blk.{i}", latent=latent) for i in range(shape.n_layer))
        self.output_norm = RmsNorm(torch.from_numpy(_required(weights, "output_norm.weight").values), shape.eps)
        self.output = Table(torch.from_numpy(weights["output.weight"].values)) if "output.weight" in weights else None
        divisors = weights.get(ROPE_DIVISORS)
        self.divisors = None if divisors is None else torch.from_numpy(divisors.values.reshape(-1))
        self.checkpointing = False
        _check_complete(shape, weights)

    @property
    def head(self) -> Table:
        """The output head, which is the embedding in many models."""
        return self.token_embd if self.output is None else self.output

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """The hidden states after the last norm: tokens and positions [rows, tokens], mask [rows, tokens, tokens]."""
        x = functional.embedding(tokens, self.token_embd.weight)
        turn = self._turn(positions)
        for block in self.blk:
            if self.checkpointing and self.training:
                x = checkpoint(block, x, turn, mask[:, None], use_reentrant=False)
            else:
                x = block(x, turn, mask[:, None])
        hidden: Tensor = self.output_norm(x)
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """The logits [..., n_vocab] of hidden states [..., n_embd]."""
        return functional.linear(hidden, self.head.weight).float()

    def _turn(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each position's angles, [rows, tokens, 1, head_dim / 2]."""
        shape = self.shape
        exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float64, device=positions.device) / shape.head_dim
        frequencies = shape.rope_base**-exponents / shape.rope_scale
        if self.divisors is not None:
            frequencies = frequencies / self.divisors.to(frequencies)
        angles = positions[..., None, None].to(torch.float64) * frequencies
        return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor], *, halves: bool) -> Tensor:
    """Rotate heads [rows, tokens, heads, head_dim]: channel i with i + head_dim / 2 (`halves`), or 2i with 2i + 1."""
    cos, sin = turn
    a, b = x.chunk(2, dim=-1) if halves else (x[..., 0::2], x[..., 1::2])
    turned = (a * cos - b * sin, b * cos + a * sin)
    return torch.cat(turned, dim=-1) if halves else torch.stack(turned, dim=-1).flatten(-2)


def _required(weights: Mapping[str, Weights], name: str) -> Weights:
    if name not in weights:
        raise CorruptFile("the model is incomplete", why=f"it has no tensor {name}", tensor=name)
    return weights[name]


def _check_complete(shape: DecoderShape, weights: Mapping[str, Weights]) -> None:
    """Raise CorruptFile for tensors of the wrong size, and for those that the graph here does not use."""
    q, kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    n_embd, n_ff = shape.n_embd, shape.n_ff
    sizes = {
        "attn_q": (q, n_embd), "attn_k": (kv, n_embd), "attn_v": (kv, n_embd), "attn_output": (n_embd, q),
        "ffn_gate": (n_ff, n_embd), "ffn_up": (n_ff, n_embd), "ffn_down": (n_embd, n_ff),
    }  # fmt: skip
    used = {"token_embd.weight", "output_norm.weight", "output.weight", ROPE_DIVISORS}
    for i in range(shape.n_layer):
        used |= {f"blk.{i}.{name}.weight" for name in (*LINEAR, *NORMS)} | {f"blk.{i}.{name}.bias" for name in LINEAR}
        for name, size in sizes.items():
            found = _required(weights, f"blk.{i}.{name}.weight").values.shape
            if found != size:
                raise CorruptFile("the model is corrupt", why=f"blk.{i}.{name}.weight is {list(found)}, not {size}")
    if left := sorted(weights.keys() - used):
        raise CorruptFile("the model cannot be trained", why=f"it has a tensor {left[0]}, which is not known here")
