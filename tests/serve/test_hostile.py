"""What nobody should send: each gets a clear answer, no memory, and disturbs nobody."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.serve.server import Reply, Server, free_port

pytestmark = [pytest.mark.engine, pytest.mark.model]
KEY, WRONG = "a-key-that-is-right", "a-key-that-is-wrong"
MiB = 1 << 20


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server's standard error goes."""
    return tmp_path_factory.mktemp("hostile") / "stderr"


@pytest.fixture(scope="module")
def hostile(serve_home: dict[str, str], said: Path) -> Iterator[Server]:
    """A server that waits one second for a head and one for a body, with a key."""
    port = free_port()
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.impatient", str(port), KEY],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, env={**os.environ, **serve_home},
        )  # fmt: skip
    end = time.monotonic() + 60
    while b"http://" not in said.read_bytes():
        assert process.poll() is None and time.monotonic() < end, said.read_text()
        time.sleep(0.05)
    with Server(process, port) as server:
        yield server


def authorized(key: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Raw:
    """A connection to a server, byte by byte."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=20)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def drip(self, data: bytes, seconds: float = 8) -> None:
        """A byte now and then, until the other side has enough."""
        end = time.monotonic() + seconds
        with contextlib.suppress(OSError):
            for byte in data:
                assert time.monotonic() < end, "it is still listened to"
                self.send(bytes([byte]))
                time.sleep(0.05)
                self.socket.setblocking(False)
                try:
                    if self.socket.recv(1, socket.MSG_PEEK) is not None:
                        return
                except BlockingIOError:
                    pass
                finally:
                    self.socket.settimeout(20)

    def answer(self) -> tuple[int, bytes]:
        """Status and body; status 0 if the connection was just closed."""
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while part := self.socket.recv(65536):
                received += part
        self.socket.close()
        if not received:
            return 0, b""
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def __enter__(self) -> "Raw":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


def clear(status: int, body: bytes, *allowed: int) -> str:
    """The message of an error; it tells nothing about the inside."""
    assert status in (allowed or (400,)), (status, body[:300])
    text = body.decode()
    assert "Traceback" not in text and ".py" not in text and "/root" not in text and str(Path.home()) not in text
    message: str = json.loads(text)["error"]["message"]
    return message


def request(path: str = "/v1/completions", *headers: str, method: str = "POST", host: str = "127.0.0.1") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", f"Authorization: Bearer {KEY}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def posted(server: Server, body: bytes, path: str = "/v1/chat/completions") -> Reply:
    return server.request("POST", path, body, headers=authorized())


def test_a_head_that_drips_is_not_waited_for(hostile: Server) -> None:
    with Raw(hostile) as raw:
        raw.drip(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X-Slow: yes\r\n" * 100)
        assert "in time" in clear(*raw.answer(), 408)


def test_a_body_that_drips_is_not_waited_for(hostile: Server) -> None:
    with Raw(hostile) as raw:
        raw.send(request("/v1/completions", "Content-Length: 1000"))
        raw.drip(b"x" * 1000)
        assert "body" in clear(*raw.answer(), 408)


def test_a_silent_connection_is_closed(hostile: Server) -> None:
    with Raw(hostile) as raw:
        assert raw.answer() == (0, b"")


@pytest.mark.parametrize("announced", [True, False])
def test_large_bodies_are_refused_and_not_kept(hostile: Server, announced: bool) -> None:
    process = psutil.Process(hostile.process.pid)
    after = []
    peak = 0
    for _ in range(3):
        with Raw(hostile) as raw:
            raw.send(
                request("/v1/completions", "Content-Length: 104857600" if announced else "Transfer-Encoding: chunked")
            )
            part = b"x" * MiB
            with contextlib.suppress(OSError):
                for _ in range(100):
                    raw.send(part if announced else b"%x\r\n%s\r\n" % (MiB, part))
                    peak = max(peak, process.memory_info().rss)
                raw.send(b"" if announced else b"0\r\n\r\n")
            assert "larger" in clear(*raw.answer(), 413)
        after.append(process.memory_info().rss)
    assert peak < min(after) + 80 * MiB
    assert after[-1] < after[0] + 4 * MiB


def test_an_endless_trailer_has_an_end(hostile: Server) -> None:
    with Raw(hostile) as raw:
        raw.send(request("/v1/completions", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n")
        trailer = b"X-More: " + b"y" * MiB + b"\r\n"
        with pytest.raises(OSError, match=r"(?i)reset|broken|timed"):
            for _ in range(4000):
                raw.send(trailer)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'"text"', b"{'a': 1}", b'{"messages": [}', b"\xff\xfe{}", b'{"prompt": "\xc3\x28"}',
        b'{"prompt": "\\ud800"}', b'{"temperature": NaN}', b'{"temperature": 1e999}', b'{"seed": 1%s}' % (b"0" * 5000),
        b"[" * 10_000, b'{"a":' * 10_000, b'{"tools":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"tool_choice": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_001,
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_what_is_no_request(hostile: Server, body: bytes, path: str) -> None:
    reply = posted(hostile, body, path)
    clear(reply.status, reply.body)


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "..%2f..%2fetc%2fpasswd", "a" * 300, "\u0000", "smollm2/.."]
)
def test_names_are_no_paths(hostile: Server, name: str) -> None:
    reply = posted(hostile, json.dumps({"model": name, "prompt": "a"}).encode(), "/v1/completions")
    assert "no model" in clear(reply.status, reply.body, 404)
    if name.isprintable():
        got = hostile.get(f"/v1/models/{name}", headers=authorized())
        clear(got.status, got.body, 404)


@pytest.mark.parametrize("key", [None, WRONG, "", KEY[:-1], f"{KEY}x", "\u00fc"])
def test_without_the_right_key_nothing_is_answered(hostile: Server, key: str | None) -> None:
    headers = {} if key is None else authorized(key)
    for path in ("/v1/models", "/openapi.json", "/nowhere"):
        reply = hostile.get(path, headers=headers)
        clear(reply.status, reply.body, 401)
        assert reply.headers["www-authenticate"] == "Bearer"
        assert KEY not in reply.body.decode() and WRONG not in reply.body.decode()
    assert hostile.get("/v1/models", headers={"x-api-key": KEY}).status == 200
    assert hostile.get("/health").status == 200


def test_no_key_is_in_a_log(hostile: Server, said: Path, serve_home: dict[str, str]) -> None:
    hostile.get("/v1/models", headers=authorized(WRONG))
    posted(hostile, json.dumps({"prompt": "a", "max_tokens": 1}).encode(), "/v1/completions")
    logs = [said, *(path for path in Path(serve_home["EDGELLM_HOME"]).rglob("*.log*") if path.is_file())]
    assert len(logs) > 1
    for path in logs:
        assert KEY.encode() not in path.read_bytes() and WRONG.encode() not in path.read_bytes()


def test_pages_and_names_of_others_are_refused(server: Server) -> None:
    for headers in ({"Host": "evil.example"}, {"Host": ""}, {"Host": "[::1"}, {"Origin": "http://evil.example"}):
        reply = server.get("/v1/models", headers=headers)
        clear(reply.status, reply.body, 403)
    assert server.get("/v1/models", headers={"Origin": server.url}).status == 200
    with Raw(server) as raw:
        raw.send(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        clear(*raw.answer(), 400)


@pytest.mark.parametrize(
    "smuggled",
    [
        request("/v1/completions", "Content-Length: 6", "Transfer-Encoding: chunked")
        + b"0\r\n\r\nGET /health HTTP/1.1\r\n\r\n",
        request("/v1/completions", "Content-Length: 2", "Content-Length: 50") + b"{}",
        request("/v1/completions", "Transfer-Encoding: identity, chunked, x") + b"0\r\n\r\n",
        request("/v1/completions", "Content-Length: -1"),
        request("/v1/completions", "Content-Length: 2", "X: a\rTransfer-Encoding: chunked") + b"{}",
        b"GET /v1/models HTTP/1.1\nHost: 127.0.0.1\n\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET http://[/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"BREW /coffee HTTP/9.9\r\n\r\n",
    ],
)
def test_what_is_not_clear_http_is_refused_once(hostile: Server, smuggled: bytes) -> None:
    with Raw(hostile) as raw:
        raw.send(smuggled)
        status, body = raw.answer()
        clear(status, body, 400, 401, 404)
        assert body.count(b"HTTP/1.1") == 0


def test_floods_of_headers_are_refused(hostile: Server) -> None:
    for flood in (b"".join(b"X-%d: y\r\n" % i for i in range(20_000)), b"X: " + b"y" * MiB):
        with Raw(hostile) as raw:
            with contextlib.suppress(OSError):
                raw.send(request()[:-2] + flood)
            status, body = raw.answer()
            if status:  # a client that sends on may be cut off before it reads
                assert "headers" in clear(status, body)


def test_many_idle_connections_disturb_nobody(hostile: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(Raw(hostile)).send(b"POST /v1/")
        begin = time.perf_counter()
        assert hostile.get("/v1/models", headers=authorized()).status == 200
        assert time.perf_counter() - begin < 2


def test_an_answer_goes_on_under_attack(hostile: Server) -> None:
    stop = threading.Event()

    def attack() -> None:
        while not stop.is_set():
            with Raw(hostile) as raw, contextlib.suppress(OSError):
                raw.send(
                    request("/v1/completions", f"Content-Length: {4 * MiB}", "Connection: close") + b"[" * (4 * MiB)
                )
                raw.answer()
            posted(hostile, b'{"a":' * 10_000)

    thread = threading.Thread(target=attack)
    thread.start()
    try:
        body = {"prompt": "Once upon a time", "max_tokens": 20, "stream": True, "ignore_eos": True, "loop_guard": False}
        events = hostile.post("/v1/completions", body, headers=authorized()).events()
    finally:
        stop.set()
        thread.join()
    assert events[-1]["usage"]["completion_tokens"] == 20


def test_a_worker_that_dies_ends_a_message_with_an_error(hostile: Server) -> None:
    body = {"model": "smollm2", "max_tokens": 900, "messages": [{"role": "user", "content": "Tell a long story."}]}
    assert hostile.post("/v1/messages", {**body, "max_tokens": 1}, headers=authorized()).status == 200
    more = {"stream": True, "ignore_eos": True, "loop_guard": False}
    headers = {"Content-Type": "application/json", **authorized()}
    asked = urllib.request.Request(f"{hostile.url}/v1/messages", json.dumps({**body, **more}).encode(), headers)
    with urllib.request.urlopen(asked, timeout=60) as reply:
        assert any(b"content_block_delta" in line for line in reply)
        for pid in hostile.workers():
            psutil.Process(pid).kill()
        rest = reply.read()
    assert b"event: error\n" in rest
    last = json.loads(rest.decode().strip().rpartition("data: ")[2])
    assert last["type"] == "error" and last["error"]["type"] == "overloaded_error"


LETTERS = " ".join(f'"{letter}"?' for letter in "abcdefghijklmnopqrstuvwxyz" * 12)


def form(pattern: str) -> dict[str, Any]:
    """What a request says whose answer has one value, of that pattern."""
    code = {"type": "string", "pattern": pattern}
    schema = {"type": "object", "properties": {"code": code}, "required": ["code"]}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def until_it_answers(server: Server) -> list[int]:
    """Wait for a worker that is started again; its process."""
    for _ in range(200):
        reply = server.post("/v1/completions", {"prompt": "a", "max_tokens": 2}, headers=authorized())
        if reply.status == 200:
            return server.workers()
        assert reply.status == 503
        time.sleep(0.1)
    raise AssertionError(reply)


CHAT = {"messages": [{"role": "user", "content": "Which code?"}], "temperature": 0, "max_tokens": 40}


@pytest.mark.parametrize("asked", [{"grammar": f"root ::= {LETTERS}"}, form(f"^{'[a-z]?' * 300}$")])
def test_a_grammar_that_never_ends_does_not_reach_the_worker(hostile: Server, asked: dict[str, Any]) -> None:
    workers = until_it_answers(hostile)
    for _ in range(2):  # it is not taken for one that is known to be fine
        reply = hostile.post("/v1/chat/completions", {**CHAT, **asked}, headers=authorized())
        assert reply.status == 400 and "too complex" in reply.json()["error"]["message"], reply
    assert hostile.post("/v1/completions", {"prompt": "a", "max_tokens": 2}, headers=authorized()).status == 200
    assert hostile.workers() == workers


def tool(pattern: str) -> dict[str, Any]:
    """What a request says that has one tool, whose argument is of that pattern."""
    parameters = {"type": "object", "properties": {"code": {"type": "string", "pattern": pattern}}}
    return {"tools": [{"type": "function", "function": {"name": "open", "parameters": parameters}}]}


def test_patterns_are_honoured(hostile: Server) -> None:
    until_it_answers(hostile)
    for _ in range(2):
        reply = hostile.post("/v1/chat/completions", {**CHAT, **form(r"^\w{2}-\d{3}$")}, headers=authorized())
        assert reply.status == 200, reply
        code = json.loads(reply.json()["choices"][0]["message"]["content"])["code"]
        assert re.fullmatch(r"\w{2}-\d{3}", code)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (form("^a{3,1}$"), ["response_format", "a{3,1}"]),
        (form("^[z-a]$"), ["response_format", "[z-a]"]),
        ({"grammar": 'root ::= "a"{3,1}'}, ["grammar"]),
        ({"grammar": "root ::= " + "(" * 5000}, ["grammar"]),
    ],
)
def test_what_nothing_matches_does_not_reach_the_worker(
    hostile: Server, asked: dict[str, Any], words: list[str]
) -> None:
    workers = until_it_answers(hostile)
    reply = hostile.post("/v1/chat/completions", {**CHAT, **asked}, headers=authorized())
    assert reply.status == 400, reply
    assert all(word in reply.json()["error"]["message"] for word in words), reply
    assert hostile.post("/v1/completions", {"prompt": "a", "max_tokens": 2}, headers=authorized()).status == 200
    assert hostile.workers() == workers


def test_a_tool_whose_pattern_no_grammar_says_can_be_used(hostile: Server) -> None:
    until_it_answers(hostile)
    reply = hostile.post("/v1/chat/completions", {**CHAT, **tool("^(?!a)b$")}, headers=authorized())
    assert reply.status == 200 and "edgellm" not in reply.json(), reply
    reply = hostile.post("/v1/chat/completions", {**CHAT, **tool("^[z-a]$")}, headers=authorized())
    assert reply.status == 200 and "tools.0 (open): " in reply.json()["edgellm"]["warnings"][0], reply


def test_a_grammar_that_ends_late_ends_its_worker(hostile: Server) -> None:
    """Three hundred optional letters behind ordinary text: the worker needs half a minute for each token of them."""
    until_it_answers(hostile)
    body = {"prompt": "a", "max_tokens": 30, "grammar": f'root ::= "It begins like any other answer: " {LETTERS}'}
    reply = hostile.post("/v1/completions", body, headers=authorized())
    assert reply.status == 503 and reply.headers["Retry-After"], reply
    until_it_answers(hostile)
