import ctypes
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ggml_base(engine_lib_dir: Path) -> ctypes.CDLL:
    """The engine's libggml-base, where ggml keeps its reference quantizers."""
    suffix = "dylib" if sys.platform == "darwin" else "so"
    library = ctypes.CDLL(str(engine_lib_dir / f"libggml-base.{suffix}"))
    library.ggml_type_name.restype = ctypes.c_char_p
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    return library
