"""A GGUF model on disk: its metadata, its tensors and their bytes, nothing loaded before it is asked for.

with GGUFFile.open("model.gguf") as model:
    model.architecture, model.get_int(model.key("context_length")), model.tensor_bytes("token_embd.weight")
"""

from __future__ import annotations

import errno
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType

import numpy as np
import numpy.typing as npt

from edgellm.errors import CorruptFile, DoesNotFit, EdgellmError, ModelNotFound, UnsupportedModel
from edgellm.formats.gguf_header import MAX_TENSORS, Header, RawTensor, parse_header
from edgellm.formats.gguf_metadata import Buffer, GGUFArray, Metadata, Value
from edgellm.formats.quant_types import RETIRED_IDS, QuantType, find_type, tensor_nbytes

_Q2_0 = 42
# prism-ml's Q2_0: 128 weights in 34 bytes under the id that ggml gives to 64 weights in 18 bytes.
_Q2_0_G128 = QuantType(_Q2_0, "Q2_0", 128, 34)
_MAX_WEIGHTS = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: `shape` in ne order (row length first), `offset` and `nbytes` in bytes of the file."""

    name: str
    shape: tuple[int, ...]
    type: QuantType
    offset: int
    nbytes: int

    @property
    def n_params(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)


class GGUFFile:
    """An open GGUF file. Closing it invalidates the metadata and arrays that were not read yet."""

    def __init__(self, path: Path, data: Buffer, header: Header, tensors: dict[str, TensorInfo], size: int) -> None:
        self.path = path
        self.version = header.version
        self.alignment = header.alignment
        self.data_offset = header.data_offset
        self.size = size
        self.metadata: Metadata = header.metadata
        self.tensors: Mapping[str, TensorInfo] = MappingProxyType(tensors)
        self._data = data

    @classmethod
    def open(cls, path: str | Path) -> GGUFFile:
        """Map the file and check its header, tensor types and tensor places.

        Raises ModelNotFound when there is no such file, CorruptFile when it is no GGUF, truncated or
        inconsistent, and UnsupportedModel when the engine could not run it.
        """
        path = Path(path)
        data = _map(path)
        try:
            header = parse_header(data, file_size=len(data), name=path.name)
            tensors = check_tensors(header, file_size=len(data), name=path.name)
        except BaseException:
            _close(data)
            raise
        return cls(path, data, header, tensors, len(data))

    @classmethod
    def of_prefix(cls, data: bytes, *, file_size: int, name: str) -> GGUFFile:
        """The same from the first bytes of a file of `file_size` bytes: everything but the tensors' own bytes.

        Raises HeaderIncomplete when a longer prefix is needed, else as `open`.
        """
        header = parse_header(data, file_size=file_size, name=name)
        return cls(Path(name), data, header, check_tensors(header, file_size=file_size, name=name), file_size)

    def close(self) -> None:
        """Unmap the file; does nothing while arrays of `tensor_bytes` are alive."""
        _close(self._data)

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def architecture(self) -> str:
        """`general.architecture`, for example "llama"."""
        return self.get_str("general.architecture")

    @property
    def n_params(self) -> int:
        """The number of weights in all tensors."""
        return sum(info.n_params for info in self.tensors.values())

    def key(self, suffix: str) -> str:
        """Return the architecture's own key: "context_length" becomes "llama.context_length"."""
        return f"{self.architecture}.{suffix}"

    def get_int(self, key: str, default: int | None = None) -> int:
        """Return an integer value; CorruptFile when it is none, or absent and no default is given."""
        value = self._get(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self._wrong(key, value, "an integer")

    def get_float(self, key: str, default: float | None = None) -> float:
        """Return a number as a float; CorruptFile as in `get_int`."""
        value = self._get(key, default)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        raise self._wrong(key, value, "a number")

    def get_bool(self, key: str, default: bool | None = None) -> bool:
        """Return a boolean value; CorruptFile as in `get_int`."""
        value = self._get(key, default)
        if isinstance(value, bool):
            return value
        raise self._wrong(key, value, "a boolean")

    def get_str(self, key: str, default: str | None = None) -> str:
        """Return a string value; CorruptFile as in `get_int`."""
        value = self._get(key, default)
        if isinstance(value, str):
            return value
        raise self._wrong(key, value, "a string")

    def get_array(self, key: str) -> GGUFArray:
        """Return an array value, still undecoded; CorruptFile when it is none or absent."""
        value = self._get(key, None)
        if isinstance(value, GGUFArray):
            return value
        raise self._wrong(key, value, "an array")

    def get_ints(self, key: str, count: int) -> list[int]:
        """Return `count` integers where a file may hold one for all layers or an array of one per layer."""
        value = self._get(key, None)
        if not 0 <= count <= MAX_TENSORS:  # a number from the file as well
            raise CorruptFile(f"{self.path.name} is corrupt", why=f"it claims {count} layers", layers=count)
        if isinstance(value, int):
            return [self.get_int(key)] * count
        values = [item for item in self.get_array(key) if isinstance(item, int) and not isinstance(item, bool)]
        if len(values) != count:
            raise self._wrong(key, value, f"an array of {count} integers")
        return values

    def tensor_bytes(self, tensor: str | TensorInfo) -> npt.NDArray[np.uint8]:
        """Return the bytes of a tensor as a read-only view of the mapped file."""
        info = self.tensors[tensor] if isinstance(tensor, str) else tensor
        return np.frombuffer(self._data, np.uint8, info.nbytes, info.offset)

    def release(self, tensor: str | TensorInfo) -> None:
        """Let go of the memory behind a tensor that is done with: mapped pages count as ours once they were read."""
        info = self.tensors[tensor] if isinstance(tensor, str) else tensor
        if isinstance(self._data, mmap.mmap):
            start = info.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._data.madvise(mmap.MADV_DONTNEED, start, info.offset + info.nbytes - start)

    def _get(self, key: str, default: Value | None) -> Value:
        value = self.metadata.get(key, default)
        if value is None:
            raise CorruptFile(f"{self.path.name} is incomplete", why=f"it has no metadata key {key!r}", key=key)
        return value

    def _wrong(self, key: str, value: object, expected: str) -> CorruptFile:
        why = f"the metadata key {key!r} should hold {expected}, and holds {_shorten(value)}"
        return CorruptFile(f"{self.path.name} is corrupt", why=why, key=key)


def check_tensors(header: Header, *, file_size: int, name: str) -> dict[str, TensorInfo]:
    """Give every tensor its type, size and absolute place, or say what is wrong with it.

    Tensors lie one after the other in the order of the header, each padded to the alignment: the engine
    accepts nothing else, so a gap means that a size is not what the type says.
    """
    tensors: dict[str, TensorInfo] = {}
    expected = header.data_offset
    for raw in header.tensors:
        quant_type = _tensor_type(raw, name)
        nbytes = tensor_nbytes(quant_type, raw.shape)
        offset = header.data_offset + raw.offset
        if offset != expected or offset + nbytes > file_size:
            _refuse_g128(header, file_size, name)
        if offset != expected:
            why = f"tensor {raw.name!r} starts at byte {offset}, not at {expected} where the one before it ends"
            raise CorruptFile(f"{name} is corrupt", why=why, tensor=raw.name, expected=expected, actual=offset)
        if offset + nbytes > file_size:
            why = f"truncated: tensor {raw.name!r} ends at byte {offset + nbytes}, the file has {file_size}"
            raise CorruptFile(f"{name} is corrupt", why=why, expected=offset + nbytes, actual=file_size)
        tensors[raw.name] = TensorInfo(raw.name, raw.shape, quant_type, offset, nbytes)
        expected = offset + _padded(nbytes, header.alignment)
    return tensors


def _tensor_type(raw: RawTensor, name: str) -> QuantType:
    quant_type = find_type(raw.type_id)
    if quant_type is None:
        meaning = RETIRED_IDS.get(raw.type_id, "unknown to this engine")
        why = f"tensor {raw.name!r} has type {raw.type_id}, {meaning}"
        raise UnsupportedModel(f"{name} cannot be read", why=why, tensor=raw.name, type=raw.type_id)
    if not 0 < math.prod(raw.shape) <= _MAX_WEIGHTS:
        why = f"tensor {raw.name!r} has an impossible shape, {list(raw.shape)}"
        raise CorruptFile(f"{name} is corrupt", why=why, tensor=raw.name)
    if not quant_type.fits(raw.shape):
        block = quant_type.block_size
        why = f"tensor {raw.name!r} has rows of {raw.shape[0]}, no multiple of {quant_type}'s block of {block}"
        raise CorruptFile(f"{name} is corrupt", why=why, tensor=raw.name, type=quant_type.name)
    return quant_type


def _refuse_g128(header: Header, file_size: int, name: str) -> None:
    """Raise if the tensors lie as they would with prism-ml's Q2_0 in groups of 128."""
    end = 0
    found = False
    for raw in header.tensors:
        known = find_type(raw.type_id)
        quant_type = _Q2_0_G128 if raw.type_id == _Q2_0 else known
        if quant_type is None or raw.offset != end or not quant_type.fits(raw.shape):
            return
        found |= raw.type_id == _Q2_0
        end += _padded(tensor_nbytes(quant_type, raw.shape), header.alignment)
    # The padding after the last tensor may be missing; a file much shorter or longer is something else.
    if found and abs(header.data_offset + end - file_size) < header.alignment:
        why = "its Q2_0 tensors are in groups of 128 (prism-ml's layout); the engine's Q2_0 has groups of 64"
        hint = "use the model's Q1_0, Q4_0 or Q8_0 file"
        raise UnsupportedModel(f"{name} cannot be read", why=why, hint=hint, type="Q2_0")


def _padded(nbytes: int, alignment: int) -> int:
    return -(-nbytes // alignment) * alignment


def _map(path: Path) -> Buffer:
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return b""  # cannot be mapped
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ModelNotFound(f"there is no file {path}", path=str(path)) from None
    except OSError as error:
        if error.errno == errno.ENOMEM:
            size = path.stat().st_size
            why = f"{size / 1e9:.2f} GB of address space are needed to open it, and a limit is set (ulimit -v)"
            raise DoesNotFit(f"there is too little memory for {path.name}", why=why, needed=size) from None
        raise EdgellmError(f"{path} cannot be read", why=error.strerror or str(error), path=str(path)) from None


def _close(data: Buffer) -> None:
    if isinstance(data, mmap.mmap):
        try:
            data.close()
        except BufferError:  # an array of tensor_bytes still looks at it; the last one unmaps it
            return


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
