"""The servers behind a front, as they are typed: parsed, and checked against the front's own address.

upstream_urls(["http://box1:11435,http://box2:11435"])  ->  ["http://box1:11435", "http://box2:11435"]
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

from edgellm.errors import UsageError
from edgellm.serve.options import LOOPBACK, ServeOptions

MOST_UPSTREAMS = 256
HINT = "--upstreams http://box1:11435,http://box2:11435"
PORTS = {"http": 80, "https": 443}


def upstream_urls(given: Iterable[str]) -> list[str]:
    """The addresses in texts that may hold several, with commas; the end of one may be that of OpenAI's API, /v1.

    Raises:
        UsageError: one is no address of HTTP, stands twice, or has a key in it.
    """
    urls = [_normal(each) for text in given for each in re.split(r"[,\s]+", text) if each]
    if not urls:
        raise UsageError("--upstreams names no server", hint=HINT)
    if len(urls) > MOST_UPSTREAMS:
        why = f"at most {MOST_UPSTREAMS} are watched"
        raise UsageError(f"--upstreams names {len(urls)} servers", why=why, hint=HINT)
    twice = next((url for url in urls if urls.count(url) > 1), None)
    if twice:
        raise UsageError(f"--upstreams names {twice} twice", hint="leave one out")
    return urls


def refuse_self(urls: Sequence[str], options: ServeOptions) -> None:
    """Refuse an upstream that is the front itself; what only leads back to it is found when it is asked.

    Raises:
        UsageError: it is.
    """
    for url in urls:
        parts = urlsplit(url)
        if parts.port == options.port and _is_here(parts.hostname or "", options):
            why = "it would ask itself"
            raise UsageError(f"the upstream {url} is this server", why=why, hint="another --port for this server")


def _normal(text: str) -> str:
    plain = text.rstrip("/").removesuffix("/v1").rstrip("/")
    try:
        parts = urlsplit(plain)
        port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
        is_whole = bool(parts.scheme in PORTS and parts.hostname and port)
    except ValueError:
        is_whole = False
    if is_whole and (parts.username or parts.password):
        raise UsageError("an upstream has a key in its address", why="it would be printed", hint="--upstream-key KEY")
    if not is_whole or parts.path or parts.query or parts.fragment:
        raise UsageError(f"--upstreams {text!r:.80} is no server", hint=HINT)
    host = (parts.hostname or "").lower()
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _is_here(host: str, options: ServeOptions) -> bool:
    """Whether a host is where the front listens."""
    everywhere = options.host in ("0.0.0.0", "::")  # noqa: S104, only compared
    if host == options.host or (host in LOOPBACK and (options.is_local or everywhere)):
        return True
    return everywhere and host in (socket.gethostname().lower(), "0.0.0.0", "::")  # noqa: S104, only compared
