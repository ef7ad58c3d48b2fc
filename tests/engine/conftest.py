"""The real engine, loaded once into the test process."""

import pytest

from edgellm.engine.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine


@pytest.fixture(scope="session")
def llama(engine: InstalledEngine) -> LlamaEngine:
    return LlamaEngine(engine)
