"""The printed configurations of HAProxy, nginx and LiteLLM, in the real programs, where they are installed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from edgellm.serve.clients.balancers import BALANCERS, PORT
from edgellm.serve.clients.environment import Target
from tests.commands.cli import edgellm_here
from tests.serve.server import Server, free_port
from tests.serve.upstreams.conftest import until
from tests.serve.upstreams.scripted import Answer, Scripted

CHAT = "/v1/chat/completions"
# Where LiteLLM's proxy is, which has too many dependencies for the environment of the tests.
LITELLM = os.environ.get("EDGELLM_LITELLM") or shutil.which("litellm")
MASTER_KEY = "sk-0123456789abcdef0123456789abcdef"
COMMANDS = {
    "haproxy": ["haproxy", "-db", "-f", "haproxy"],
    "nginx": ["nginx", "-p", ".", "-c", "nginx"],
    "litellm-proxy": [LITELLM or "litellm", "--config", "litellm-proxy", "--host", "127.0.0.1", "--port", str(PORT)],
}


def body(*texts: str, system: str = "", stream: bool = False) -> dict[str, object]:
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    first = [{"role": "system", "content": system}] if system else []
    return {"model": "smollm2", "messages": [*first, *messages], "stream": stream}


class Served:
    """Two upstreams that answer with their number, and a stream that goes on when the test says so."""

    def __init__(self, one: Scripted, other: Scripted) -> None:
        self.goes_on = threading.Event()
        self.upstreams = [one, other]
        for n, upstream in enumerate(self.upstreams):
            upstream.scripts["/health"] = lambda answer: answer.json({"status": "ok"})
            upstream.scripts[CHAT] = lambda answer, n=n: self._chat(answer, n)  # type: ignore[misc]

    def _chat(self, answer: Answer, n: int) -> None:
        asked = json.loads(self.upstreams[n].asked(CHAT)[-1].body)
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "smollm2"}
        if not asked.get("stream"):
            message = {"role": "assistant", "content": f"server {n}"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            answer.json({**chunk, "object": "chat.completion", "choices": [choice], "usage": None})
            return
        answer.stream()
        for text in ("first", "second"):
            choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
            answer.chunk(b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n")
            if text == "first":
                self.goes_on.wait(60)
        answer.chunk(b"data: [DONE]\n\n")
        answer.end()


@contextmanager
def running(name: str, served: Served, directory: Path, key: str | None = None) -> Iterator[Server]:
    """The balancer with the configuration that is printed, on a free port."""
    if shutil.which(COMMANDS[name][0]) is None:
        pytest.skip(f"{COMMANDS[name][0]} is not installed")
    port = free_port()
    text = BALANCERS[name](Target("", "smollm2", 2048, key), [upstream.url for upstream in served.upstreams])
    (directory / name).write_text(text.replace(str(PORT), str(port)))
    command = [word.replace(str(PORT), str(port)) for word in COMMANDS[name]]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "LITELLM_MASTER_KEY": MASTER_KEY},
        )  # fmt: skip
    server = Server(process, port)
    try:
        until(lambda: process.poll() is not None or _listens(server), 120)
        assert process.poll() is None, (directory / "log").read_text()
        yield server
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        process.wait(30)
        for child in children:
            if child.is_running():
                child.terminate()


def _listens(server: Server) -> bool:
    try:
        return server.get("/health/liveliness", timeout=5).status < 500
    except OSError:
        return False


def said(server: Server, asked: dict[str, object], **headers: str) -> str:
    reply = server.post(CHAT, asked, headers=headers)
    assert reply.status == 200, reply.body
    text: str = reply.json()["choices"][0]["message"]["content"]
    return text


def check_streams(server: Server, served: Served, **headers: str) -> None:
    """The first token arrives while the server has not yet written the second."""
    served.goes_on.clear()
    data = json.dumps(body("Hi", stream=True)).encode()
    request = urllib.request.Request(server.url + CHAT, data, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as reply:
        lines: list[bytes] = []
        while not lines or b"first" not in lines[-1]:
            lines.append(reply.readline())
        served.goes_on.set()
        rest = reply.read()
    assert b"second" in rest and b"[DONE]" in rest


@pytest.fixture
def served() -> Iterator[Served]:
    with Scripted() as one, Scripted() as other:
        yield Served(one, other)


def test_haproxy_keeps_conversations_together_and_streams(served: Served, tmp_path: Path) -> None:
    with running("haproxy", served, tmp_path) as server:
        check_streams(server, served)
        places = set()
        for n in range(12):
            first = said(server, body(f"question {n}", system="You help."))
            again = said(server, body(f"question {n}", "an answer", "more", system="You help."))
            alone = said(server, body(f"question {n}"))
            assert first == again and alone == said(server, body(f"question {n}", "an answer", "more"))
            places.add(first)
        assert places == {"server 0", "server 1"}
        seen = served.upstreams[0].asked(CHAT)[-1].headers
        assert seen["Host"] == "localhost" and "X-Forwarded-For" in seen


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_a_server_that_is_away_is_left_out(name: str, tmp_path: Path) -> None:
    other = Scripted()
    with Scripted() as one, contextlib.ExitStack() as ends:
        ends.enter_context(other)
        with running(name, Served(one, other), tmp_path) as server:
            assert said(server, body("Hi"))
            ends.close()  # it is gone
            for n in range(20):
                assert said(server, body(f"question {n}")) == "server 0"


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
def test_a_server_that_restarts_is_asked_elsewhere(name: str, served: Served, tmp_path: Path) -> None:
    with running(name, served, tmp_path, key="secret") as server:
        served.upstreams[1].scripts[CHAT] = lambda answer: answer.json({}, 503, Retry_After="2")
        statuses = {server.post(CHAT, body(f"question {n}"), headers={"Authorization": "Bearer secret"}).status
                    for n in range(12)}  # fmt: skip
        assert statuses == {200}
        seen = served.upstreams[0].asked(CHAT)[-1].headers
        assert seen["Authorization"] == "Bearer secret" and seen["Host"].startswith("127.0.0.1")


def test_nginx_streams_and_keeps_a_client_with_its_server(served: Served, tmp_path: Path) -> None:
    with running("nginx", served, tmp_path) as server:
        check_streams(server, served)
        assert len({said(server, body(f"question {n}")) for n in range(6)}) == 1
        places = {said(server, body("Hi"), Authorization=f"Bearer {n}") for n in range(24)}
        assert places == {"server 0", "server 1"}


@pytest.mark.soak
def test_litellm_spreads_streams_and_retries(served: Served, tmp_path: Path) -> None:
    if LITELLM is None:
        pytest.skip("litellm is not installed")
    with running("litellm-proxy", served, tmp_path, key="secret") as server:
        key = {"Authorization": f"Bearer {MASTER_KEY}"}
        check_streams(server, served, **key)
        served.goes_on.clear()
        asking = threading.Thread(target=server.post, args=(CHAT, body("Hi", stream=True)), kwargs={"headers": key})
        asking.start()  # one server is busy with a stream now
        try:
            busy = until(lambda: [n for n, each in enumerate(served.upstreams) if not each.is_idle])
            places = {said(server, body(f"question {n}"), **key) for n in range(4)}
        finally:
            served.goes_on.set()
            asking.join()
        assert places == {f"server {1 - busy[0]}"}
        assert served.upstreams[0].asked(CHAT)[-1].headers["Authorization"] == "Bearer secret"
        served.upstreams[1].scripts[CHAT] = lambda answer: answer.json({}, 503, Retry_After="1")
        assert {said(server, body(f"question {n}"), **key) for n in range(6)} == {"server 0"}


def test_connect_prints_them_for_several_servers(served: Served) -> None:
    urls = [upstream.url for upstream in served.upstreams]
    for name in BALANCERS:
        printed = edgellm_here("connect", name, "--upstreams", ",".join(urls))
        assert printed.returncode == 0 and all(url.removeprefix("http://") in printed.stdout for url in urls)
    assert '"openai/smollm2"' in printed.stdout and "max_input_tokens: 2048" in printed.stdout
    wrong = edgellm_here("connect", "curl", "--upstreams", urls[0])
    assert wrong.returncode == 2
