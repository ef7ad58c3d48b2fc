"""The kernels that an engine uses on this machine, how fast they could be fed, and where their weights are kept.

kernel_name(engine.libraries)              ->  "avx512-vnni"; "stock" where EDGELLM_KERNELS switches them off
read = memory_reader(engine.libraries)
read(array.ctypes.data, array.nbytes)          reads all of it, as fast as one thread can, and lets others run
keep_packed(engine.libraries, path, key)       the next model that this thread loads is packed into a file, or mapped

The engine itself chooses: patches/native/cpu.cpp finds the levels of the CPU, PRODUCT/x86/ladder.h the kernels.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

from edgellm.engine.builds.installed import library_path

VARIABLE = "EDGELLM_KERNELS"

# Address and size in bytes, a multiple of 64.
Reader = Callable[[int, int], object]


def kernel_name(libraries: Path) -> str:
    """The name of the kernels in use."""
    function = _library(libraries).edgellm_kernels
    function.restype = ctypes.c_char_p
    return bytes(function()).decode()


def memory_reader(libraries: Path) -> Reader:
    """The engine's function that does nothing but read."""
    function: Callable[[int, int], object] = _library(libraries).edgellm_read
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_uint64  # type: ignore[attr-defined]
    return function


def keep_packed(libraries: Path, path: Path | None, key: str) -> None:
    """Name the packed file of the next model that this thread loads, and what it depends on; None: no file."""
    function = _library(libraries).edgellm_keep_packed
    function.argtypes, function.restype = [ctypes.c_char_p, ctypes.c_char_p], None
    function(os.fsencode(path) if path else b"", os.fsencode(key))


def _library(libraries: Path) -> ctypes.CDLL:
    return ctypes.CDLL(str(library_path(libraries, "ggml-cpu")))
