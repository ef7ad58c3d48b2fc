"""A server on loopback whose pages each test gives: status, headers and body by path."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A page: its status, headers and body; or a function that answers by itself.
Served = tuple[int, dict[str, str], bytes] | Callable[[BaseHTTPRequestHandler], None]


class WebServer:
    """Pages by path, without the query; `asked` are the paths that were requested."""

    def __init__(self, url: str, pages: dict[str, Served], asked: list[str]) -> None:
        self.url, self.pages, self.asked = url, pages, asked

    def page(self, path: str, body: bytes | str, kind: str = "text/html; charset=utf-8", **headers: str) -> str:
        """Serve a page; returns its URL."""
        data = body.encode() if isinstance(body, str) else body
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.pages[path] = 200, {"Content-Type": kind, **given}, data
        return self.url + path


@contextmanager
def web_server() -> Iterator[WebServer]:
    """Serve on a free port of loopback."""
    pages: dict[str, Served] = {}
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            served = pages.get(self.path.partition("?")[0], (404, {}, b"nothing"))
            if callable(served):
                served(self)
                return
            status, headers, body = served
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # clients leave

    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield WebServer(f"http://127.0.0.1:{server.server_port}", pages, asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
