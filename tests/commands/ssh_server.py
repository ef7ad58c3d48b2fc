"""A real sshd on a port of its own, with keys of its own, for tests of tunnels; `missing` says why there is none."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

START_SECONDS = 30


def missing() -> str:
    """Why no sshd can be started here; empty if one can."""
    absent = [name for name in ("ssh", "ssh-keygen", "sshd") if program(name) is None]
    if absent:
        return f"no {absent[0]} on this machine (openssh-server)"
    if os.geteuid() == 0 and not Path("/run/sshd").is_dir():
        return "no /run/sshd, where sshd of root lives"
    return ""


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class SshServer:
    """sshd at an address; `within` is put before the command, as `ip netns exec NAME`."""

    def __init__(self, directory: Path, *, host: str = "127.0.0.1", port: int, within: Sequence[str] = ()) -> None:
        for key in ("host", "user"):
            path = str(directory / key)
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        shutil.copy(directory / "user.pub", directory / "authorized")
        directory.chmod(0o700)
        config = directory / "config"
        config.write_text(
            f"ListenAddress {host}:{port}\nHostKey {directory / 'host'}\n"
            f"AuthorizedKeysFile {directory / 'authorized'}\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        )
        known = directory / "known"
        known.write_text(f"[{host}]:{port} {(directory / 'host.pub').read_text()}")
        self.destination = f"{getpass.getuser()}@{host}"
        options = (
            f"Port={port}", f"IdentityFile={directory / 'user'}", "IdentitiesOnly=yes", f"UserKnownHostsFile={known}",
            "StrictHostKeyChecking=yes",
        )  # fmt: skip
        # The arguments of `edgellm worker` that lead through it.
        self.arguments = ["--via", self.destination, *(word for each in options for word in ("--ssh-option", each))]
        command = [*within, str(program("sshd")), "-D", "-e", "-f", str(config)]
        self._log = (directory / "log").open("wb")
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self._log)
        end = time.monotonic() + START_SECONDS
        while b"Server listening" not in (directory / "log").read_bytes():
            assert self.process.poll() is None and time.monotonic() < end, (directory / "log").read_text()
            time.sleep(0.05)

    def cut(self) -> None:
        """Kill the processes of its connections."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            process.kill()

    def __enter__(self) -> "SshServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        self._log.close()


def is_open(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), 5).close()
    except OSError:
        return False
    return True
