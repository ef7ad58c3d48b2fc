"""What tools of a server need in tests: a search engine in SearXNG's shape, and MCP servers on loopback.

with search_engine() as url: ...
with mcp_server() as url: ...
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import uvicorn

RESULTS = [
    {"title": "Eiffel Tower", "url": "https://example.org/eiffel", "content": "The Eiffel Tower is 330 metres tall."},
    {"title": "Paris", "url": "https://example.org/paris", "content": "Paris is the capital of France."},
]


class _Search(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"results": RESULTS}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def search_engine() -> Iterator[str]:
    """A search engine that always finds the same; its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Search) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def mcp_server(key: str = "") -> Iterator[str]:
    """The SDK's own MCP server over HTTP, with a tool `double`; its URL. With a `key` it wants that token."""
    from mcp.server import MCPServer
    from starlette.requests import Request
    from starlette.responses import Response

    server = MCPServer("numbers")

    @server.tool()
    def double(number: int) -> str:
        """Double a whole number."""
        return f"twice {number} is {2 * number}"

    app = server.streamable_http_app()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if key and scope["type"] == "http" and Request(scope).headers.get("authorization") != f"Bearer {key}":
            await Response(status_code=401)(scope, receive, send)
            return
        await app(scope, receive, send)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(guarded, log_level="critical"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        running.should_exit = True
        thread.join()
