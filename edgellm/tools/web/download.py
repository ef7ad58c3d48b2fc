"""Downloads one page within limits of size, time and redirects, from checked addresses only.

    page = download("https://example.com/", DownloadLimits())
    page.url, page.media_type, page.text

Every redirect is checked like the first address. A body is unpacked piece by piece and dropped at the limit, so an
archive bomb costs no more than the limit. A watch closes the connection when the time is up, however slowly it drips.
"""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from email.message import Message as Headers
from urllib.parse import urljoin
from urllib.request import getproxies, proxy_bypass

from edgellm.errors import NetworkError
from edgellm.tools.web.address import Endpoint, resolve
from edgellm.version import __version__

AT_ONCE = 1 << 16
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """The most bytes of a body, packed and unpacked, seconds of everything together, and redirects.

    `private` permits addresses of this machine and of private networks; only for what the user configured.
    """

    size: int = 4 << 20
    seconds: float = 20.0
    redirects: int = 5
    private: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """What was downloaded; `is_cut` says whether the body was longer than the limit."""

    url: str
    media_type: str
    charset: str | None
    body: bytes
    is_cut: bool

    @property
    def text(self) -> str:
        """The body as text."""
        for charset in (self.charset, "utf-8", "cp1252"):
            try:
                return self.body.decode(charset or "utf-8", "strict" if not self.is_cut else "ignore")
            except (UnicodeDecodeError, LookupError):
                continue
        return self.body.decode("latin-1")


USUAL_DOWNLOAD = DownloadLimits()


def download(url: str, limits: DownloadLimits = USUAL_DOWNLOAD, headers: Mapping[str, str] | None = None) -> Page:
    """Download a page.

    Raises:
        NetworkError: it cannot be reached, is refused, takes too long, or its address is not public.
    """
    ends = time.monotonic() + limits.seconds
    for _ in range(limits.redirects + 1):
        endpoint = resolve(url, private=limits.private)
        _refuse_proxy(endpoint)
        answer = _Exchange(endpoint, ends, limits).run(headers or {})
        if isinstance(answer, Page):
            return answer
        url = urljoin(endpoint.url, answer)
    raise NetworkError("there are too many redirects", why=f"more than {limits.redirects}")


def _refuse_proxy(endpoint: Endpoint) -> None:
    """A proxy would look the name up itself, and then nothing that was checked here holds."""
    proxies = getproxies()
    proxy = proxies.get(endpoint.scheme) or proxies.get("all")
    if proxy and not proxy_bypass(endpoint.host) and not all(map(_is_own, endpoint.addresses)):
        hint = f"NO_PROXY={endpoint.host} if it can be reached directly"
        raise NetworkError(
            "tools do not use the proxy of the environment", why="it hides what is connected to", hint=hint
        )


def _is_own(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


class _Exchange:
    """One request to one endpoint."""

    def __init__(self, endpoint: Endpoint, ends: float, limits: DownloadLimits) -> None:
        self._endpoint, self._ends, self._limits = endpoint, ends, limits
        self._socket: socket.socket | None = None
        self._is_late = False

    def run(self, headers: Mapping[str, str]) -> Page | str:
        """The page, or the address of a redirect."""
        watch = threading.Timer(max(0.0, self._ends - time.monotonic()), self._expire)
        watch.daemon = True
        watch.start()
        try:
            return self._exchange(headers)
        except (OSError, http.client.HTTPException, ValueError, zlib.error) as error:
            host = self._endpoint.host
            if self._is_late or isinstance(error, TimeoutError):
                why = f"more than {self._limits.seconds:g} s"
                raise NetworkError(f"{host} takes too long", why=why) from error
            why = str(error) or type(error).__name__
            raise NetworkError(f"{host} cannot be read", why=f"{type(error).__name__}: {why}"[:200]) from error
        finally:
            watch.cancel()
            if self._socket is not None:
                self._socket.close()

    def _expire(self) -> None:
        """The time is up: whoever reads from the socket gets an error."""
        self._is_late = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._socket.close()

    def _connect(self) -> socket.socket:
        """Connect to one of the addresses that were checked."""
        error: OSError = OSError("no address")
        for address in self._endpoint.addresses:
            left = self._ends - time.monotonic()
            if left <= 0:
                raise TimeoutError
            try:
                return socket.create_connection((address, self._endpoint.port), timeout=left)
            except OSError as failure:
                error = failure
        raise error

    def _exchange(self, headers: Mapping[str, str]) -> Page | str:
        endpoint = self._endpoint
        self._socket = self._connect()
        if endpoint.scheme == "https":
            self._socket = _tls().wrap_socket(self._socket, server_hostname=endpoint.host)
        connection = http.client.HTTPConnection(endpoint.host, endpoint.port)
        connection.sock = self._socket
        with closing(connection):
            return self._answer(connection, headers)

    def _answer(self, connection: http.client.HTTPConnection, headers: Mapping[str, str]) -> Page | str:
        endpoint = self._endpoint
        usual = {
            "User-Agent": f"edgellm/{__version__}",
            "Accept": "text/html, text/plain, application/json;q=0.9, */*;q=0.5",
            "Accept-Encoding": "gzip",
            "Connection": "close",
        }
        connection.request("GET", endpoint.target, headers={**usual, **headers})
        with closing(connection.getresponse()) as response:
            return self._read(response)

    def _read(self, response: http.client.HTTPResponse) -> Page | str:
        endpoint = self._endpoint
        if response.status in REDIRECTS and (target := response.headers.get("Location")):
            return target
        if response.status >= 400:
            reason = f"{response.status} {response.reason}"[:100]
            raise NetworkError(f"{endpoint.host} refuses the page", why=reason)
        body, is_cut = self._body(response)
        media = Headers()
        media["Content-Type"] = response.headers.get("Content-Type") or "text/html"
        return Page(endpoint.url, media.get_content_type(), media.get_content_charset(), body, is_cut)

    def _body(self, response: http.client.HTTPResponse) -> tuple[bytes, bool]:
        """The unpacked body up to the limit, and whether there was more."""
        packing = (response.headers.get("Content-Encoding") or "identity").strip().lower()
        if packing not in ("identity", "gzip", "x-gzip", "deflate"):
            raise ValueError(f"the body is packed with {packing[:40]}")
        unpack = None if packing == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 32)
        most, found, n_read = self._limits.size, bytearray(), 0
        while n_read <= most and len(found) <= most:
            if self._is_late:
                raise TimeoutError
            if not (piece := response.read1(AT_ONCE)):
                break
            n_read += len(piece)
            found += unpack.decompress(piece, most + 1 - len(found)) if unpack else piece
        return bytes(found[:most]), len(found) > most or n_read > most


def _tls() -> ssl.SSLContext:
    """The system's certificates, or those that the environment names."""
    return ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or None)
