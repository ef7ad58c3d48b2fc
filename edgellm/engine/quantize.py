"""ggml's own quantizers, for tensor types that have no numpy codec: rows of float32 in, blocks out.

quantize = Quantizer(engine.libraries, n_threads=4)
data = quantize(values, named_type("Q6_K"))     # uint8 [rows, bytes of a row]
"""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.formats.quant_types import QuantType, tensor_nbytes


class Quantizer:
    """`ggml_quantize_chunk` of one engine; it releases the interpreter, so threads share the rows of a call."""

    def __init__(self, libraries: Path, n_threads: int) -> None:
        suffix = "dylib" if sys.platform == "darwin" else "so"
        self._quantize = ctypes.CDLL(str(libraries / f"libggml-base.{suffix}")).ggml_quantize_chunk
        pointers, counts = [ctypes.c_void_p] * 2, [ctypes.c_int64] * 3
        self._quantize.argtypes = [ctypes.c_int, *pointers, *counts, ctypes.c_void_p]
        self._quantize.restype = ctypes.c_size_t
        self._threads = ThreadPoolExecutor(n_threads)
        self._n_threads = n_threads

    def __call__(self, values: npt.NDArray[np.float32], target: QuantType) -> npt.NDArray[np.uint8]:
        """Quantize float32 [rows, columns] without an importance matrix; columns must be whole blocks."""
        rows, columns = values.shape
        values = np.ascontiguousarray(values)
        encoded = np.empty((rows, tensor_nbytes(target, (columns,))), np.uint8)

        def part(first: int, last: int) -> None:
            self._quantize(
                target.id, values.ctypes.data, encoded.ctypes.data, first * columns, last - first, columns, None
            )

        edges = [rows * i // self._n_threads for i in range(self._n_threads + 1)]
        list(self._threads.map(part, edges[:-1], edges[1:]))
        return encoded
