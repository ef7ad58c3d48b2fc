"""Calls ggml's codecs of the tensor types: rows of float32 to blocks, and blocks back to float32.

quantizer = Quantizer(engine.libraries, n_threads=4)
data = quantizer(values, named_type("Q6_K"))              # uint8 [rows, bytes of a row]
values = quantizer.decode(data, named_type("Q6_K"))       # float32 [rows, columns]
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.engine.builds.installed import library_path
from edgellm.formats.quant_types import QuantType, tensor_nbytes

Values = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_ToFloat = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)


class _TypeTraits(ctypes.Structure):
    """The first fields of struct ggml_type_traits in ggml.h."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("block_size", ctypes.c_int64),
        ("block_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", _ToFloat),
    )


class Quantizer:
    """The codecs of one engine. They release the GIL, so several threads share the rows of a call."""

    def __init__(self, libraries: Path, n_threads: int) -> None:
        library = ctypes.CDLL(str(library_path(libraries, "ggml-base")))
        self._quantize = library.ggml_quantize_chunk
        pointers, counts = [ctypes.c_void_p] * 2, [ctypes.c_int64] * 3
        self._quantize.argtypes = [ctypes.c_int, *pointers, *counts, ctypes.c_void_p]
        self._quantize.restype = ctypes.c_size_t
        self._traits = library.ggml_get_type_traits
        self._traits.argtypes, self._traits.restype = [ctypes.c_int], ctypes.POINTER(_TypeTraits)
        self._threads = ThreadPoolExecutor(n_threads)
        self._n_threads = n_threads

    def __call__(self, values: Values, target: QuantType, importance: Values | None = None) -> Bytes:
        """Quantize finite float32 [rows, columns]; columns must be whole blocks.

        `importance` float32 [columns] weights the error of each column. The types that need it
        (`weights.quantize.imatrix.needs_importance`) abort the process when it is missing.
        """
        rows, columns = values.shape
        values = np.ascontiguousarray(values)
        encoded = np.empty((rows, tensor_nbytes(target, (columns,))), np.uint8)
        weights = None if importance is None else np.ascontiguousarray(importance, np.float32)
        pointer = None if weights is None else weights.ctypes.data

        def part(first: int, last: int) -> None:
            self._quantize(
                target.id, values.ctypes.data, encoded.ctypes.data, first * columns, last - first, columns, pointer
            )

        self._share(rows, part)
        return encoded

    def decode(self, data: Bytes, source: QuantType) -> Values:
        """Return the weights, float32 [rows, columns], of bytes [rows, bytes of a row] of any type except I2_S."""
        if source.name == "F32":
            return data.view(np.float32)
        rows, row_bytes = data.shape
        columns = row_bytes // source.block_bytes * source.block_size
        data = np.ascontiguousarray(data)
        values = np.empty((rows, columns), np.float32)
        to_float = self._traits(source.id).contents.to_float

        def part(first: int, last: int) -> None:
            to_float(data[first:].ctypes.data, values[first:].ctypes.data, (last - first) * columns)

        self._share(rows, part)
        return values

    def _share(self, rows: int, part: Callable[[int, int], None]) -> None:
        edges = [rows * i // self._n_threads for i in range(self._n_threads + 1)]
        shares = [(first, last) for first, last in pairwise(edges) if first < last]
        list(self._threads.map(part, *zip(*shares, strict=True)))
