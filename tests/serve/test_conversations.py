"""Conversations of a server that outlive its workers and itself: whose they are, and what leaves nothing."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm.models.local.prompt_files import PromptFiles
from edgellm.serve.workers import conversations
from tests.serve.server import Server, free_port

TEXT = " ".join(f"River {n} is {17 * n % 900} km long and flows by the town of Number{n}." for n in range(56))
SECRET = " ".join(f"Nobody must know that vault {n} opens with the number {31 * n % 1000}." for n in range(56))
Starts = Callable[..., Server]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, serve_home: dict[str, str]) -> dict[str, str]:
    """A home whose cache is this module's alone."""
    home = tmp_path_factory.mktemp("conversations") / "edgellm"
    home.mkdir(parents=True)
    (home / "data").symlink_to(Path(serve_home["EDGELLM_HOME"]) / "data")
    return {**serve_home, "EDGELLM_HOME": str(home)}


@pytest.fixture(scope="module")
def start(home: dict[str, str]) -> Starts:
    """Starts a server on a port."""

    def start(port: int, *arguments: str) -> Server:
        options = ("smollm2", "--slots", "2", "--ctx-size", "1536", "--threads", "1")
        return Server.start(*options, *arguments, env=home, port=port)

    return start


@pytest.fixture(scope="module")
def files(home: dict[str, str]) -> PromptFiles:
    return PromptFiles(Path(home["EDGELLM_HOME"]) / "cache" / "prompts", 0)


def ask(server: Server, text: str, *, key: str = "", **more: Any) -> tuple[str, int, int]:
    """An answer, how many tokens of its prompt were in the cache, and how many of those came from disk."""
    messages = [{"role": "system", "content": text}, {"role": "user", "content": "What is number 7?"}]
    body = {"model": "smollm2", "messages": messages, "max_tokens": 8, "temperature": 0, **more}
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    reply = server.post("/v1/chat/completions", body, headers=headers).json()
    return reply["choices"][0]["message"]["content"], reply["timings"]["cache_n"], reply["timings"]["disk_n"]


def unload(server: Server) -> None:
    assert server.post("/api/generate", {"model": "smollm2", "keep_alive": 0}).status == 200
    assert server.workers() == []


@pytest.mark.engine
@pytest.mark.model
def test_a_conversation_outlives_its_worker_and_its_server(start: Starts, files: PromptFiles) -> None:
    port = free_port()
    with start(port) as server:
        first, n_cached, n_disk = ask(server, TEXT)
        assert n_disk == 0
        ask(server, SECRET, private=True)
        in_memory, n_cached, n_disk = ask(server, TEXT)
        assert n_cached > 400 and n_disk == 0
        unload(server)
        [kept] = [found for _, found in files.all()]
        assert kept and len(kept.tokens) >= n_cached and not files.unfinished()
        restored, n_again, n_disk = ask(server, TEXT)
        assert (restored, n_again, n_disk) == (in_memory, n_cached, n_cached) and first
        assert ask(server, TEXT)[1:] == (n_cached, 0), "it is in memory now"
        assert ask(server, SECRET)[2] < 40
        metrics = server.get("/metrics").body.decode()
        assert f'edgellm_restored_tokens_total{{model="smollm2"}} {n_cached}' in metrics
    with start(port) as server:
        assert ask(server, TEXT) == (in_memory, n_cached, n_cached)
    with start(free_port()) as server:
        assert ask(server, TEXT)[2] == 0, "another server's"
    with start(port, "--api-key", "sesame") as server:
        assert ask(server, TEXT, key="sesame")[2] == 0, "whoever has the key had no conversation here"
    with start(port, "--prompt-cache", "off") as server:
        assert ask(server, TEXT)[2] == 0


@pytest.mark.engine
@pytest.mark.model
def test_damaged_conversations_are_not_restored_and_end_nothing(start: Starts, files: PromptFiles) -> None:
    port = free_port()
    with start(port) as server:
        ask(server, TEXT)
    paths = [path for path, _ in files.all()]
    assert paths
    for n, path in enumerate(paths):
        content = bytearray(path.read_bytes())
        content[-500] ^= 4
        path.write_bytes(content if n % 2 else content[: len(content) // 2])
    with start(port) as server:
        answer, _, n_disk = ask(server, TEXT)
        assert answer and n_disk == 0


def slot_file(numbers: list[int], state: bytes, *, magic: int = 0x67677371, version: int = 3) -> bytes:
    """What llama-server writes."""
    return struct.pack("=III", magic, version, len(numbers)) + array("i", numbers).tobytes() + state


def test_the_file_of_a_slot_is_parsed_or_refused() -> None:
    tokens, state = conversations._parse(slot_file([-1, 1, 2, 7, 8, 0], b"state"))
    assert [*tokens] == [7, 8] and bytes(state) == b"state"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ggsq",
        slot_file([-1, 1, 2, 7, 8, 0], b"", magic=1),
        slot_file([-1, 1, 2, 7, 8, 0], b"", version=2),
        slot_file([7, 8], b"state"),
        slot_file([-1, 2, 2, 7, 8, 0], b"state"),
        slot_file([-1, 1, 3, 7, 8, 0], b"state"),
        slot_file([-1, 1, 2, 7, 8, 1], b"state"),
        slot_file([-1, 1, 2, 7, 8, 0], b"")[:-2],
    ],
)
def test_other_files_are_no_conversations(content: bytes) -> None:
    with pytest.raises(OSError, match="no conversation"):
        conversations._parse(content)
