"""The tiny benchmark and its model, shared by the tests of the harness."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.engine.llama import LlamaEngine
from edgellm.run.loader import LoadedModel, LoadOptions, load_weights
from edgellm.weights.convert.converter import convert
from tests.evaluation.benchmark import write_checkpoint, write_tasks


@pytest.fixture(scope="session")
def toy_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lm-eval's YAML files of the tiny benchmark, with the data beside them."""
    return write_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint, converted to F32 by our converter."""
    directory = write_checkpoint(tmp_path_factory.mktemp("toy"))
    return convert(directory, directory / "toy.gguf", outtype="F32").path


@pytest.fixture
def toy(llama: LlamaEngine, toy_model: Path) -> Iterator[LoadedModel]:
    """The tiny model in memory, with a cache in float32, so that nothing is rounded to less."""
    model = LoadedModel("toy", *load_weights(llama, toy_model, LoadOptions(kv_type="F32", n_threads=1)))
    yield model
    model.close()
