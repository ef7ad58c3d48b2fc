"""The same model in types that stock llama.cpp reads: I2_S tensors become TQ2_0, everything else stays as it is.

if needs_twin(gguf):
    write_stock_twin(Path("bitnet-I2_S.gguf"), Path("bitnet-TQ2_0.gguf"))
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgellm.formats.gguf_file import GGUFFile, TensorInfo
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.ternary import Bytes
from edgellm.formats.ternary_transcode import I2_S, TQ2_0, transcode
from edgellm.progress import Progress, Report, silent
from edgellm.weights.mixes import named_mix

_SLAB_BYTES = 1 << 22


def needs_twin(gguf: GGUFFile) -> bool:
    """Whether the file holds tensors that stock llama.cpp cannot read."""
    return any(info.type is I2_S for info in gguf.tensors.values())


def write_stock_twin(source: Path, target: Path, *, report: Report = silent) -> None:
    """Write `target`, whole or not at all: the same codes, and the scales as fp16 (equal, or rounded by 2**-11).

    Raises:
        LossyTranscode: a tensor cannot be TQ2_0: its rows are no multiple of 256, or fp16 has no such scale.
        CorruptFile: a code or a scale of the source cannot be.
        DiskFull: no room for the file.
    """
    with GGUFFile.open(source) as gguf, GGUFWriter(target) as out:
        out.copy_metadata(gguf.metadata)
        out.add("general.file_type", named_mix("TQ2_0").file_type)
        # All of them before the first byte: what cannot be transcoded is found before anything is written.
        slabs = {name: _slabs(gguf, info) for name, info in gguf.tensors.items()}
        for name, info in gguf.tensors.items():
            out.declare(name, info.shape, TQ2_0 if info.type is I2_S else info.type)
        total, done = sum(info.nbytes for info in gguf.tensors.values()), 0
        for name, info in gguf.tensors.items():
            report(Progress("transcoding to TQ2_0", done, total, "B"))
            out.write(name, slabs.pop(name))
            gguf.release(info)
            done += info.nbytes
        report(Progress("transcoding to TQ2_0", total, total, "B"))


def _slabs(gguf: GGUFFile, info: TensorInfo) -> Iterator[Bytes]:
    data = gguf.tensor_bytes(info)
    if info.type is I2_S:
        return transcode(data, info.shape, I2_S, TQ2_0, name=info.name, round_scale=True)
    return (data[first : first + _SLAB_BYTES] for first in range(0, len(data), _SLAB_BYTES))
