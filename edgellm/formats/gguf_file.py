"""Reads a GGUF file: its metadata, its tensors and their bytes, each decoded only when accessed.

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
from typing import TYPE_CHECKING

from edgellm.errors import CorruptFile, DoesNotFit, EdgellmError, ModelNotFound, UnsupportedModel
from edgellm.formats.gguf_header import MAX_TENSORS, Header, RawTensor, parse_header
from edgellm.formats.gguf_metadata import Buffer, GGUFArray, Metadata, Value
from edgellm.formats.quant_types import RETIRED_IDS, QuantType, find_type, named_type, tensor_nbytes

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_Q2_0, _Q2_0_G128 = named_type("Q2_0"), named_type("Q2_0_G128")
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
    """An open GGUF file. Closing it invalidates metadata values and arrays that have not been read yet."""

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
        """Map the file and check its header, tensor types and tensor offsets.

        Raises ModelNotFound when the file does not exist, CorruptFile when it is truncated, inconsistent or not
        GGUF at all, and UnsupportedModel when the engine cannot run it.
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
        """Read everything except tensor data from the first bytes of a file of `file_size` bytes.

        Raises HeaderIncomplete when a longer prefix is needed, and otherwise what `open` raises.
        """
        header = parse_header(data, file_size=file_size, name=name)
        return cls(Path(name), data, header, check_tensors(header, file_size=file_size, name=name), file_size)

    def close(self) -> None:
        """Unmap the file; does nothing while arrays returned by `tensor_bytes` are alive."""
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
        """Return an integer value; CorruptFile when it has another type, or is absent and has no default."""
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
        """Return an array value, still undecoded; CorruptFile when it has another type or is absent."""
        value = self._get(key, None)
        if isinstance(value, GGUFArray):
            return value
        raise self._wrong(key, value, "an array")

    def get_ints(self, key: str, count: int) -> list[int]:
        """Return one integer per layer from a key that holds either a single integer or an array of `count`."""
        value = self._get(key, None)
        if not 0 <= count <= MAX_TENSORS:  # `count` comes from the file, too
            raise CorruptFile(f"{self.path.name} is corrupt", why=f"it claims {count} layers", layers=count)
        if isinstance(value, int):
            return [self.get_int(key)] * count
        values = [item for item in self.get_array(key) if isinstance(item, int) and not isinstance(item, bool)]
        if len(values) != count:
            raise self._wrong(key, value, f"an array of {count} integers")
        return values

    def tensor_bytes(self, tensor: str | TensorInfo) -> npt.NDArray[np.uint8]:
        """Return the bytes of a tensor as a read-only view of the mapped file."""
        import numpy as np

        info = self.tensors[tensor] if isinstance(tensor, str) else tensor
        return np.frombuffer(self._data, np.uint8, info.nbytes, info.offset)

    def release(self, tensor: str | TensorInfo) -> None:
        """Drop the resident pages of a tensor: once read, mapped pages count towards this process's RSS."""
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
        why = f"the metadata key {key!r} should hold {expected}, but holds {_shorten(value)}"
        return CorruptFile(f"{self.path.name} is corrupt", why=why, key=key)


def check_tensors(header: Header, *, file_size: int, name: str) -> dict[str, TensorInfo]:
    """Return every tensor with its type, size and absolute offset, or raise for the first invalid one.

    Tensors must follow each other in header order, each padded to the alignment. The engine accepts nothing
    else, so a gap means that a tensor's size does not match its type.

    Two types of different size share the id of Q2_0. The sizes tell which one a file holds: upstream's, unless only
    the other one fills the file.
    """
    try:
        return _placed(header, file_size, name, _Q2_0)
    except CorruptFile as error:
        if not any(raw.type_id == _Q2_0.id for raw in header.tensors):
            raise
        try:
            return _placed(header, file_size, name, _Q2_0_G128)
        except CorruptFile:
            error.why = f"{error.why}; {_Q2_0_G128} does not fit either"
            raise error from None


def _placed(header: Header, file_size: int, name: str, q2_0: QuantType) -> dict[str, TensorInfo]:
    """Return all tensors, with `q2_0` as the type behind the shared id."""
    tensors: dict[str, TensorInfo] = {}
    expected = header.data_offset
    for raw in header.tensors:
        quant_type = _tensor_type(raw, name, q2_0)
        nbytes = tensor_nbytes(quant_type, raw.shape)
        offset = header.data_offset + raw.offset
        if offset != expected:
            why = f"tensor {raw.name!r} starts at byte {offset}, not at {expected} where the one before it ends"
            raise CorruptFile(f"{name} is corrupt", why=why, tensor=raw.name, expected=expected, actual=offset)
        if offset + nbytes > file_size:
            why = f"truncated: tensor {raw.name!r} ends at byte {offset + nbytes}, the file has {file_size}"
            raise CorruptFile(f"{name} is corrupt", why=why, expected=offset + nbytes, actual=file_size)
        tensors[raw.name] = TensorInfo(raw.name, raw.shape, quant_type, offset, nbytes)
        expected = offset + _padded(nbytes, header.alignment)
    if q2_0 is _Q2_0_G128 and file_size > expected:
        why = f"its Q2_0 tensors in groups of 128 end at byte {expected}, the file has {file_size}"
        raise CorruptFile(f"{name} is corrupt", why=why, expected=expected, actual=file_size)
    return tensors


def _tensor_type(raw: RawTensor, name: str, q2_0: QuantType) -> QuantType:
    quant_type = q2_0 if raw.type_id == q2_0.id else find_type(raw.type_id)
    if quant_type is None:
        meaning = RETIRED_IDS.get(raw.type_id, "unknown to this engine")
        why = f"tensor {raw.name!r} has type {raw.type_id}, {meaning}"
        raise UnsupportedModel(f"{name} cannot be read", why=why, tensor=raw.name, type=raw.type_id)
    if not 0 < math.prod(raw.shape) <= _MAX_WEIGHTS:
        why = f"tensor {raw.name!r} has an impossible shape, {list(raw.shape)}"
        raise CorruptFile(f"{name} is corrupt", why=why, tensor=raw.name)
    if not quant_type.fits(raw.shape):
        block = quant_type.block_size
        why = f"tensor {raw.name!r} has rows of {raw.shape[0]}, not a multiple of {quant_type}'s block of {block}"
        raise CorruptFile(f"{name} is corrupt", why=why, tensor=raw.name, type=quant_type.name)
    return quant_type


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
            why = f"opening it needs {size / 1e9:.2f} GB of address space, more than the limit (ulimit -v) allows"
            raise DoesNotFit(f"there is too little memory for {path.name}", why=why, needed=size) from None
        raise EdgellmError(f"{path} cannot be read", why=error.strerror or str(error), path=str(path)) from None


def _close(data: Buffer) -> None:
    if isinstance(data, mmap.mmap):
        try:
            data.close()
        except BufferError:  # arrays of tensor_bytes still refer to it; the last one to go unmaps it
            return


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
