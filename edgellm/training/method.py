"""The four methods, and which parameters each of them trains.

require_method(base, Method.TERNARY)
trained = prepare(model, Method.LORA, rank=16, alpha=32.0, seed=0)      # the parameters by name; all others are frozen
"""

from __future__ import annotations

import torch
from torch import nn

from edgellm.errors import UsageError
from edgellm.training.base_model import MATRIX, BaseModel, WeightForm
from edgellm.training.decoder import LINEAR, Decoder, RmsNorm
from edgellm.training.linear import CodeLinear, LatentLinear, LoraLinear, TrainedLinear
from edgellm.training.options import Method


def default_method(base: BaseModel) -> Method:
    """TERNARY for ternary models, FULL for small float ones, LORA for all others."""
    if base.is_ternary:
        return Method.TERNARY
    return Method.FULL if _is_exact(base) else Method.LORA


def require_method(base: BaseModel, method: Method) -> None:
    """Raise `UsageError` unless a model can be trained so, and what is trained can be written exactly."""
    if method in (Method.TERNARY, Method.SCALES) and not base.is_ternary:
        why = "its linear layers are not ternary, and rounding them now would destroy it"
        raise UsageError(f"{base.name} cannot be trained by --method {method.value}", why=why, hint="--method lora")
    if method is Method.FULL and base.is_ternary:
        why = "its linear layers are ternary, and would no longer be afterwards"
        raise UsageError(f"{base.name} cannot be trained by --method full", why=why, hint="--method ternary")
    if method is not Method.LORA and not _is_exact(base):
        name = next(name for name, each in base.weights.items() if MATRIX.fullmatch(name) and not each.exact)
        why = f"{name} is {base.weights[name].type}, which would have to be quantized again"
        raise UsageError(
            f"{base.name} cannot be trained by --method {method.value}", why=why,
            hint="--method lora, or a file in F16, BF16, F32 or a ternary type",
        )  # fmt: skip


def prepare(model: Decoder, method: Method, *, rank: int, alpha: float, seed: int) -> dict[str, nn.Parameter]:
    """Freeze what the method does not train, and add low-rank layers if it is LORA.

    Returns the trained parameters by name, in a fixed order.
    """
    for parameter in model.parameters():
        parameter.requires_grad_(method in (Method.TERNARY, Method.FULL))
    if method is Method.LORA:
        generator = torch.Generator().manual_seed(seed)
        for block in model.blk:
            for name in LINEAR:
                if isinstance(layer := block.get_submodule(name), TrainedLinear):
                    block.add_module(name, LoraLinear(layer, rank, alpha, generator))
    if method is Method.SCALES:
        for module in model.modules():
            if isinstance(module, RmsNorm):
                module.weight.requires_grad_(True)
            elif isinstance(module, CodeLinear):
                module.scales.requires_grad_(True)
        model.head.weight.requires_grad_(True)
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def optimizer_groups(model: Decoder, trained: dict[str, nn.Parameter], rate: float) -> list[dict[str, object]]:
    """The parameters as AdamW's groups, each with its learning rate.

    Adam moves every weight by about its rate. Latent weights of SCALED layers are multiples of their scale, so theirs
    is divided by the mean scale: the step is the same in the weights that the model computes with.
    """
    factors = {
        f"{name}.weight": 1 / max(float(module.scales.detach().abs().mean()), 1e-8)
        for name, module in model.named_modules()
        if isinstance(module, LatentLinear) and module.form is WeightForm.SCALED and module.scales is not None
    }
    return [
        {"params": [each], "lr": rate * factors.get(name, 1.0), "base": rate * factors.get(name, 1.0)}
        for name, each in trained.items()
    ]


def lora_layers(model: Decoder) -> dict[str, LoraLinear]:
    """The low-rank layers by the names of the tensors that they stand beside."""
    found: dict[str, LoraLinear] = {}
    for i, block in enumerate(model.blk):
        for name in LINEAR:
            if isinstance(layer := block.get_submodule(name), LoraLinear):
                found[f"blk.{i}.{name}.weight"] = layer
    return found


def _is_exact(base: BaseModel) -> bool:
    return all(each.exact for name, each in base.weights.items() if MATRIX.fullmatch(name))
