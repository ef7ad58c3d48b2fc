"""Fixtures that all tests share: an isolated home, the built engine, the embedded model, upstream's vocabularies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.engine.builds.installed import InstalledEngine, require
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.source import SourceTree, prepare
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import EdgellmError
from edgellm.models.local.store import Store
from edgellm.models.recipe import find_recipe
from edgellm.package_index import fetch
from edgellm.settings import Settings, resource_directory
from tests.serve import browser as chromium
from tests.serve.browser import Browser

# A shell that runs the tests in the background ignores Ctrl-C for them and whatever they start; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Read before any test moves them: where the engine and the embedded model of this machine lie.
REAL = Settings.from_environment()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A Chromium that all tests of pages share."""
    if chromium.program() is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium): the page is not looked at")
    with Browser.start() as browser:
        yield browser


@pytest.fixture(autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No test sees the user's home, settings or terminal."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("EDGELLM_", "HF_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("EDGELLM_HOME", str(home / "edgellm"))
    monkeypatch.setenv("EDGELLM_NO_BUILD", "1")  # it takes minutes
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # as users run it: what is buffered may fail late
    yield home


@pytest.fixture
def settings(isolated_home: Path) -> Settings:
    """Settings inside the isolated home."""
    return Settings.from_environment()


@pytest.fixture(scope="session")
def patches_directory() -> Path:
    return resource_directory("patches")


@pytest.fixture(scope="session")
def stack(patches_directory: Path) -> PatchStack:
    return PatchStack.load(patches_directory)


@pytest.fixture(scope="session")
def engine(stack: PatchStack) -> InstalledEngine:
    """The engine that `make setup` built; tests that run it fail without it, they are never skipped."""
    try:
        return require(REAL, stack)
    except EdgellmError as error:
        pytest.fail(f"{error}: run `make test`, or `edgellm engine build` first")


@pytest.fixture(scope="session")
def engine_lib_dir(engine: InstalledEngine) -> Path:
    return engine.libraries


@pytest.fixture(scope="session")
def tools(engine: InstalledEngine) -> Path:
    """The directory of llama-server, llama-bench and the others, which only `make soak` needs."""
    if not {"llama-server", "llama-bench", "llama-perplexity"} <= set(engine.tools):
        pytest.fail("the engine's tools are not built: run `make tools` first")
    return engine.programs


@pytest.fixture(scope="session")
def llama(engine: InstalledEngine) -> LlamaEngine:
    """The real engine, loaded once into the test process."""
    return LlamaEngine(engine)


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The embedded model's file."""
    recipe = find_recipe("smollm2", [resource_directory("recipes")])
    model = Store(REAL.models).find(recipe.name)
    if model is None or model.sha256 != recipe.file.sha256:
        pytest.fail("the embedded model is missing: run `make test`, or `edgellm pull smollm2` first")
    return model.path


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The small embedding model's file."""
    model = Store(REAL.models).find("minilm")
    if model is None:
        pytest.fail("the embedding model is missing: run `make test`, or `edgellm pull minilm` first")
    return model.path


@pytest.fixture(scope="session")
def source_tree(stack: PatchStack, engine: InstalledEngine) -> SourceTree:
    """The patched sources of the engine; unpacked again if the cache was emptied since the build."""
    archive = stack.upstream.archive
    work = REAL.builds / engine.directory.name
    if (work / "src").is_dir():
        return SourceTree(work / "src")
    return prepare(stack, fetch(archive, REAL.downloads), work)


@pytest.fixture(scope="session")
def vocabularies(source_tree: SourceTree) -> Path:
    """Directory of upstream's ggml-vocab-*.gguf."""
    return source_tree.vocabularies


@pytest.fixture
def with_engine(settings: Settings, engine: InstalledEngine, smollm2: Path) -> Settings:
    """The isolated home with the real engine and the embedded model linked into it."""
    settings.engines.parent.mkdir(parents=True, exist_ok=True)
    settings.engines.symlink_to(REAL.engines)
    settings.models.symlink_to(REAL.models)
    return settings
