"""Which addresses somebody else may make us connect to: hosts that the user named, or any public address.

hosts = McpHosts.of(["notes.example", "127.0.0.1:9000", "public"])
hosts.check("https://notes.example/mcp", "notes")

A name is looked up once, and the connection goes to the address that was checked: a name whose answer changes between
the two would lead inside.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgellm.errors import BadRequest, NetworkError, UsageError
from edgellm.tools.web.address import is_public

if TYPE_CHECKING:
    import httpx2

PUBLIC = "public"


class AddressRefused(BadRequest):
    """An address is not one that we may be made to connect to."""

    code = "address-refused"


@dataclass(frozen=True, slots=True)
class McpHosts:
    """`named` hosts, with a port or for all ports, and whether every public address is permitted."""

    named: frozenset[str] = frozenset()
    public: bool = False

    @classmethod
    def of(cls, hosts: Iterable[str]) -> McpHosts:
        """From the words of `--mcp-host`.

        Raises:
            UsageError: a word is a whole URL, or empty.
        """
        words = [word.strip().lower() for word in hosts]
        for word in words:
            if not word or "/" in word or "@" in word:
                raise UsageError(f"{word!r} is no host", why="HOST or HOST:PORT is needed, or the word public")
        return cls(frozenset(words) - {PUBLIC}, PUBLIC in words)

    def check(self, url: str, label: str) -> None:
        """Raise `AddressRefused` for an address that is not permitted; names are looked up when connecting."""
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if parts.scheme not in ("http", "https") or not host:
            raise AddressRefused(f"server_url of {label[:64]} is no http or https address")
        if self._is_named(host, port or (443 if parts.scheme == "https" else 80)):
            return
        if not self.public:
            what = f"this server does not connect to {host[:100]} for its clients"
            raise AddressRefused(what, why="edgellm serve --mcp-host permits it")
        if _is_literal(host):
            _require_public(host, host)

    def transport(self) -> httpx2.AsyncBaseTransport:
        """What connects to permitted addresses only."""
        from edgellm.tools.mcp.address import CheckedTransport

        return CheckedTransport(self.checked)

    async def checked(self, host: str, port: int) -> str:
        """The address to connect to for a host; raises as `check` does, and NetworkError without one."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NetworkError(f"there is no host {host[:100]}", why=str(error)) from error
        addresses = [str(each[4][0]) for each in found]
        if not addresses:
            raise NetworkError(f"there is no host {host[:100]}")
        if not self._is_named(host, port):
            for address in addresses:
                _require_public(address, host)
        return addresses[0]

    def _is_named(self, host: str, port: int) -> bool:
        shown = f"[{host}]" if ":" in host else host
        return bool({host.lower(), shown.lower(), f"{shown.lower()}:{port}"} & self.named)


def _is_literal(host: str) -> bool:
    """Whether a host is an address already."""
    try:
        socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)
    except OSError:
        return False
    return True


def _require_public(address: str, host: str) -> None:
    if not is_public(address):
        raise AddressRefused(f"{host[:100]} is no public address", why=f"it is {address}")
