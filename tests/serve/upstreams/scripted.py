"""An upstream that does what a test says: the status of a server, and answers of any kind, honest or not.

with Scripted({"/v1/chat/completions": lambda reply: reply.json({"choices": []})}) as upstream:
    upstream.url, upstream.seen
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = {
    "name": "smollm2", "kind": "chat", "state": "loaded", "quant": "Q4_1", "n_ctx": 2048, "n_slots": 2,
    "kv_type": "F16", "n_threads": 1, "in_flight": 0,
}  # fmt: skip


def status(**changes: Any) -> dict[str, Any]:
    return {"version": "1", "pid": 1, "started": 1.0, "models": [MODEL], "documents": [], **changes}


@dataclass(frozen=True)
class Seen:
    """A request that came in."""

    path: str
    headers: Message
    body: bytes


class Answer:
    """What a script answers with."""

    def __init__(self, handler: BaseHTTPRequestHandler) -> None:
        self._handler = handler

    def json(self, data: Any, code: int = 200, **headers: str) -> None:
        body = json.dumps(data).encode()
        self.head(code, "application/json", **{"Content-Length": str(len(body)), **headers})
        self.write(body)

    def head(self, code: int, media_type: str, **headers: str) -> None:
        self._handler.send_response(code)
        self._handler.send_header("Content-Type", media_type)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def stream(self, media_type: str = "text/event-stream") -> None:
        self.head(200, media_type, Transfer_Encoding="chunked")

    def chunk(self, data: bytes) -> None:
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self) -> None:
        self.write(b"0\r\n\r\n")

    def write(self, data: bytes) -> None:
        self._handler.wfile.write(data)
        self._handler.wfile.flush()

    def die(self) -> None:
        """Reset the connection, as the kernel does for a killed process."""
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.connection.close()

    @staticmethod
    def wait(seconds: float) -> None:
        time.sleep(seconds)


Script = Callable[[Answer], None]


def _not_found(answer: Answer) -> None:
    answer.json({}, 404)


class Scripted:
    """The upstream; paths without a script get 404."""

    def __init__(self, scripts: Mapping[str, Script] | None = None, **changes: Any) -> None:
        self.status: Any = status(**changes)
        self.scripts: dict[str, Script] = {"/status.json": lambda answer: answer.json(self.status), **(scripts or {})}
        self.seen: list[Seen] = []
        self.n_open = 0
        scripted = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                scripted.seen.append(Seen(self.path, self.headers, body))
                script = scripted.scripts.get(self.path.partition("?")[0], _not_found)
                self.close_connection = True
                scripted.n_open += 1
                with contextlib.suppress(OSError):  # the front has hung up
                    script(Answer(self))
                scripted.n_open -= 1

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being answered."""
        return self.n_open == 0

    def asked(self, path: str) -> list[Seen]:
        """The requests to a path."""
        return [each for each in self.seen if each.path.partition("?")[0] == path]

    def __enter__(self) -> Scripted:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
