"""`edgellm worker --via`: a tunnel through a real sshd, alone and between hosts that are network namespaces."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.commands.ssh_server import SshServer, is_open, missing
from tests.engine.rpc.workers import WorkerProcess, free_port

pytestmark = [pytest.mark.engine, pytest.mark.skipif(bool(missing()), reason=missing())]

PORT = 7531


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[SshServer]:
    directory = tmp_path / "ssh"
    directory.mkdir()
    with SshServer(directory, port=free_port()) as server:
        yield server


def closes(port: int) -> bool:
    """Whether nothing listens there any more, soon."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if not is_open("127.0.0.1", port):
            return True
        time.sleep(0.1)
    return False


def test_the_tunnel_is_there_with_the_worker_and_gone_with_it(with_engine: Settings, ssh: SshServer) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        port = free_port()
        with WorkerProcess(*ssh.arguments, "--port", str(port)) as worker:
            assert worker.address == f"127.0.0.1:{port}"
            fit = data(edgellm("fit", "smollm2", "-c", "256", "--workers", worker.address, "--json"))
            assert [each["machine"] for each in fit["machines"]] == ["here", worker.address]
            worker.process.send_signal(number)
            assert closes(port)


@pytest.mark.soak
def test_a_tunnel_that_ends_or_cannot_be_opened_is_one_clear_error(
    with_engine: Settings, ssh: SshServer, tmp_path: Path
) -> None:
    with WorkerProcess(*ssh.arguments, "--port", str(free_port())) as first:
        port = first.address.rpartition(":")[2]
        taken = edgellm("worker", *ssh.arguments, "--port", port, "--json")  # by the first one
        assert taken.returncode == 4 and "forwarding failed" in error(taken)["why"]
        ssh.cut()
        _, said = first.process.communicate(timeout=60)
        assert first.process.returncode == 4
        assert json.loads(said)["error"]["what"] == f"the tunnel to {ssh.destination} ended"
    nobody = edgellm("worker", "--via", "nobody@127.0.0.1", "--ssh-option", f"Port={free_port()}", "--json")
    assert nobody.returncode == 4 and "cannot be opened" in error(nobody)["what"]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Hosts:
    """Namespaces: `main` has a link to each of two workers, and a stranger one to the first worker and to main."""

    LINKS = (("main", "first", 1), ("main", "second", 2), ("main", "other", 3), ("first", "other", 4))

    def __init__(self) -> None:
        self._prefix = f"e{os.getpid() % 10000}"
        self.names = {name: f"{self._prefix}{name}" for name in ("main", "first", "second", "other")}

    def __enter__(self) -> "Hosts":
        try:
            for name in self.names.values():
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            for left, right, number in self.LINKS:
                ends = [f"{self._prefix}v{number}{side}" for side in "ab"]
                ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
                for host, end, last in ((left, ends[0], 1), (right, ends[1], 2)):
                    ip("link", "set", end, "netns", self.names[host])
                    ip("-n", self.names[host], "addr", "add", f"10.77.{number}.{last}/24", "dev", end)
                    ip("-n", self.names[host], "link", "set", end, "up")
        except (OSError, subprocess.CalledProcessError):
            self.__exit__()
            pytest.skip("no network namespaces here: they need Linux, root and iproute2")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def on(self, host: str) -> list[str]:
        return ["ip", "netns", "exec", self.names[host]]

    def cut(self, number: int) -> None:
        ip("-n", self.names["main"], "link", "set", f"{self._prefix}v{number}a", "down")

    def reaches(self, host: str, address: str, port: int) -> bool:
        code = f"import socket; socket.create_connection(({address!r}, {port}), 5)"
        done = subprocess.run([*self.on(host), sys.executable, "-c", code], check=False, capture_output=True)
        return done.returncode == 0


@pytest.mark.soak
@pytest.mark.model
def test_hosts_of_their_own_behind_tunnels(with_engine: Settings, tmp_path: Path) -> None:
    """The same greedy text, no way in for a third party, and one error within seconds when a link is cut."""
    question = "Write a very long story about the sea, with many chapters."
    run = [sys.executable, "-m", "edgellm", "run", "smollm2", question, "--temp", "0", "-c", "1024", "-t", "1", "-q"]
    with Hosts() as hosts:
        servers, workers = [], []
        for number, host in enumerate(("first", "second"), start=1):
            directory = tmp_path / host
            directory.mkdir()
            server = SshServer(directory, host=f"10.77.{number}.1", port=2200, within=hosts.on("main"))
            servers.append(server)
            port = str(PORT + number)
            workers.append(WorkerProcess(*server.arguments, "--port", port, within=hosts.on(host)))
        try:
            both = ["--workers", ",".join(worker.address for worker in workers)]
            shared, alone = (
                subprocess.run([*hosts.on("main"), *run, "-n", "64", *more], capture_output=True, text=True, check=True)
                for more in (both, ["--draft", "off"])
            )
            assert shared.stdout == alone.stdout
            for address in ("10.77.3.1", "10.77.4.1"):  # main and the first worker, seen by the stranger
                assert not any(hosts.reaches("other", address, PORT + number) for number in range(3))
            assert hosts.reaches("main", "127.0.0.1", PORT + 1)
            process = subprocess.Popen(
                [*hosts.on("main"), *run, "-n", "900", "--no-loop-guard", *both],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert process.stdout is not None and process.stdout.read(10)
            hosts.cut(2)
            begin = time.monotonic()
            _, said = process.communicate(timeout=60)
            assert process.returncode == 4
            assert said.startswith(f"error: the worker at {workers[1].address} is lost")
            assert time.monotonic() - begin < 20  # 10 s, and as much again for a busy machine
            _, ended = workers[1].process.communicate(timeout=60)  # its tunnel is gone too, and it says so
            assert json.loads(ended)["error"]["code"] == "network"
        finally:
            for worker in workers:
                worker.__exit__()
            for server in servers:
                server.__exit__()
