"""Asks the engine which type each tensor of a model gets in one of llama.cpp's mixes.

A mix depends on layer, role, architecture and shape, and its rules change with the engine. No C function returns the
types, but a dry run of `llama_model_quantize` logs them tensor by tensor, and this module parses that log.

    types = mix_types(engine, Path("model.gguf"), file_type=15)      # LLAMA_FTYPE_MOSTLY_Q4_K_M
    types["blk.0.attn_v.weight"].type
"""

from __future__ import annotations

import ctypes
import os
import re
from pathlib import Path
from typing import NamedTuple

from edgellm.engine.llama import LlamaEngine
from edgellm.errors import EngineError, UnsupportedModel
from edgellm.formats.quant_types import QuantType, named_type

# [   3/ 272] blk.0.attn_k.weight   - [   576,   192,     1,     1], type =   f16, size = 0.21 MiB -> 0.07 MiB (q5_0)
_TENSOR = re.compile(
    r"^\[ *\d+/ *\d+\] (?P<name>\S+) +- \[[ \d,]+\], type = +(?P<old>\w+), size = .*? MiB(?: -> .*\((?P<new>\w+)\))?$",
    re.MULTILINE,
)
# warning: blk.0.attn_k.weight   - ncols    576 not divisible by 256 (required for type    q4_K) -> falling back ...
_FALLBACK = re.compile(r"warning: (?P<name>\S+) +- ncols .* \(required for type +(?P<type>\w+)\)")


class MixedTensor(NamedTuple):
    """The type that the mix gives a tensor, and the type it would have if its rows were whole blocks."""

    type: QuantType
    wanted: QuantType


def mix_types(engine: LlamaEngine, path: Path, file_type: int, *, has_imatrix: bool = False) -> dict[str, MixedTensor]:
    """Return the types of all tensors in the mix `file_type` (enum llama_ftype); `has_imatrix` changes some mixes.

    Raises:
        UnsupportedModel: the engine does not support the architecture; `why` is its own message.
    """
    c = engine.bindings
    params = c.llama_model_quantize_default_params()
    params.ftype = file_type
    params.dry_run = True
    # A dry run only checks whether there is a matrix: a list with one entry that names no tensor, and its terminator.
    imatrix = (c.llama_model_imatrix_data * 2)(c.llama_model_imatrix_data(b"-", (ctypes.c_float * 1)(1.0), 1))
    if has_imatrix:
        params.imatrix = imatrix
    engine.messages.clear()
    with engine.transcript() as pieces:
        status = c.llama_model_quantize(os.fsencode(path), b"", ctypes.byref(params))
    if status != 0:
        raise UnsupportedModel(
            f"the engine cannot quantize {path.name}",
            why=engine.messages[-1] if engine.messages else "it gave no reason",
            path=str(path),
        )
    return _read("".join(pieces))


def _read(transcript: str) -> dict[str, MixedTensor]:
    wanted = {match["name"]: named_type(match["type"]) for match in _FALLBACK.finditer(transcript)}
    types = {match["name"]: named_type(match["new"] or match["old"]) for match in _TENSOR.finditer(transcript)}
    if not types:
        raise EngineError("the engine's quantization plan cannot be read", why="its log has an unexpected format")
    return {name: MixedTensor(chosen, wanted.get(name, chosen)) for name, chosen in types.items()}
