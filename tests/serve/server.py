"""A real server in a process of its own, for tests.

with Server.start("smollm2", "--slots", "2") as server:
    server.post("/v1/completions", {"prompt": "Once"}).json()
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

START_SECONDS = 180


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    headers: Message
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The data of server-sent events, without the one that says that it is over."""
        lines = [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    def lines(self) -> list[Any]:
        """NDJSON."""
        return [json.loads(line) for line in self.body.splitlines() if line.strip()]


class Server:
    """`edgellm serve` on a port of its own."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path | None = None) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    @classmethod
    def start(cls, *arguments: str, env: Mapping[str, str] | None = None, port: int | None = None) -> "Server":
        port = port or free_port()
        command = [sys.executable, "-m", "edgellm", "serve", *arguments, "--port", str(port)]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
        assert process.stderr is not None
        end = time.monotonic() + START_SECONDS
        line = b""
        while b"http://" not in line:
            line = process.stderr.readline()
            if not line or time.monotonic() > end:
                process.kill()
                raise AssertionError(f"the server did not start, it ended with status {process.wait()}")
        return cls(process, port)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 120
    ) -> Reply:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **(headers or {})})
        asked.method = method
        try:
            with urllib.request.urlopen(asked, timeout=timeout) as reply:
                return Reply(reply.status, reply.headers, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, error.headers, error.read())

    def get(self, path: str, **more: Any) -> Reply:
        return self.request("GET", path, **more)

    def post(self, path: str, body: Any, **more: Any) -> Reply:
        return self.request("POST", path, body, **more)

    def workers(self) -> list[int]:
        """Process ids of its llama-servers."""
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", "llama-server"], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in found.stdout.split()]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            if self.process.stderr:
                self.process.stderr.close()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
