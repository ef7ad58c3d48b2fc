"""The linear layers of a model in training: plain, ternary with straight-through gradients, fixed codes, low rank.

layer = LatentLinear(latent, scales, WeightForm.SCALED)
y = layer(x)                  # [..., columns] -> [..., rows]
layer.slab()                  # the codes and scales it computed with, to be written as they are

Rounding has no gradient of use: going back, it counts as if it were not there (Bengio, Leonard and Courville 2013). The
scales and roundings are those that the models were made with: BitNet b1.58 (absmean of a tensor, 8-bit activations of a
token) and deepgrove's QLinear (scales of rows).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgellm.training.base_model import WeightForm, Weights
from edgellm.weights.slabs import Floats, Slab, Ternary


def straight_through(rounded: Tensor, x: Tensor) -> Tensor:
    """The value of `rounded` with the gradient of `x`."""
    return x + (rounded - x).detach()


def int8_activations(x: Tensor) -> Tensor:
    """Activations [..., channels] rounded to 8 bits with one scale a token, as float32; straight through."""
    scale = 127 / x.detach().abs().amax(-1, keepdim=True).clamp(min=1e-5)
    return straight_through((x * scale).round().clamp(-128, 127) / scale, x)


def grouped(codes: Tensor, scales: Tensor) -> Tensor:
    """Codes [rows, columns] times scales [rows or 1, groups]."""
    groups = codes.reshape(len(codes), scales.shape[1], -1)
    product: Tensor = (groups * scales[..., None]).flatten(1)
    return product


class TrainedLinear(nn.Module):
    """A linear layer [rows, columns] with an optional bias [rows]."""

    def __init__(self, bias: Tensor | None = None) -> None:
        super().__init__()
        self.bias = None if bias is None else nn.Parameter(bias)

    def matrix(self) -> Tensor:
        """What it multiplies by, float32 [rows, columns]."""
        raise NotImplementedError

    def slab(self) -> Slab:
        """What is to be written."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Multiply activations [..., columns]."""
        return functional.linear(x, self.matrix(), self.bias)


class PlainLinear(TrainedLinear):
    """Ordinary weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.weight = nn.Parameter(weight)

    def matrix(self) -> Tensor:
        """The weights."""
        return self.weight

    def slab(self) -> Slab:
        """The weights."""
        return Floats(_array(self.weight))


class LatentLinear(TrainedLinear):
    """Ternary weights that training can change: float32 latent weights behind the codes."""

    def __init__(self, weight: Tensor, scales: Tensor | None, form: WeightForm, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.weight = nn.Parameter(weight)
        self.form = form
        self.scales = nn.Parameter(scales) if form is WeightForm.SCALED and scales is not None else None

    @property
    def absmean(self) -> Tensor:
        """The mean magnitude of the latent weights, [1, 1], without a gradient."""
        mean = self.weight.detach().abs().mean(dtype=torch.float64).clamp(min=1e-5)
        return mean.to(torch.float32).reshape(1, 1)

    def matrix(self) -> Tensor:
        """Codes times scales, with gradients for the latent weights and, if SCALED, for the scales."""
        if self.scales is None:
            scale = self.absmean
            codes = (self.weight.detach() * (1 / scale)).round().clamp(-1, 1)
            return straight_through(codes * scale, self.weight)
        inside = self.weight.clamp(-1, 1)
        return grouped(straight_through(inside.round(), inside), self.scales)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply activations [..., columns]."""
        return super().forward(int8_activations(x) if self.form is WeightForm.ABSMEAN else x)

    def slab(self) -> Slab:
        """The codes and the scales of each row; with several groups in a row, their product."""
        scales = self.absmean if self.scales is None else self.scales
        inverse = 1 / scales if self.scales is None else torch.ones(1, 1)
        return _ternary_slab((self.weight.detach() * inverse.to(scales.device)).round().clamp(-1, 1), scales)


class CodeLinear(TrainedLinear):
    """Ternary weights whose codes stay: one byte a weight, and the scales can be trained."""

    codes: Tensor

    def __init__(self, codes: Tensor, scales: Tensor, form: WeightForm, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.register_buffer("codes", codes, persistent=False)
        self.scales = nn.Parameter(scales)
        self.form = form

    def matrix(self) -> Tensor:
        """Codes times scales."""
        return grouped(self.codes.to(torch.float32), self.scales)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply activations [..., columns]."""
        return super().forward(int8_activations(x) if self.form is WeightForm.ABSMEAN else x)

    def slab(self) -> Slab:
        """The codes and the scales."""
        return _ternary_slab(self.codes, self.scales)


class LoraLinear(nn.Module):
    """A frozen layer and a product of low rank beside it: base(x) + scale * up(down(x)) (Hu et al. 2021).

    `down` is [rank, columns], `up` [rows, rank] begins as zeros; the scale is alpha / rank.
    """

    def __init__(self, base: TrainedLinear, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = base.matrix().shape
        self.base = base
        bound = 1 / math.sqrt(columns)
        self.down = nn.Parameter(torch.empty(rank, columns).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        """Multiply activations [..., columns]."""
        low = functional.linear(functional.linear(x, self.down), self.up)
        result: Tensor = self.base(x) + self.scale * low
        return result


def make_linear(weights: Weights, bias: Tensor | None, *, latent: bool) -> TrainedLinear:
    """The layer for a matrix; `latent` says that the codes of ternary weights are to be trained."""
    if weights.form is WeightForm.PLAIN or weights.scales is None:
        return PlainLinear(torch.from_numpy(weights.values), bias)
    scales = torch.from_numpy(weights.scales)
    if latent:
        return LatentLinear(torch.from_numpy(weights.values), scales, weights.form, bias)
    return CodeLinear(torch.from_numpy(weights.codes), scales, weights.form, bias)


def _ternary_slab(codes: Tensor, scales: Tensor) -> Slab:
    plain = codes.detach().to(torch.int8).cpu().numpy()
    values = _array(scales)
    if values.shape[1] > 1:
        return Floats((plain.reshape(*values.shape, -1) * values[..., None]).reshape(plain.shape))
    return Ternary(plain, np.ascontiguousarray(np.broadcast_to(values[:, 0], len(plain))))


def _array(tensor: Tensor) -> np.ndarray:
    return np.ascontiguousarray(tensor.detach().to("cpu", torch.float32).numpy())
