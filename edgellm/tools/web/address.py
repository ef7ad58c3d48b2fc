"""Which addresses a tool may connect to: public ones, unless the user's own configuration names another.

    endpoint = resolve("https://example.com/page", private=False)
    endpoint.addresses         # the checked IP addresses; the connection goes to one of these and to no other

A name is resolved once. What was checked is what is connected to, so a name that changes its address in between (DNS
rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from edgellm.errors import NetworkError

MOST_URL = 4_096
PORTS = {"http": 80, "https": 443}
# Addresses that stand for IPv4 ones: IPv4-mapped, NAT64 and its local form.
_NAT64 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48"))
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A URL in parts, and the addresses of its host that were checked, in the order of the resolver."""

    scheme: str
    host: str
    port: int
    target: str
    addresses: tuple[str, ...]

    @property
    def url(self) -> str:
        """The URL, as it is shown."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


def resolve(url: str, *, private: bool) -> Endpoint:
    """The endpoint of a URL; with `private` any address may be behind it.

    Raises:
        NetworkError: it is no http or https URL, its host is unknown, or its address is not public.
    """
    parts, port = _parts(url)
    host = (parts.hostname or "").rstrip(".")
    try:
        host = host.encode("idna").decode() if not host.isascii() else host
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NetworkError(f"the host {host[:100]!r} is not known", why=reason, hint="check the address") from error
    addresses = tuple(dict.fromkeys(str(each[4][0]) for each in found))
    if not private and (inner := next((each for each in addresses if not is_public(each)), None)):
        why = f"{host[:100]} is {inner}, on this machine or a private network"
        raise NetworkError("the address is not public", why=why, hint="only public pages can be read")
    target = urlunsplit(("", "", _quoted(parts.path) or "/", _quoted(parts.query), ""))
    return Endpoint(parts.scheme, host, port, target, addresses)


def _parts(url: str) -> tuple[SplitResult, int]:
    if len(url) > MOST_URL:
        raise NetworkError("the address is too long", why=f"more than {MOST_URL:,} characters")
    try:
        parts = urlsplit(url.strip())
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise NetworkError(f"{url[:100]!r} is no address of a page", why=str(error)) from error
    if parts.scheme not in PORTS or not parts.hostname:
        raise NetworkError(f"{url[:100]!r} is no address of a page", why="it begins with http:// or https://")
    if parts.username is not None or parts.password is not None:
        raise NetworkError("the address has a user name or a password in it", why="these are never sent")
    return parts, port


def _quoted(part: str) -> str:
    """A part of a URL in ASCII without spaces and control characters, so that no header can be smuggled in."""
    return "".join(
        each if "!" <= each <= "~" else "".join(f"%{byte:02X}" for byte in each.encode("utf-8", "replace"))
        for each in part
    )


def is_public(address: str) -> bool:
    """Whether an address, and every one that it stands for, is reachable by everybody."""
    ip: Address = ipaddress.ip_address(address.partition("%")[0])
    return all(each.is_global and not (each.is_multicast or each.is_reserved) for each in (ip, *_within(ip)))


def _within(ip: Address) -> list[Address]:
    """The IPv4 addresses inside an IPv6 one."""
    if not isinstance(ip, ipaddress.IPv6Address):
        return []
    found: list[Address | None] = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
    if any(ip in network for network in _NAT64) or int(ip) >> 32 == 0:
        found.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
