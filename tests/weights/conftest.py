import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def llama(engine_lib_dir: Path) -> Iterator[ModuleType]:
    """The engine's low-level bindings over the engine's library."""
    os.environ["LLAMA_CPP_LIB_PATH"] = str(engine_lib_dir)
    sys.path.insert(0, str(engine_lib_dir.parent / "python"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("llama_cpp.llama_cpp")
    module.llama_backend_init()
    yield module
    sys.path.remove(str(engine_lib_dir.parent / "python"))
