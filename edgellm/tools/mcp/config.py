"""The servers of an `mcp.json`, a file of the shape that other programs use.

    servers = read_servers(Path("mcp.json"), os.environ)
    servers[0].name, servers[0].command

    {"mcpServers": {"files": {"command": "npx", "args": ["-y", "@modelcontextprotocol/server-filesystem", "/data"]},
                    "notes": {"url": "https://notes.example/mcp", "headers": {"Authorization": "Bearer ${NOTES_KEY}"}}}}

A server that is written wrong has a `fault`, and the others still work. What other programs let a file permit
(`autoApprove`, `alwaysAllow`, `trust`) permits nothing here: the user is asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgellm.errors import ConfigInvalid
from edgellm.text import read_text

FILE_NAME = "mcp.json"
# The key of the servers: that of most programs, and that of VS Code.
KEYS = ("mcpServers", "servers")
MOST_SERVERS = 64
MOST_BYTES = 1 << 20
# A first start by npx or uvx downloads the server.
START_SECONDS, CALL_SECONDS = 60.0, 60.0
MOST_SECONDS = 3600.0
HTTP_TYPES = ("http", "streamable-http", "streamableHttp", "streamable_http")
FIELDS = frozenset(
    {
        "type", "command", "args", "env", "cwd", "url", "headers", "timeout", "startup_timeout_sec", "tool_timeout_sec",
        "disabled", "enabled", "includeTools", "excludeTools", "enabled_tools", "disabled_tools",
    }
)  # fmt: skip
# They only describe a server.
REMARKS = frozenset({"description", "name", "title", "icon", "version", "gallery"})
# ${NAME}, ${NAME:-value} and ${env:NAME}.
VARIABLE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server: a `command` with `args`, or a `url`; times are seconds.

    `fault` says what is wrong with it; then it is never started. `notes` name what of its entry is not honoured.
    `only` are the tools to take, None for all; `without` are not taken.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    start_seconds: float = START_SECONDS
    call_seconds: float = CALL_SECONDS
    is_disabled: bool = False
    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    fault: str = ""
    notes: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where it is: its program, or its address without user, query and fragment."""
        if not self.url:
            return Path(self.command).name
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def takes(self, tool: str) -> bool:
        """Whether a tool of it is to be offered."""
        return tool not in self.without and (self.only is None or tool in self.only)


class _Wrong(Exception):
    """An entry is wrong."""


def read_servers(path: Path, environ: Mapping[str, str]) -> tuple[ServerConfig, ...]:
    """The servers of a file, in its order; variables are replaced from `environ`.

    Raises:
        FileAccessError, UsageError: the file cannot be read, is too large or no text.
        ConfigInvalid: it is not JSON, or has no servers.
    """
    try:
        document = json.loads(read_text(path, limit=MOST_BYTES))
    except (ValueError, RecursionError) as error:
        raise ConfigInvalid(f"{path} is not JSON", why=str(error)[:200], hint=f"mend {path}") from error
    servers = _servers(document)
    if servers is None:
        example = '{"mcpServers": {"time": {"command": "uvx", "args": ["mcp-server-time"]}}}'
        raise ConfigInvalid(f"{path} names no MCP servers", why="it has no object mcpServers", hint=example)
    if len(servers) > MOST_SERVERS:
        raise ConfigInvalid(f"{path} has {len(servers)} servers", why=f"{MOST_SERVERS} are the most")
    return tuple(server_of(name, entry, environ) for name, entry in servers.items())


def server_of(name: str, entry: Any, environ: Mapping[str, str]) -> ServerConfig:
    """One entry as a server; what is wrong with it becomes its `fault`."""
    shown = "".join(each if each.isprintable() else "?" for each in name)[:60]
    try:
        return _server(shown, entry, environ)
    except _Wrong as wrong:
        return ServerConfig(shown, fault=str(wrong))


def _servers(document: Any) -> Mapping[str, Any] | None:
    if not isinstance(document, dict):
        return None
    return next((document[key] for key in KEYS if isinstance(document.get(key), dict)), None)


def _server(name: str, entry: Any, environ: Mapping[str, str]) -> ServerConfig:
    if not isinstance(entry, dict):
        raise _Wrong("it is no object")
    if not re.search(r"[A-Za-z0-9]", name):
        raise _Wrong("its name has neither letters nor digits")
    if _flag(entry, "disabled") or not _flag(entry, "enabled", usual=True):
        return ServerConfig(name, is_disabled=True)
    common = ServerConfig(
        name,
        start_seconds=_seconds(entry, "startup_timeout_sec", START_SECONDS),
        call_seconds=_seconds(entry, "tool_timeout_sec", _timeout(entry)),
        only=_names(entry, "includeTools", "enabled_tools"),
        without=_names(entry, "excludeTools", "disabled_tools") or frozenset(),
        notes=tuple(_notes(entry)),
    )
    kind = entry.get("type")
    if kind not in (None, "stdio", *HTTP_TYPES):
        raise _Wrong(f"its type {str(kind)[:40]!r} is not supported; known are stdio and http")
    if ("url" in entry) == ("command" in entry):
        raise _Wrong("it needs a command or a url" + (", not both" if "url" in entry else ""))
    if "url" in entry:
        url = _expanded(_text(entry["url"], "url"), environ)
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise _Wrong("its url does not begin with http:// or https://")
        return replace(common, url=url, headers=_mapping(entry, "headers", environ))
    arguments = entry.get("args", [])
    if not isinstance(arguments, list):
        raise _Wrong("args is no list")
    command = _expanded(_text(entry["command"], "command"), environ)
    args = tuple(_expanded(_text(each, "args", may_be_empty=True), environ) for each in arguments)
    cwd = _expanded(_text(entry["cwd"], "cwd"), environ) if entry.get("cwd") is not None else None
    return replace(common, command=command, args=args, env=_mapping(entry, "env", environ), cwd=cwd)


def _notes(entry: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(entry.keys() - FIELDS - REMARKS):
        yield f"{name[:40]!r} is not honoured"


def _text(value: Any, name: str, *, may_be_empty: bool = False) -> str:
    if not isinstance(value, str) or not (value or may_be_empty) or "\0" in value:
        raise _Wrong(f"{name} is no text")
    return value


def _flag(entry: Mapping[str, Any], name: str, *, usual: bool = False) -> bool:
    value = entry.get(name, usual)
    if not isinstance(value, bool):
        raise _Wrong(f"{name} is neither true nor false")
    return value


def _timeout(entry: Mapping[str, Any]) -> float:
    """`timeout` is seconds in some programs and milliseconds in others; nobody means less than a second."""
    value = _seconds(entry, "timeout", CALL_SECONDS, most=MOST_SECONDS * 1000)
    return value / 1000 if value >= 1000 else value


def _seconds(entry: Mapping[str, Any], name: str, usual: float, *, most: float = MOST_SECONDS) -> float:
    value = entry.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise _Wrong(f"{name} is not between 0 and {most:g}")
    return float(value)


def _names(entry: Mapping[str, Any], *keys: str) -> frozenset[str] | None:
    for key in keys:
        if key in entry:
            value = entry[key]
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise _Wrong(f"{key} is no list of names")
            return frozenset(value)
    return None


def _mapping(entry: Mapping[str, Any], name: str, environ: Mapping[str, str]) -> dict[str, str]:
    value = entry.get(name) or {}
    if not isinstance(value, dict):
        raise _Wrong(f"{name} is no object")
    return {
        key: _expanded(_text(each, f"{name}.{key[:40]}", may_be_empty=True), environ) for key, each in value.items()
    }


def _expanded(text: str, environ: Mapping[str, str]) -> str:
    """The text with its variables replaced."""

    def value(found: re.Match[str]) -> str:
        name, usual = found[1], found[2]
        known = environ.get(name)
        if known or (known is not None and usual is None):
            return known
        if usual is None:
            raise _Wrong(f"the environment has no {name}; export it, or write ${{{name}:-VALUE}}")
        return usual

    expanded = VARIABLE.sub(value, text)
    if "${input:" in text:
        raise _Wrong("${input:...} cannot be asked for here; use an environment variable")
    return expanded
