"""`run` with a server that holds the model: the same answers and numbers, and what happens where it cannot answer."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.errors import EdgellmError, ModelNotFound, NetworkError, PromptTooLong, UsageError
from edgellm.files import identity
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.generation import never
from edgellm.serve.remote.choice import named
from edgellm.serve.remote.connection import ServerAddress, stream
from edgellm.serve.remote.model import RemoteModel
from tests.commands.cli import data, edgellm, edgellm_here, error
from tests.commands.test_startup import COMPUTES, HEAVY, loaded_by
from tests.conftest import REAL
from tests.serve.server import Server

CHAT = {"model": "smollm2", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
N_ROWS = 12


@pytest.fixture(scope="module")
def loaded(server: Server) -> Server:
    """The shared server with `smollm2` in memory."""
    assert server.post("/v1/chat/completions", CHAT).status == 200
    return server


def run(home: Mapping[str, str], *arguments: str, **env: str) -> Any:
    """The data of `edgellm run smollm2 ... --json`."""
    return data(edgellm("run", "smollm2", *arguments, "--json", env={**home, **env}))


@pytest.mark.parametrize(
    "arguments",
    [
        ["What is the capital of France?", "--temp", "0"],
        ["Tell me a story of a fox.", "--seed", "5", "-n", "20", "--top-k", "30", "-s", "Be brief."],
        ["What is the capital of France? Answer in JSON.", "--temp", "0", "-n", "60", "--format", "json"],
        ["Count from 1 to 20.", "--seed", "3", "-n", "60", "--stop", "5"],
        pytest.param(["Repeat the word 'no' forever: no no no no", "--temp", "0", "-n", "400"], marks=pytest.mark.soak),
    ],
    ids=["greedy", "seed", "json", "stop", "loop"],
)
def test_a_server_answers_as_a_model_loaded_here(
    loaded: Server, serve_home: dict[str, str], arguments: list[str]
) -> None:
    here, there = run(serve_home, *arguments, "--server", "never"), run(serve_home, *arguments)
    assert here["server"] is None and there["server"].startswith("http://127.0.0.1:")
    assert there["text"] == here["text"] != ""
    for name in ("prompt_tokens", "finish_reason"):
        assert there["stats"][name] == here["stats"][name], name
    # A server goes on for a token or two before it is stopped in a loop.
    assert (
        0 <= there["stats"]["completion_tokens"] - here["stats"]["completion_tokens"] <= 4 * ("no no" in str(arguments))
    )
    assert there["stats"]["context_used"] == here["stats"]["context_used"]
    assert there["stats"]["load_seconds"] == 0 and there["stats"]["decode_rate"] > 0
    assert there["stats"]["resident_bytes"] > 100e6, "the worker's"
    assert there["kv_type"] == "F16" and there["threads"] == here["threads"]


def test_the_numbers_of_a_server_are_printed(loaded: Server, serve_home: dict[str, str]) -> None:
    printed = edgellm("run", "smollm2", "hi", "-n", "1", "--stats", env=serve_home).stderr
    assert f"port {loaded.port}" in printed and "memory " in printed and "thread" in printed


def test_an_answer_of_a_server_imports_no_engine(
    loaded: Server, serve_home: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in serve_home.items():
        monkeypatch.setenv(name, value)
    modules = loaded_by("run", "smollm2", "hi", "-n", "1", "--temp", "0")
    assert "edgellm.serve.remote.model" in modules
    assert not modules & {*HEAVY, *COMPUTES, "edgellm.engine.llama_context"}


def test_what_a_server_cannot_do_is_done_here_or_refused_by_name(loaded: Server, serve_home: dict[str, str]) -> None:
    asked = ["hi", "--temp", "0", "-n", "2", "-c", "4096", "--kv", "q8_0", "-t", "1", "--raw"]
    assert run(serve_home, *asked)["server"] is None
    refused = error(edgellm_here("run", "smollm2", *asked, "--server", loaded.url, "--json", env=serve_home))
    assert refused["code"] == "usage"
    for option in ("--ctx-size 4096 (it has 2048)", "--kv Q8_0", "--threads 1", "--raw"):
        assert option.lower() in refused["what"].lower()


def test_an_unknown_server_or_model_is_one_clear_error(loaded: Server, serve_home: dict[str, str]) -> None:
    for server, model, code in ((loaded.url, "smollm", 3), ("http://127.0.0.1:9", "smollm2", 4), ("ftp://a", "x", 2)):
        failed = edgellm_here("run", model, "hi", "--server", server, env=serve_home)
        assert failed.returncode == code and (model != "smollm" or "did you mean smollm2" in failed.stderr)


def test_a_key_a_prompt_that_is_too_long_and_a_server_that_dies(
    tmp_path: Path, engine: InstalledEngine, smollm2: Path, tools: Path
) -> None:
    home = {"HOME": str(tmp_path), "EDGELLM_HOME": str(tmp_path)}
    (tmp_path / "data").mkdir()
    for name, target in (("engines", REAL.engines), ("models", REAL.models)):
        (tmp_path / "data" / name).symlink_to(target)
    key = {"EDGELLM_API_KEY": "sesame"}
    with Server.start("smollm2", "--slots", "1", "--ctx-size", "256", "--api-key", "sesame", env=home) as locked:
        assert locked.request("POST", "/v1/chat/completions", CHAT, {"Authorization": "Bearer sesame"}).status == 200
        denied = edgellm_here("run", "smollm2", "hi", "--server", locked.url, env=home)
        assert denied.returncode == 4 and "EDGELLM_API_KEY" in denied.stderr
        assert run(home, "hi", "-n", "1")["server"] is None
        long = edgellm("run", "smollm2", "word " * 300, "-n", "1", env={**home, **key})
        assert long.returncode == 0 and "loading the model here" in long.stderr
        assert (
            edgellm("run", "smollm2", "word " * 300, "--server", f"{locked.url}/v1/", env={**home, **key}).returncode
            == 2
        )
        batch = begun({**home, **key}, *rows_of(tmp_path), "-c", "256", "--slots", "1", "--temp", "0")
        while not (part := tmp_path / "out.jsonl.part").exists() or not part.stat().st_size:
            assert batch.poll() is None
            time.sleep(0.05)
        asking = begun({**home, **key}, "run", "smollm2", "Tell a very long story.", "--no-loop-guard", "--seed", "1")
        assert asking.stdout is not None and asking.stdout.read(20)
        locked.process.send_signal(signal.SIGKILL)
        _, said = asking.communicate(timeout=60)
        assert asking.returncode == 4 and b"Traceback" not in said, said
        assert f"using edgellm serve on port {locked.port}".encode() in said
        assert b"went away" in said or b"in the middle of the answer" in said
        _, said = batch.communicate(timeout=100)
        assert batch.returncode == 0 and b"using edgellm serve" in said and b"loading the model here" in said, said
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["custom_id"] for row in rows] == [str(n) for n in range(N_ROWS)]
        assert not any(row["error"] for row in rows)
    assert edgellm("stop", "--all", env=home).returncode == 0, "its worker"


def begun(home: Mapping[str, str], *arguments: str) -> "subprocess.Popen[bytes]":
    """The command line under way."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgellm", *arguments], env={**os.environ, **home}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def rows_of(directory: Path) -> list[str]:
    """The beginning of a batch of rows that take a moment each."""
    lines = [{"prompt": f"Write about {n}.", "custom_id": str(n), "max_tokens": 30} for n in range(N_ROWS)]
    (directory / "in.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return ["batch", str(directory / "in.jsonl"), "-o", str(directory / "out.jsonl"), "-m", "smollm2"]


@contextmanager
def answering(*parts: bytes) -> Iterator[ServerAddress]:
    """A server that answers one request with these bytes, whatever it is asked, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                asked = b""
                while not asked.endswith(b"}" if asked.startswith(b"POST") else b"\r\n\r\n"):
                    asked += connection.recv(1 << 16)
                for part in parts:
                    connection.sendall(part)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield ServerAddress.of(f"http://127.0.0.1:{listener.getsockname()[1]}/v1/", "sesame")
        thread.join(10)


def reply(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: text/event-stream\r\n\r\n".encode() + body


def problem(code: str) -> bytes:
    return json.dumps({"error": {"message": "no", "code": code}}).encode()


@pytest.mark.parametrize(
    ("sent", "raised"),
    [
        (b"", NetworkError),
        (b"nonsense\r\n\r\n", NetworkError),
        (reply("200 OK", b"data: {nonsense\n\n"), NetworkError),
        (reply("200 OK", b"data: " + b"[" * 100_000 + b"\n\n"), NetworkError),
        (reply("200 OK", b'data: {"choices": []}\n\n'), NetworkError),
        (reply("200 OK", b"data: " + problem("x") + b"\n\n"), EdgellmError),
        (reply("400 Bad", problem("context_length_exceeded")), PromptTooLong),
        (reply("404 No", problem("model_not_found")), ModelNotFound),
        (reply("401 No", problem("x")), EdgellmError),
        (reply("400 Bad", b"{}"), EdgellmError),
        (reply("503 Busy", b"<html>"), EdgellmError),
    ],
)
def test_whatever_a_server_sends_is_one_error(sent: bytes, raised: type[EdgellmError]) -> None:
    with answering(sent) as address, pytest.raises(raised) as failed:
        list(stream(address, "/v1/chat/completions", {}, interrupted=never))
    assert failed.value.hint


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": 5},
        {"choices": [3]},
        {"choices": [{"delta": 3}]},
        {"choices": [{"delta": {"content": {"a": 1}}}]},
        {"choices": [{"delta": {"content": "a"}, "logprobs": 1}]},
        {"choices": [], "prompt_progress": {"total": "x", "cache": 0}},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": "many"}},
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {}, "timings": {"prompt_ms": "x"}},
    ],
)
def test_chunks_of_another_form_are_one_error(chunk: Any) -> None:
    status = {"n_ctx": 512, "n_slots": 1, "n_threads": 2, "kv_type": "F16"}
    sent = reply("200 OK", b"data: " + json.dumps(chunk).encode() + b"\n\n")
    with answering(sent) as address, pytest.raises(NetworkError):
        list(RemoteModel("smollm2", address, status).answer_stream("hi", AnswerOptions()))


def test_an_interruption_ends_the_answer_while_the_server_is_silent() -> None:
    looks = iter([False, False, True])
    with answering(reply("200 OK", b": wait\n\n" * 2)) as address:
        assert list(stream(address, "/v1/chat/completions", {}, interrupted=lambda: next(looks, True))) == []


def test_a_stream_without_an_end_is_no_answer() -> None:
    piece = json.dumps({"choices": [{"index": 0, "delta": {"content": "Once"}}]}).encode()
    status = {"n_ctx": 512, "n_slots": 1, "n_threads": 2, "kv_type": "F16"}
    with answering(reply("200 OK", b"data: " + piece + b"\n\ndata: [DONE]\n\n")) as address:
        asked = RemoteModel("smollm2", address, status).answer_stream("hi", AnswerOptions())
        with pytest.raises(NetworkError, match="in the middle"):
            list(asked)
        assert asked.text == "Once"


@pytest.mark.parametrize(
    "url", ["localhost", "ftp://a", "http://", "http://a:b", "http://a/b", "http://u:p@a", "http://a?b"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        ServerAddress.of(url, None)


def test_a_status_that_is_not_ours_offers_no_model() -> None:
    models = [None, {}, {"name": "a", "kind": "chat", "state": 1}, {"name": "b", "kind": "chat", "n_ctx": "many"}]
    with answering(reply("200 OK", json.dumps({"models": models}).encode())) as address, pytest.raises(ModelNotFound):
        named(address, "smollm2")


def test_a_file_that_was_replaced_is_another_model(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"a")
    before = identity(path)
    path.write_bytes(b"ab")
    assert identity(path) != before
