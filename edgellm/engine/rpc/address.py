"""Where workers listen: `host:port`, as `--workers` has them.

parse_addresses("10.0.0.2:7531,[fe80::1]:7531")
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.errors import UsageError

DEFAULT_PORT = 7531
LOOPBACK = "127.0.0.1"
# As many as llama.cpp takes (GGML_RPC_MAX_SERVERS).
MOST_WORKERS = 16


@dataclass(frozen=True, slots=True)
class Address:
    """A host's name or number, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_addresses(text: str) -> tuple[Address, ...]:
    """Return the addresses in a list with commas; a port may be left out.

    Raises:
        UsageError: one of them is no address, stands there twice, or there are too many.
    """
    found = [_parse(word.strip()) for word in text.split(",")]
    if len(set(found)) < len(found):
        raise UsageError("--workers names a worker twice", hint="--workers HOST:PORT,HOST:PORT")
    if len(found) > MOST_WORKERS:
        raise UsageError(f"--workers names {len(found)} workers", why=f"{MOST_WORKERS} are the most")
    return tuple(found)


def _parse(text: str) -> Address:
    if text.startswith("[") and "]" in text:
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    port = port or str(DEFAULT_PORT)
    good = host and len(host) < 256 and host.isascii() and host.isprintable() and not set(host) & set(" /@[]")
    if not good or not (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65536):
        raise UsageError(f"--workers {text[:60]!r} is no address", hint=f"--workers 127.0.0.1:{DEFAULT_PORT}")
    return Address(host, int(port))
