"""Writes a model again in types that stock llama.cpp reads: I2_S becomes TQ2_0, Q2_0_G128 becomes Q2_0.

Everything else is copied.

if needs_twin(gguf):
    write_stock_twin(Path("bitnet-I2_S.gguf"), Path("bitnet-TQ2_0.gguf"))
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.ternary import Bytes
from edgellm.formats.ternary_transcode import I2_S, Q2_0, Q2_0_G128, TQ2_0, transcode
from edgellm.progress import Progress, Report, silent
from edgellm.weights.quantize.mixes import named_mix

_TWINS = {I2_S: TQ2_0, Q2_0_G128: Q2_0}
_SLAB_BYTES = 1 << 22


def needs_twin(gguf: GGUFFile) -> bool:
    """Whether the file holds tensors that stock llama.cpp cannot read."""
    return any(info.type in _TWINS for info in gguf.tensors.values())


def write_stock_twin(source: Path, target: Path, *, report: Report = silent) -> None:
    """Write `target`, whole or not at all: the same codes, and scales as fp16 (exact, or rounded by up to 2**-11).

    Raises:
        LossyTranscode: a tensor cannot be TQ2_0: its rows are not a multiple of 256, or fp16 cannot hold its scale.
        CorruptFile: the source has an invalid code or scale.
        DiskFull: there is no room for the file.
    """
    with GGUFFile.open(source) as gguf, GGUFWriter(target) as out:
        out.copy_metadata(gguf.metadata)
        changed = next((_TWINS[info.type] for info in gguf.tensors.values() if info.type in _TWINS), TQ2_0)
        out.add("general.file_type", named_mix(changed.name).file_type)
        # All iterators are made first: a tensor that cannot be transcoded raises before anything is written.
        slabs = {name: _slabs(gguf, info) for name, info in gguf.tensors.items()}
        for name, info in gguf.tensors.items():
            out.declare(name, info.shape, _TWINS.get(info.type, info.type))
        total, done = sum(info.nbytes for info in gguf.tensors.values()), 0
        for name, info in gguf.tensors.items():
            report(Progress(f"transcoding to {changed}", done, total, "B"))
            out.write(name, slabs.pop(name))
            gguf.release(info)
            done += info.nbytes
        report(Progress(f"transcoding to {changed}", total, total, "B"))


def _slabs(gguf: GGUFFile, info: TensorInfo) -> Iterator[Bytes]:
    data = gguf.tensor_bytes(info)
    if info.type in _TWINS:
        return transcode(data, info.shape, info.type, _TWINS[info.type], name=info.name, round_scale=True)
    return (data[first : first + _SLAB_BYTES] for first in range(0, len(data), _SLAB_BYTES))
