"""`edgellm mcp --http`, driven by the official SDK's own client, and by those who may not use it."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from edgellm.errors import UsageError
from edgellm.mcp_http import address
from edgellm.serve.options import ServeOptions
from tests.serve.server import free_port

KEY = "sesame"
HELLO = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPTS = {"Accept": "application/json, text/event-stream"}


@contextmanager
def running(home: dict[str, str], *arguments: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The server's URL, and its process."""
    port = free_port()
    command = [sys.executable, "-m", "edgellm", "mcp", "--http", str(port), "--no-docs", "--ctx-size", "1024"]
    process = subprocess.Popen(
        [*command, *arguments], env={**os.environ, **home}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        lines: list[str] = []
        while not (lines and "http://" in lines[-1]):
            line = process.stderr.readline()
            assert line, "".join(lines)
            lines.append(line)
        yield lines[-1].split()[0], process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def guarded(serve_home: dict[str, str]) -> Iterator[str]:
    """A server that wants a key."""
    with running(serve_home, "--api-key", KEY) as (url, _):
        yield url


@pytest.mark.engine
@pytest.mark.model
def test_the_sdks_client_asks_over_http(guarded: str) -> None:
    async def work() -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=120) as http,
            Client(streamable_http_client(guarded, http_client=http)) as client,
        ):
            assert {tool.name for tool in (await client.list_tools()).tools} == {"ask", "embed"}
            asked: dict[str, Any] = {"prompt": "Say hello.", "max_tokens": 5}
            answer = await client.call_tool("ask", asked)
            assert not answer.is_error and answer.structured_content and answer.structured_content["text"]
            wrong = await client.call_tool("ask", {})
            assert wrong.is_error and "'prompt' is a required property" in str(wrong.content)

    asyncio.run(work())


@pytest.mark.engine
@pytest.mark.model
def test_who_may_not_use_it_is_refused(guarded: str, serve_home: dict[str, str]) -> None:
    with httpx2.Client(timeout=60, headers=ACCEPTS) as http:
        refused = http.post(guarded, json=HELLO)
        assert refused.status_code == 401 and "key is needed" in refused.json()["error"]["message"]
        assert http.post(guarded, json=HELLO, headers={"Authorization": "Bearer x"}).status_code == 401
        known = {"Authorization": f"Bearer {KEY}"}
        foreign = http.post(guarded, json=HELLO, headers={**known, "Origin": "https://evil.example"})
        assert foreign.status_code == 403 and foreign.json()["error"]["data"]["code"] == "bad-origin"
        large = http.post(guarded, content=b"x" * (5 << 20), headers=known)
        assert large.status_code == 413
        assert http.get(guarded.removesuffix("/mcp") + "/other", headers=known).status_code == 404
        with running(serve_home) as (url, process):
            bad = http.post(url, json=HELLO, headers={"Host": "evil.example"})
            assert bad.status_code == 403 and bad.json()["error"]["data"]["code"] == "bad-host"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) in (0, 143, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("8790", "http://127.0.0.1:8790"), ("localhost:1", "http://localhost:1"), ("[::1]:80", "http://[::1]:80"),
        (" 127.0.0.2:65535 ", "http://127.0.0.2:65535"),
    ],
)  # fmt: skip
def test_addresses(text: str, url: str) -> None:
    assert address(text).url == url


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "host", ":80", "http://127.0.0.1:80", "a b:80", "1:2:3", "8790/mcp"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        address(text)


def test_others_need_a_key() -> None:
    with pytest.raises(UsageError, match="needs a key"):
        address("0.0.0.0:8790")
    assert not address("0.0.0.0:8790", ServeOptions(api_keys=frozenset({KEY}))).is_local


def test_the_entry_for_hosts() -> None:
    command = [sys.executable, "-m", "edgellm", "mcp", "--http", "8790", "--api-key", KEY, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    entry = json.loads(done.stdout)["data"]["mcpServers"]["edgellm"]
    assert entry["url"] == "http://127.0.0.1:8790/mcp" and KEY not in done.stdout
