"""Servers that the tests of a module share: real ones, with the embedded model and a small embedding model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.weights.convert.converter import convert
from tests.conftest import REAL
from tests.serve.browser import Browser, Page
from tests.serve.page import Opens
from tests.serve.server import Server
from tests.serve.tool_model import write_tool_model
from tests.weights import checkpoint_maker as make


@pytest.fixture(scope="session")
def serve_home(
    tmp_path_factory: pytest.TempPathFactory, engine: InstalledEngine, smollm2: Path, tools: Path
) -> dict[str, str]:
    """The environment of a home of its own with the real engine and the embedded model in it."""
    home = tmp_path_factory.mktemp("serve")
    data = home / "edgellm" / "data"
    data.mkdir(parents=True)
    (data / "engines").symlink_to(REAL.engines)
    (data / "models").symlink_to(REAL.models)
    return {"HOME": str(home), "EDGELLM_HOME": str(home / "edgellm")}


@pytest.fixture(scope="session")
def bert_file(tmp_path_factory: pytest.TempPathFactory, engine: InstalledEngine) -> Path:
    """An embedding model with random weights and vectors of 384 numbers, as MiniLM's."""
    directory = tmp_path_factory.mktemp("bert")
    make.bert(directory, hidden=384, heads=12, ffn=512, positions=512)
    return convert(directory, directory / "bert.gguf", outtype="F16").path


@pytest.fixture(scope="session")
def start(serve_home: dict[str, str]) -> Callable[..., Server]:
    """Starts a server of a test's own."""

    def start(*arguments: str) -> Server:
        return Server.start(*arguments, env=serve_home)

    return start


@pytest.fixture(scope="session")
def server(start: Callable[..., Server], bert_file: Path) -> Iterator[Server]:
    """The server that tests share which do no harm to it: `smollm2` with two slots, and `bert`."""
    with start("smollm2", str(bert_file), "--slots", "2", "--ctx-size", "2048") as server:
        yield server


@pytest.fixture(scope="session")
def caller(tmp_path_factory: pytest.TempPathFactory, start: Callable[..., Server], smollm2: Path) -> Iterator[Server]:
    """A server of `caller`, a model that calls tools."""
    model = write_tool_model(smollm2, tmp_path_factory.mktemp("caller") / "caller.gguf")
    with start(str(model), "--slots", "1", "--ctx-size", "2048") as server:
        yield server


@pytest.fixture
def opens(server: Server, browser: Browser) -> Iterator[Opens]:
    """Opens the page of the shared server, without settings of another test."""
    pages: list[Page] = []

    def opens(where: str = "", url: str = server.url, **look: Any) -> Page:
        page = browser.open(f"{url}/{where}", **look)
        pages.append(page)
        page.until("!document.querySelector('#send').disabled && isOpenYet")
        return page

    yield opens
    for page in pages:
        page.evaluate("localStorage.clear()")
        page.close()
