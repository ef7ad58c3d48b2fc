"""The servers that run on this machine: each has a small file from when it is ready until it ends.

servers = running(settings.servers)
ask(servers[0], key)["models"]

A record has the process id and start time, so that another program with a reused id is not mistaken for the server. It
also lists the workers, which outlive a killed front where the system cannot end them with it. It never contains keys.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.errors import EdgellmError, UsageError
from edgellm.files import identity, write_atomically
from edgellm.machine.identity import Identity, identify
from edgellm.suggest import did_you_mean

if TYPE_CHECKING:
    from edgellm.serve.options import ServeOptions

ASK_SECONDS = 5.0
MOST_STATUS = 4 << 20
WORKER_SECONDS = 5.0
# What the front needs after its drain time, to stop its workers and itself.
SPARE_SECONDS = 10.0


class ServerNotFound(EdgellmError):
    """No such server runs here."""

    code = "server-not-found"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server as its record describes it; `drain_seconds` is how long it waits for answers under way.

    `files` are those of its models, by name, as `files.identity` describes them.
    """

    process: Identity
    url: str
    host: str
    port: int
    models: tuple[str, ...]
    needs_key: bool
    drain_seconds: float
    workers: tuple[Identity, ...] = ()
    files: Mapping[str, list[str | int]] = field(default_factory=dict)

    @property
    def orphans(self) -> list[Identity]:
        """Workers whose front is gone."""
        return [] if self.process.is_alive else [worker for worker in self.workers if worker.is_alive]


@dataclass(slots=True)
class Record:
    """A server's own record in `directory`; if it cannot be written, `ps` does not list the server."""

    directory: Path
    server: RunningServer
    _written: bool = field(default=False)

    @classmethod
    def of(
        cls, directory: Path, options: ServeOptions, models: tuple[str, ...], files: Mapping[str, Path] | None = None
    ) -> Record:
        """The record of this process, not yet written; `files` are those of its models."""
        me = identify(os.getpid()) or Identity(os.getpid(), 0.0)
        server = RunningServer(
            me,
            options.url,
            options.host,
            options.port,
            models,
            bool(options.api_keys),
            options.drain_seconds,
            files={name: [*identity(path)] for name, path in (files or {}).items()},
        )
        return cls(directory, server)

    def write(self) -> None:
        """Write the record."""
        with contextlib.suppress(OSError):
            write_atomically(self._path, json.dumps(asdict(self.server)).encode())
            self._written = True

    def add_worker(self, pid: int) -> None:
        """Add a worker; those that have ended are dropped."""
        worker = identify(pid)
        alive = [each for each in self.server.workers if each.is_alive]
        self.server = replace(self.server, workers=(*alive, *([worker] if worker else [])))
        if self._written:
            self.write()

    def remove(self) -> None:
        """Delete the record."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    @property
    def _path(self) -> Path:
        return self.directory / f"{self.server.process.pid}.json"


def running(directory: Path) -> list[RunningServer]:
    """The running servers by port; records of dead ones without orphans are deleted."""
    return sorted((server for _, server in _records(directory) if server.process.is_alive), key=lambda each: each.port)


def abandoned(directory: Path) -> list[RunningServer]:
    """Servers that died and left workers behind."""
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
    """Stop a server, by force after `grace` seconds; returns whether it stopped in good order.

    Raises:
        PermissionError: it belongs to somebody else.
    """
    seconds = server.drain_seconds + SPARE_SECONDS if grace is None else grace
    # Read the record again: a worker may have been added.
    in_order = server.process.end(seconds)
    path = directory / f"{server.process.pid}.json"
    end_orphans(_read(path) or server)
    path.unlink(missing_ok=True)
    return in_order


def end_orphans(server: RunningServer) -> int:
    """Stop the workers that a server left behind; returns how many there were."""
    orphans = server.orphans
    for worker in orphans:
        worker.end(WORKER_SECONDS)
    return len(orphans)


def ask(server: RunningServer, key: str | None) -> dict[str, Any]:
    """The status of a server of this machine; raises as `status_of_server` does."""
    return status_of_server(server.url, key)


def status_of_server(url: str, key: str | None) -> dict[str, Any]:
    """The status of the server at an address, from its /status.json.

    Raises:
        EdgellmError: it does not answer, or wants another key.
    """
    request = urllib.request.Request(f"{url}/status.json")  # noqa: S310, http or https
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    # Never through a proxy: most often it is a process of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=ASK_SECONDS) as reply:
            status = json.loads(reply.read(MOST_STATUS))
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 401:
                raise EdgellmError("it needs a key", hint="EDGELLM_API_KEY=KEY edgellm ps") from None
        raise EdgellmError(f"it answers with status {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise EdgellmError("it does not answer", why=str(error)[:200]) from None
    if not isinstance(status, dict) or not isinstance(status.get("models"), list):
        raise EdgellmError("something else answers at its port")
    return status


def _records(directory: Path) -> Iterator[tuple[Path, RunningServer]]:
    with contextlib.suppress(OSError):
        for path in sorted(directory.glob("*.json")):
            server = _read(path)
            if server is None or not (server.process.is_alive or server.orphans):
                path.unlink(missing_ok=True)
            else:
                yield path, server


def _read(path: Path) -> RunningServer | None:
    """A record; None if it is damaged or gone."""
    try:
        data = json.loads(path.read_bytes())
        data["process"] = _identity(data["process"])
        data["workers"] = tuple(map(_identity, data["workers"]))
        data["models"] = tuple(map(str, data["models"]))
        data["files"] = {str(name): list(found) for name, found in data.get("files", {}).items()}
        data["port"], data["drain_seconds"] = int(data["port"]), float(data["drain_seconds"])
        if not str(data["url"]).startswith("http://"):
            return None
        return RunningServer(**data)
    except (OSError, ValueError, RecursionError, TypeError, KeyError, OverflowError, AttributeError):
        return None


def _identity(data: dict[str, Any]) -> Identity:
    return Identity(int(data["pid"]), float(data["started"]))
