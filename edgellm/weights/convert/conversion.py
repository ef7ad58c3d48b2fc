"""The result of a conversion: the file, and the tensor types that it really holds.

result = describe(path, "bitnet-2b", "I2_S", "F16", seconds=14.0)
result.types[0].n_tensors
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.formats.gguf_file import GGUFFile


@dataclass(frozen=True, slots=True)
class TypeCount:
    """The number and the size of the tensors of one type in a file."""

    type: str
    n_tensors: int
    n_params: int
    n_bytes: int

    @property
    def bpw(self) -> float:
        """Bits per weight, including scales."""
        return 8 * self.n_bytes / self.n_params


@dataclass(frozen=True, slots=True)
class Conversion:
    """The written file: `outtype` is the type of its matrices, `head` that of its embedding and output head."""

    path: Path
    name: str
    architecture: str
    outtype: str
    head: str
    n_bytes: int
    n_params: int
    seconds: float
    types: tuple[TypeCount, ...]
    notes: tuple[str, ...]


def describe(path: Path, name: str, outtype: str, head: str, seconds: float, notes: tuple[str, ...] = ()) -> Conversion:
    """Read a finished file back and count its tensor types, those with the most bytes first."""
    with GGUFFile.open(path) as written:
        tensors = list(written.tensors.values())
        counts = [
            TypeCount(
                type=kind,
                n_tensors=sum(info.type.name == kind for info in tensors),
                n_params=sum(info.n_params for info in tensors if info.type.name == kind),
                n_bytes=sum(info.nbytes for info in tensors if info.type.name == kind),
            )
            for kind in sorted({info.type.name for info in tensors})
        ]
        return Conversion(
            path=path,
            name=name,
            architecture=written.architecture,
            outtype=outtype,
            head=head,
            n_bytes=written.size,
            n_params=written.n_params,
            seconds=seconds,
            types=tuple(sorted(counts, key=lambda count: -count.n_bytes)),
            notes=notes,
        )
