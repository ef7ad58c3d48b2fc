"""Decides whether a checkpoint can be converted, by its architecture and by how it stores its weights.

source, plan = read_checkpoint(Path("bitnet-b1.58-2B-4T"))
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgellm.errors import CorruptFile, ModelNotFound, UnsupportedModel
from edgellm.weights.convert.checkpoints import bert, bitnet, gptq, llama, minicpm, phi3, qwen
from edgellm.weights.convert.checkpoints.dense import Dense
from edgellm.weights.convert.checkpoints.fields import check_fields
from edgellm.weights.convert.checkpoints.plan import ConversionPlan, Storage
from edgellm.weights.convert.checkpoints.source import Source, model_name
from edgellm.weights.convert.checkpoints.ternary import Masters, Packed, ScaledRows, check_bitnet
from edgellm.weights.convert.json_file import JsonFile

_READERS: dict[str, Callable[[Source, Storage], ConversionPlan]] = {
    "LlamaForCausalLM": llama.read,
    "QLlamaForCausalLM": llama.read,
    "BitNetForCausalLM": bitnet.read,
    "BitnetForCausalLM": bitnet.read,
    "Phi3ForCausalLM": phi3.read,
    "QWenLMHeadModel": qwen.read_qwen,
    "Qwen2ForCausalLM": qwen.read_qwen2,
    "Qwen3ForCausalLM": qwen.read_qwen3,
    "MiniCPMForCausalLM": minicpm.read,
    "BertModel": bert.read,
    "BertForMaskedLM": bert.read,
}
ARCHITECTURES = tuple(_READERS)
_TERNARY = ("BitNetForCausalLM", "BitnetForCausalLM")
_SCALED_ROWS = "QLlamaForCausalLM"


class UnknownArchitecture(UnsupportedModel):
    """No converter here reads this architecture, but llama.cpp's own converter may."""

    code = "unknown-architecture"


def read_checkpoint(directory: Path) -> tuple[Source, ConversionPlan]:
    """Plan the conversion of a checkpoint directory.

    Unsupported checkpoints are rejected from config.json alone, before any weight file is opened. Raises
    ModelNotFound, CorruptFile, UnsupportedModel, and UnknownArchitecture when llama.cpp's converter may know it.
    """
    if not (directory / "config.json").is_file():
        what = f"there is no checkpoint in {directory}"
        raise ModelNotFound(what, why="a checkpoint is a directory with a config.json", path=str(directory))
    config = JsonFile.read(directory / "config.json")
    architecture = _architecture(config, directory)
    settings = config.child("quantization_config")
    if not settings.values:
        settings = JsonFile.read_if_there(directory / "quantize_config.json")  # AutoGPTQ's own file
    method = settings.text("quant_method", "gptq" if settings.values else "none")
    _check_method(model_name(directory), method, settings)
    source = Source.open(directory, config)
    storage = _storage(source, architecture, method, settings)
    check_fields(settings, model=source.name)
    return source, _READERS[architecture](source, storage)


def _architecture(config: JsonFile, directory: Path) -> str:
    names = config.items("architectures")
    if len(names) != 1 or not isinstance(names[0], str):
        raise CorruptFile("config.json is not valid", why=f"architectures is {names!r:.60}, expected one name")
    if names[0] not in _READERS:
        raise UnknownArchitecture(
            f"{model_name(directory)} has the unsupported architecture {names[0]}",
            why=f"edgellm converts {', '.join(ARCHITECTURES)}",
            hint="--upstream: the engine's convert_hf_to_gguf.py, which needs torch and transformers",
            architecture=names[0],
        )
    return names[0]


def _check_method(name: str, method: str, settings: JsonFile) -> None:
    hint = "convert the original model, then run `edgellm quantize`"
    if method == "gptq":
        gptq.check_method(name, settings)
    elif method == "bitnet":
        check_bitnet(name, settings)
    elif method in ("awq", "bitsandbytes"):
        why = f"its weights are in {method}'s own 4-bit layout and would have to be quantized a second time"
        raise UnsupportedModel(f"{name} cannot be converted", why=why, hint=hint, quant_method=method)
    elif method != "none":
        why = f"its weights are quantized by {method!r}; only bitnet and gptq are supported"
        raise UnsupportedModel(f"{name} cannot be converted", why=why, hint=hint, quant_method=method)


def _storage(source: Source, architecture: str, method: str, settings: JsonFile) -> Storage:
    if method == "gptq":
        return gptq.Gptq(source, settings)
    if architecture == _SCALED_ROWS:
        return ScaledRows(source)
    if method == "bitnet" and settings.text("quantization_mode", "offline") == "offline":
        return Packed(source, inverted=settings.text("linear_class", "bitlinear") == "bitlinear")
    if method == "bitnet" or architecture in _TERNARY:
        return Masters(source)
    return Dense(source)
