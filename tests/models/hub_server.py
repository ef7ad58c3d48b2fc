"""A server on localhost that speaks the Hub's protocol as huggingface_hub 2.x uses it, and fails as it is told to.

    with HubServer() as server:
        server.add("user/repo", {"model.gguf": b"GGUF..."})
        server.fail("GET /cdn", drop_after=1000)
        Hub(server.endpoint, cache)

Large files answer with a redirect to another host ("localhost" instead of 127.0.0.1) and the LFS headers, small ones
with a redirect on the same host, as the Hub does. Through `proxy` the same server is https://huggingface.co, with a
certificate that `authority` signed.
"""

import hashlib
import json
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LFS_FROM = 1000
CHUNK = 16 * 1024


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose line holds `where`."""

    where: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    # Bytes of the body after which the connection breaks.
    drop_after: int | None = None
    # Bytes a second.
    rate: float | None = None
    # Instead of the body, and of its size.
    body: bytes | None = None
    ignore_range: bool = False
    # Chunked, so that the end of the body is all that tells its length.
    chunked: bool = False


@dataclass
class Repo:
    """A model repository with one commit."""

    commit: str
    files: dict[str, bytes]
    licence: str | None = None
    gated: bool = False
    revisions: tuple[str, ...] = ("main",)
    # What the LFS headers claim instead of the truth.
    etags: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """A request as it came."""

    method: str
    host: str
    path: str
    headers: dict[str, str]

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


class HubServer(ThreadingHTTPServer):
    """The server; `requests` are all that came, `sent` the bytes of bodies that left."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.requests: list[Request] = []
        self.sent = 0
        self.tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def cdn(self) -> str:
        return f"http://localhost:{self.server_port}"

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone is what these tests are about."""

    def add(self, name: str, files: dict[str, bytes], **more: Any) -> Repo:
        """A repository; its commit id follows from what is in it."""
        digest = hashlib.sha1(name.encode())
        for path, data in files.items():
            digest.update(path.encode() + data)
        self.repos[name] = Repo(digest.hexdigest(), files, **more)
        return self.repos[name]

    def fail(self, where: str, **how: Any) -> Fault:
        """Let the next request (or `times`) whose line holds `where` fail."""
        self.faults.append(Fault(where, **how))
        return self.faults[-1]

    def note(self, request: Request) -> Fault | None:
        """Remember a request; the fault that is due for it, if any."""
        with self._lock:
            self.requests.append(request)
            due = next((fault for fault in self.faults if fault.where in request.line and fault.times > 0), None)
            if due is not None:
                due.times -= 1
            return due

    def count(self, where: str) -> int:
        """How many requests there were whose line holds `where`."""
        return sum(where in request.line for request in self.requests)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        """Be silent."""

    def do_CONNECT(self) -> None:
        """As a proxy: become the host that was asked for."""
        assert self.server.tls is not None
        self.send_response(200)
        self.end_headers()
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb", self.rbufsize)
        self.wfile = socketserver._SocketWriter(self.connection)  # type: ignore[attr-defined]

    def finish(self) -> None:
        super().finish()
        if isinstance(self.connection, ssl.SSLSocket):  # the server knows only the socket below it
            self.connection.close()

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.command, headers.get("host", ""), self.path, headers)
        self.fault = self.server.note(request)
        if self.fault is not None and self.fault.status is not None:
            return self.refuse(self.fault.status, **self.fault.headers)
        place = urlsplit(self.path)
        parts = [unquote(part) for part in place.path.strip("/").split("/")]
        if parts[:2] == ["api", "models"] and len(parts) == 2:
            return self.search(parse_qs(place.query))
        if parts[:2] == ["api", "models"]:
            return self.info("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        if parts[:2] == ["api", "resolve-cache"]:
            return self.file("/".join(parts[3:5]), parts[5], "/".join(parts[6:]), direct=True)
        if parts[0] == "cdn":
            return self.blob("/".join(parts[1:3]), "/".join(parts[3:]))
        if len(parts) > 4 and parts[2] == "resolve":
            return self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return self.refuse(404)

    def find(self, name: str, revision: str, *, public: bool = False) -> Repo | None:
        """The repository, or None after it was refused."""
        repo = self.server.repos.get(name)
        token = self.headers.get("authorization")
        if repo is None:
            # Without a token the Hub does not tell missing from private.
            self.refuse(404 if token else 401, **{"X-Error-Code": "RepoNotFound"})
        elif revision not in (*repo.revisions, repo.commit):
            self.refuse(404, **{"X-Error-Code": "RevisionNotFound"})
        elif repo.gated and not public and token != "Bearer hf_accepted":
            self.refuse(403 if token else 401, **{"X-Error-Code": "GatedRepo"})
        else:
            return repo
        return None

    def info(self, name: str, revision: str) -> None:
        repo = self.find(name, revision, public=True)
        if repo is not None:
            siblings: list[dict[str, Any]] = []
            for path, data in repo.files.items():
                entry: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git_sha1(data)}
                if len(data) >= LFS_FROM:
                    entry["lfs"] = {"sha256": sha256(data), "size": len(data), "pointerSize": 135}
                siblings.append(entry)
            card = {"license": repo.licence} if repo.licence else {}
            self.send_json(
                {"id": name, "sha": repo.commit, "gated": repo.gated, "cardData": card, "siblings": siblings}
            )

    def search(self, query: dict[str, list[str]]) -> None:
        text = query["search"][0].lower()
        found = [name for name in self.server.repos if text in name.lower()]
        entries = [{"id": name, "downloads": 10 + i, "likes": i, "gated": False} for i, name in enumerate(found)]
        self.send_json(entries[: int(query["limit"][0])])

    def file(self, name: str, revision: str, path: str, *, direct: bool = False) -> None:
        repo = self.find(name, revision)
        if repo is None:
            return
        if path not in repo.files:
            self.refuse(404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repo.commit})
            return
        data = repo.files[path]
        large = len(data) >= LFS_FROM
        etag = repo.etags.get(path) or (sha256(data) if large else git_sha1(data))
        known = {"X-Repo-Commit": repo.commit, "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(data))}
        if large:
            self.send_head(302, {**known, "Location": f"{self.server.cdn}/cdn/{name}/{path}?signed=1"}, 0)
        elif not direct:
            place = f"/api/resolve-cache/models/{name}/{repo.commit}/{path}"
            self.send_head(307, {"X-Repo-Commit": repo.commit, "Location": place}, 0)
        else:
            self.send_body(data, {"X-Repo-Commit": repo.commit, "ETag": f'"{etag}"'})

    def blob(self, name: str, path: str) -> None:
        self.send_body(self.server.repos[name].files[path], {"ETag": '"of-the-store"'})

    def send_body(self, data: bytes, headers: dict[str, str]) -> None:
        """The file or the part that was asked for."""
        fault = self.fault or Fault("")
        data = data if fault.body is None else fault.body
        wanted = self.headers.get("range")
        start, stop, status = 0, len(data), 200
        if wanted and not fault.ignore_range:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop, status = int(first), min(len(data), int(last or len(data)) + 1), 206
            if start >= len(data):
                self.refuse(416, **{"Content-Range": f"bytes */{len(data)}"})
                return
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        self.send_head(status, headers, None if fault.chunked else stop - start)
        if self.command == "GET":
            self.stream(data[start:stop], fault)

    def stream(self, data: bytes, fault: Fault) -> None:
        limit = len(data) if fault.drop_after is None else min(len(data), fault.drop_after)
        for chunk in _chunks(data[:limit], fault.rate):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if fault.chunked else chunk)
            self.server.sent += len(chunk)
        if fault.drop_after is not None and fault.drop_after <= len(data):
            self.close_connection = True
        elif fault.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def send_json(self, value: object) -> None:
        self.send_body(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, **headers: str) -> None:
        self.send_head(status, headers, 0)

    def send_head(self, status: int, headers: dict[str, str], length: int | None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        self.end_headers()


def _chunks(data: bytes, rate: float | None) -> Iterator[bytes]:
    size = CHUNK if rate is None else max(1, min(CHUNK, int(rate / 50)))
    for at in range(0, len(data), size):
        yield data[at : at + size]
        if rate is not None:
            time.sleep(size / rate)
