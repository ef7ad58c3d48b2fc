"""Which checkpoints can be converted: architectures of config.json, and ways to keep the weights.

source, plan = read_checkpoint(Path("bitnet-b1.58-2B-4T"))
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgellm.errors import CorruptFile, ModelNotFound, UnsupportedModel
from edgellm.weights.checkpoints import bert, bitnet, gptq, llama, phi3, qwen
from edgellm.weights.checkpoints.dense import Dense
from edgellm.weights.checkpoints.plan import Plan, Storage
from edgellm.weights.checkpoints.source import Source, model_name
from edgellm.weights.checkpoints.ternary import Masters, Packed, ScaledRows
from edgellm.weights.json_file import JsonFile

_READERS: dict[str, Callable[[Source, Storage], Plan]] = {
    "LlamaForCausalLM": llama.read,
    "QLlamaForCausalLM": llama.read,
    "BitNetForCausalLM": bitnet.read,
    "BitnetForCausalLM": bitnet.read,
    "Phi3ForCausalLM": phi3.read,
    "QWenLMHeadModel": qwen.read_qwen,
    "Qwen2ForCausalLM": qwen.read_qwen2,
    "BertModel": bert.read,
    "BertForMaskedLM": bert.read,
}
ARCHITECTURES = tuple(_READERS)
_TERNARY = ("BitNetForCausalLM", "BitnetForCausalLM")
_SCALED_ROWS = "QLlamaForCausalLM"


class UnknownArchitecture(UnsupportedModel):
    """No format here reads this architecture; upstream's own converter may."""

    code = "unknown-architecture"


def read_checkpoint(directory: Path) -> tuple[Source, Plan]:
    """Plan the conversion of a checkpoint directory.

    What cannot be converted is refused from config.json alone, before any weight file is opened. Raises
    ModelNotFound, CorruptFile, UnsupportedModel, and UnknownArchitecture for what upstream's converter may know.
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
    return source, _READERS[architecture](source, _storage(source, architecture, method, settings))


def _architecture(config: JsonFile, directory: Path) -> str:
    names = config.items("architectures")
    if len(names) != 1 or not isinstance(names[0], str):
        raise CorruptFile("config.json is not valid", why=f"architectures is {names!r:.60}, expected one name")
    if names[0] not in _READERS:
        raise UnknownArchitecture(
            f"{model_name(directory)} is of the architecture {names[0]}",
            why=f"converted here are {', '.join(ARCHITECTURES)}",
            hint="--upstream: the engine's convert_hf_to_gguf.py, which needs torch and transformers",
            architecture=names[0],
        )
    return names[0]


def _check_method(name: str, method: str, settings: JsonFile) -> None:
    hint = "convert the model it was made from, then `edgellm quantize`"
    if method == "gptq":
        gptq.check_method(name, settings)
    elif method in ("awq", "bitsandbytes"):
        why = f"its weights are in {method}'s own 4-bit layout, which would have to be quantized a second time"
        raise UnsupportedModel(f"{name} cannot be converted", why=why, hint=hint, quant_method=method)
    elif method not in ("none", "bitnet"):
        why = f"its weights are quantized by {method!r}; bitnet and gptq are known"
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
