"""A small program that stands for llama-server: its command line, its HTTP over a Unix socket, and its ways to fail.

    fake = FakeModel(directory, stream="chat", ready_after=0.2)
    worker = await Worker.start(fake.program, fake.model(), plan, log=log)

It is started by the real `Worker.start`, through launch.py, so that everything on our side of the socket is tested for
real, without an engine or weights. Beside the model's file, a GGUF file without tensors, lie a script in JSON (the
fields of `Script`), and the requests that came in. What it answers was recorded from llama-server.

The program itself is the part below `PROGRAM`: it imports the standard library only, to start in a few milliseconds.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.models.fit.outline import Outline
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from tests.serve.recordings import RECORDED


@dataclass(frozen=True)
class Script:
    """What the program does.

    `says` are lines that it prints at its start; `dies_at_start` is the status with which it ends then, and
    `dies_of_signal` the signal that ends it then. It is ready after `ready_after` seconds. It streams the recording
    `stream` (where there is none, `chat` or `completion` by the path), or `by_schema` for a request with a schema, and
    dies after `dies_after` events of it. With `until_stopped` it goes on with the recording's text until the answer is
    ended by its id; with `hangs` it takes no step, so that the control endpoint never answers. `refuses` has status and
    body for its first `n_refusals` POSTs (for all where there is no number), `replies` the JSON of further paths.
    `ignores_term`: SIGTERM does not end it. `prints`: so many bytes without a newline.
    """

    says: list[str] = field(default_factory=list)
    dies_at_start: int | None = None
    dies_of_signal: int | None = None
    ready_after: float = 0.0
    stream: str | None = None
    by_schema: str | None = None
    dies_after: int | None = None
    until_stopped: bool = False
    hangs: bool = False
    ignores_term: bool = False
    prints: int = 0
    refuses: tuple[int, Any] | None = None
    n_refusals: int | None = None
    replies: dict[str, Any] = field(default_factory=dict)


class FakeModel:
    """A model's file with a script in it, and the program that plays it."""

    def __init__(self, directory: Path, name: str = "fake", **script: Any) -> None:
        self.name = name
        self.path = directory / f"{name}.gguf"
        self.program = directory / "llama-server"
        if not self.program.exists():
            self.program.write_text(f"#!{sys.executable} -IS\n{PROGRAM}")
            self.program.chmod(0o755)
        with GGUFWriter(self.path) as file:
            file.add("general.architecture", "llama")
            file.add("tokenizer.chat_template", "{{ messages }}{{ tools }}{{ enable_thinking }}")
        self.play(**script)

    def play(self, **script: Any) -> None:
        """Another script, for the processes that are started from now on."""
        text = json.dumps({**asdict(Script(**script)), "recorded": str(RECORDED)})
        partial = self.path.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self.path.with_suffix(".script"))

    def model(self, kind: ModelKind = ModelKind.CHAT, **more: Any) -> ServedModel:
        """The model as the catalog has it."""
        outline = Outline(
            name=self.name, architecture="llama", quant="Q4_0", n_bytes=1 << 20, n_params=1 << 20, n_ctx_train=4096,
            n_embd=64, n_ff=128, n_vocab=1000, n_words=1000, head_size=32, keys=(64,), values=(64,), tensors=(),
        )  # fmt: skip
        return ServedModel(self.name, self.path, outline, kind, 1 << 20, 1.0, **more)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests that came in, each with `path` and `body`."""
        path = self.path.with_suffix(".requests")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def starts(self) -> list[dict[str, Any]]:
        """The processes that were started, each with `pid`, `arguments` and `environment`."""
        path = self.path.with_suffix(".starts")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def is_running(pid: int) -> bool:
    """Whether there is such a process, which has not ended and waits to be reaped."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")


PROGRAM = r"""
import json, os, signal, socket, sys, threading, time

options = dict(zip(sys.argv[1:], sys.argv[2:]))
model = options["--model"]
script = json.load(open(model[: -len("gguf")] + "script"))
ready = time.monotonic() + script["ready_after"]
stopped, known = set(), threading.Condition()
refusals = iter(range(script["n_refusals"])) if script["n_refusals"] is not None else iter(int, 1)


def note(what, **facts):
    with open(model[: -len("gguf")] + what, "a") as file:
        file.write(json.dumps(facts) + "\n")


def main():
    ours = {name: value for name, value in os.environ.items() if name.startswith(("EDGELLM_", "LLAMA_"))}
    note("starts", pid=os.getpid(), arguments=sys.argv[1:], environment=ours)
    for line in script["says"]:
        print(line, flush=True)
    if script["prints"]:
        sys.stdout.write("x" * script["prints"])
        sys.stdout.flush()
    if script["dies_at_start"] is not None:
        sys.exit(script["dies_at_start"])
    if script["dies_of_signal"] is not None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), script["dies_of_signal"])
    signal.signal(signal.SIGTERM, signal.SIG_IGN if script["ignores_term"] else lambda *_: os._exit(0))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(options["--host"])
    listener.listen(64)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def serve(connection):
    with connection, connection.makefile("rb") as file:
        try:
            answer(connection, file)
        except OSError:
            pass  # the client has gone


def answer(connection, file):
    line = file.readline().split()
    if len(line) < 2:
        return
    path, length = line[1].decode(), 0
    while header := file.readline().strip():
        name, _, value = header.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    body = json.loads(file.read(length) or b"null")
    if path == "/health":
        return reply(connection, 200, {"status": "ok"}) if time.monotonic() >= ready else reply(
            connection, 503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}})
    note("requests", path=path, body=body)
    if path == "/v1/chat/completions/control":
        if script["hangs"]:
            time.sleep(3600)
        with known:
            stopped.add(body["id"])
            known.notify_all()
        return reply(connection, 200, {"success": True})
    if path in script["replies"]:
        return reply(connection, 200, script["replies"][path])
    if script["refuses"] and next(refusals, None) is not None:
        return reply(connection, *script["refuses"])
    if path not in ("/v1/chat/completions", "/v1/completions"):
        return reply(connection, 404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}})
    default = "chat" if path.startswith("/v1/chat") else "completion"
    has_schema = script["by_schema"] and any(body.get(each) for each in ("response_format", "json_schema", "grammar"))
    stream(connection, body["completion_id"], script["by_schema"] if has_schema else script["stream"] or default)


def reply(connection, status, data):
    body = json.dumps(data).encode()
    head = "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    connection.sendall((head % (status, len(body))).encode() + body)


def stream(connection, name, recording):
    head = "HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", "Connection: close"
    connection.sendall("\r\n".join([*head, "", ""]).encode())
    with open(os.path.join(script["recorded"], recording + ".sse"), "rb") as file:
        events = [event for event in file.read().split(b"\n\n") if event]
    ends = [index for index, event in enumerate(events) if b'"finish_reason":"' in event]
    first_end = ends[0] if ends else len(events)
    for index, event in enumerate(events):
        if index == first_end and script["until_stopped"]:
            go_on(connection, name, events[first_end - 1])
        if index == script["dies_after"]:
            os._exit(9)
        send(connection, event + b"\n\n")
    send(connection, b"")


def send(connection, data):
    connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))


def go_on(connection, name, event):
    while True:
        with known:
            if name in stopped or known.wait_for(lambda: name in stopped, 0.002):
                return
        send(connection, event + b"\n\n")


main()
"""
