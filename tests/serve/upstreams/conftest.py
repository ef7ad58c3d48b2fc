"""Starts fronts: the real program, over upstreams of a test's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.server import Server
from tests.serve.upstreams.scripted import Scripted


@pytest.fixture(scope="module")
def front_home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a home without engine and models: a front needs neither."""
    home = tmp_path_factory.mktemp("front")
    return {"HOME": str(home), "EDGELLM_HOME": str(home / "edgellm")}


@pytest.fixture(scope="module")
def starts_front(front_home: dict[str, str]) -> Iterator[Callable[..., Server]]:
    """Starts fronts over some addresses, which end with the module."""
    fronts: list[Server] = []

    def start(urls: list[str], *arguments: str, port: int | None = None) -> Server:
        front = Server.start("--upstreams", ",".join(urls), *arguments, env=front_home, port=port)
        fronts.append(front)
        return front

    yield start
    for front in fronts:
        front.stop()


@pytest.fixture(scope="module")
def pair(starts_front: Callable[..., Server]) -> Iterator[tuple[Server, Scripted, Scripted]]:
    """A front over two scripted upstreams, with keys on both sides."""
    with Scripted() as one, Scripted() as other:
        front = starts_front([one.url, other.url], "--api-key", "mine", "--upstream-key", "theirs")
        yield front, one, other


def until(holds: Callable[[], Any], seconds: float = 60) -> Any:
    """Wait until something holds; what it was then."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it never came to hold"
        time.sleep(0.1)
    return found


def log_of(home: dict[str, str]) -> str:
    """The log of the fronts of a home."""
    return "".join(path.read_text() for path in Path(home["EDGELLM_HOME"]).rglob("serve.log"))
