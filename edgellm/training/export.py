"""Writes what was trained as a GGUF file: the same codes, the scales and other weights rounded once to their types.

    notes = settle(model, base, trained)       # the model now computes with what the file will hold
    write_model(base, model, trained, Path("dates.gguf"))
    write_adapter(base, model, alpha, Path("dates-lora.gguf"))

Metadata, tokenizer and chat template are those of the base. Tensors that were not trained are copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import QuantType, named_type
from edgellm.formats.ternary import Bytes, i2_s_tail
from edgellm.progress import Progress, Report, silent
from edgellm.training.base_model import BaseModel
from edgellm.training.decoder import Decoder
from edgellm.training.linear import CodeLinear, LatentLinear, TrainedLinear
from edgellm.training.method import lora_layers
from edgellm.weights.slabs import HALF_SCALE_TYPES, Floats, Slab, Ternary

_TORCH_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def written_types(base: BaseModel, trained: Mapping[str, object]) -> dict[str, QuantType]:
    """The type of each tensor in the file: the base's; F16 where a trained table had a type that rounds."""
    return {
        name: each.type if each.exact or not _is_trained(name, trained) else named_type("F16")
        for name, each in base.weights.items()
    }


def file_bytes(base: BaseModel) -> int:
    """About how large the file of a whole model will be, without its metadata."""
    return sum(each.values.size // each.type.block_size * each.type.block_bytes for each in base.weights.values())


def settle(model: Decoder, base: BaseModel, trained: Mapping[str, torch.nn.Parameter]) -> tuple[str, ...]:
    """Round the trained parameters to what the file's types hold; returns notes on what was rounded."""
    types = written_types(base, trained)
    changed: dict[str, int] = {}
    with torch.no_grad():
        for name, parameter in trained.items():
            module = model.get_submodule(name.rpartition(".")[0])
            target = types.get(name if name in types else f"{name.rpartition('.')[0]}.weight")
            precision = _precision(module, name, target)
            if precision is not None:
                rounded = parameter.to(precision).to(parameter.dtype)
                changed[str(target)] = changed.get(str(target), 0) + int((rounded != parameter).sum())
                parameter.copy_(rounded)
    notes = [f"{n:,} trained numbers are rounded to {kind}'s precision, once" for kind, n in changed.items() if n]
    notes += [
        f"{name} was {base.weights[name].type} and is {types[name]} now, because it was trained"
        for name in types
        if types[name] is not base.weights[name].type
    ]
    return tuple(notes)


def write_model(
    base: BaseModel, model: Decoder, trained: Mapping[str, object], output: Path, *, report: Report = silent
) -> None:
    """Write the file; it appears when it is complete, or not at all.

    Raises:
        DiskFull: there is no room for it.
        UnsupportedModel: a weight or scale does not fit into its type.
    """
    types = written_types(base, trained)
    with GGUFFile.open(base.header) as header, GGUFWriter(output) as writer:
        writer.copy_metadata(header.metadata)
        for name, each in base.weights.items():
            writer.declare(name, each.values.shape[::-1], types[name])
        for done, name in enumerate(base.weights):
            report(Progress("writing the model", done, len(types)))
            if base.file is not None and not _is_trained(name, trained):
                writer.write(name, header.tensor_bytes(name))
            else:
                writer.write(name, _encoded(_slab(model, base, name), types[name]))


def write_adapter(base: BaseModel, model: Decoder, alpha: float, output: Path) -> None:
    """Write the low-rank layers as a GGUF adapter, float32, as llama.cpp reads them."""
    layers = lora_layers(model)
    with GGUFFile.open(base.header) as header, GGUFWriter(output) as writer:
        writer.add("general.architecture", header.architecture)
        writer.add("general.type", "adapter")
        writer.add("general.name", f"adapter of {base.name}")
        writer.add("adapter.type", "lora")
        writer.add("adapter.lora.alpha", float(alpha))
        arrays = {}
        for name, layer in layers.items():
            arrays[f"{name}.lora_a"], arrays[f"{name}.lora_b"] = (
                np.ascontiguousarray(each.detach().cpu().numpy()) for each in (layer.down, layer.up)
            )
        for name, values in arrays.items():
            writer.declare(name, values.shape[::-1], named_type("F32"))
        for name, values in arrays.items():
            writer.write(name, values)


def _is_trained(name: str, trained: Mapping[str, object]) -> bool:
    """Whether a tensor of the file depends on a trained parameter: itself, or the scales of its layer."""
    return name in trained or f"{name.removesuffix('.weight')}.scales" in trained


def _precision(module: torch.nn.Module, name: str, target: QuantType | None) -> torch.dtype | None:
    """How precisely the file keeps a parameter; None if as float32, or if only its codes count."""
    if target is None:
        return None
    if isinstance(module, LatentLinear | CodeLinear) and not name.endswith(".bias"):
        if not name.endswith(".scales"):
            return None
        return torch.float16 if target.name in HALF_SCALE_TYPES else _TORCH_TYPES.get(target.name)
    return _TORCH_TYPES.get(target.name)


def _slab(model: Decoder, base: BaseModel, name: str) -> Slab:
    owner, _, kind = name.rpartition(".")
    module = None if name not in model.state_dict() and "rope" in name else model.get_submodule(owner)
    if isinstance(module, TrainedLinear) and kind == "weight":
        return module.slab()
    values = torch.from_numpy(base.weights[name].values) if module is None else model.get_parameter(name)
    array = values.detach().cpu().float().numpy()
    return Floats(np.ascontiguousarray(array.reshape(-1, array.shape[-1])))


def _encoded(slab: Slab, target: QuantType) -> Iterator[Bytes]:
    yield slab.encode(target)
    if target.name == "I2_S" and isinstance(slab, Ternary):
        yield np.frombuffer(i2_s_tail(float(slab.scales[0])), np.uint8)
