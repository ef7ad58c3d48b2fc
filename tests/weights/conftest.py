import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine


@pytest.fixture(scope="session")
def llama(engine: InstalledEngine) -> Iterator[ModuleType]:
    """The engine's low-level bindings, for what the engine protocol lacks: a float32 KV cache and embeddings."""
    loaded = LlamaEngine(engine)
    yield sys.modules["llama_cpp.llama_cpp"]
    del loaded
