"""The servers that run on this machine: a small file for each, from when it is ready until it ends.

servers = running(settings.servers)
ask(servers[0], key)["models"]

A record names the process and when it began, so that a process id given again to another program is not taken for
it; it names the workers too, which outlive a front that is killed where the system cannot end them with it. Keys are
never in it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgellm.errors import EdgellmError, UsageError
from edgellm.files import write_atomically
from edgellm.machine.process import Identity, identify
from edgellm.serve.options import ServeOptions
from edgellm.suggest import did_you_mean

ASK_SECONDS = 5.0
MOST_STATUS = 4 << 20
WORKER_SECONDS = 5.0
# What the front takes after its drain time to end its workers and itself.
SPARE_SECONDS = 10.0


class ServerNotFound(EdgellmError):
    """No such server runs here."""

    code = "server-not-found"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server as its record tells of it; `drain_seconds` is how long it lets answers end."""

    process: Identity
    url: str
    host: str
    port: int
    models: tuple[str, ...]
    needs_key: bool
    drain_seconds: float
    workers: tuple[Identity, ...] = ()

    @property
    def orphans(self) -> list[Identity]:
        """Workers whose front is gone."""
        return [] if self.process.is_alive else [worker for worker in self.workers if worker.is_alive]


@dataclass(slots=True)
class Record:
    """A server's own record, in `directory`; where that cannot be written, `ps` does not know the server."""

    directory: Path
    server: RunningServer
    _written: bool = field(default=False)

    @classmethod
    def of(cls, directory: Path, options: ServeOptions, models: tuple[str, ...]) -> Record:
        """The record of this process, not yet written."""
        me = identify(os.getpid()) or Identity(os.getpid(), 0.0)
        server = RunningServer(
            me, options.url, options.host, options.port, models, bool(options.api_keys), options.drain_seconds
        )
        return cls(directory, server)

    def write(self) -> None:
        """Make it known."""
        with contextlib.suppress(OSError):
            write_atomically(self._path, json.dumps(asdict(self.server)).encode())
            self._written = True

    def add_worker(self, pid: int) -> None:
        """Another worker; those that are gone are forgotten."""
        worker = identify(pid)
        alive = [each for each in self.server.workers if each.is_alive]
        self.server = replace(self.server, workers=(*alive, *([worker] if worker else [])))
        if self._written:
            self.write()

    def remove(self) -> None:
        """The server ends."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.directory / f"{self.server.process.pid}.json"


def running(directory: Path) -> list[RunningServer]:
    """The servers that live, by port; records of dead ones that left nothing behind are removed."""
    return sorted((server for _, server in _records(directory) if server.process.is_alive), key=lambda each: each.port)


def abandoned(directory: Path) -> list[RunningServer]:
    """Servers that are gone and whose workers are not."""
    return [server for _, server in _records(directory) if server.orphans]


def find(servers: list[RunningServer], port: int | None) -> RunningServer:
    """The server at a port, or the only one.

    Raises:
        ServerNotFound: there is none, or none at that port.
        UsageError: there are several, and no port was named.
    """
    if not servers:
        raise ServerNotFound("no server is running", hint="edgellm serve")
    ports = [str(server.port) for server in servers]
    if port is None:
        if len(servers) > 1:
            what = f"{len(servers)} servers are running, on ports {', '.join(ports)}"
            raise UsageError(what, hint=f"--port {ports[0]}")
        return servers[0]
    for server in servers:
        if server.port == port:
            return server
    nearest = did_you_mean(str(port), ports) or ports[0]
    raise ServerNotFound(
        f"no server is running on port {port}", why=f"there is one on {', '.join(ports)}", hint=f"--port {nearest}"
    )


def stop(directory: Path, server: RunningServer, grace: float | None = None) -> bool:
    """End a server, by force if it has not ended after `grace` seconds; whether it went in good order.

    Raises:
        PermissionError: it belongs to somebody else.
    """
    seconds = server.drain_seconds + SPARE_SECONDS if grace is None else grace
    # Those who live beyond their front are found by what is written here now: a worker may have been added.
    in_order = server.process.end(seconds)
    path = directory / f"{server.process.pid}.json"
    end_orphans(_read(path) or server)
    path.unlink(missing_ok=True)
    return in_order


def end_orphans(server: RunningServer) -> int:
    """End the workers that a server left behind; how many there were."""
    orphans = server.orphans
    for worker in orphans:
        worker.end(WORKER_SECONDS)
    return len(orphans)


def ask(server: RunningServer, key: str | None) -> dict[str, Any]:
    """What a server says of itself at /status.json.

    Raises:
        EdgellmError: it does not answer, or wants another key.
    """
    request = urllib.request.Request(f"{server.url}/status.json")  # noqa: S310, always http
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    # Never through a proxy: it is a process of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ASK_SECONDS) as reply:
            told = json.loads(reply.read(MOST_STATUS))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 401:
                raise EdgellmError("it needs a key", hint="EDGELLM_API_KEY=KEY edgellm ps") from None
        raise EdgellmError(f"it answers with status {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise EdgellmError("it does not answer", why=str(error)[:200]) from None
    if not isinstance(told, dict) or not isinstance(told.get("models"), list):
        raise EdgellmError("something else answers at its port")
    return told


def _records(directory: Path) -> Iterator[tuple[Path, RunningServer]]:
    with contextlib.suppress(OSError):
        for path in sorted(directory.glob("*.json")):
            server = _read(path)
            if server is None or not (server.process.is_alive or server.orphans):
                path.unlink(missing_ok=True)
            else:
                yield path, server


def _read(path: Path) -> RunningServer | None:
    """A record; None where it is damaged or gone."""
    try:
        data = json.loads(path.read_bytes())
        data["process"] = _identity(data["process"])
        data["workers"] = tuple(map(_identity, data["workers"]))
        data["models"] = tuple(map(str, data["models"]))
        data["port"], data["drain_seconds"] = int(data["port"]), float(data["drain_seconds"])
        if not str(data["url"]).startswith("http://"):
            return None
        return RunningServer(**data)
    except (OSError, ValueError, RecursionError, TypeError, KeyError, OverflowError):
        return None


def _identity(data: dict[str, Any]) -> Identity:
    return Identity(int(data["pid"]), float(data["started"]))
