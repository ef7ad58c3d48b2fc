"""An SSH tunnel: a port of the loopback of another machine leads to the worker on this one.

    with Tunnel("ada@main.example", remote_port=7531, local_port=40123) as tunnel:
        tunnel.wait()  # until ssh ends

ssh checks who is who and encrypts; it asks for what it needs on the terminal. It ends with this process, even when that
is killed (on Linux), and ends by itself when nothing comes from the other machine for a few seconds.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType

from edgellm.engine.rpc.address import LOOPBACK
from edgellm.errors import NetworkError, ToolMissing, UsageError
from edgellm.machine.child import tethered

# ssh prints it once it is connected.
READY = "edgellm-tunnel-is-ready"
GRACE_SECONDS = 3.0
# A user's name and a host, or a host of ~/.ssh/config; nothing that ssh would take for an option.
_DESTINATION = re.compile(r"[A-Za-z0-9_][\w.+-]*(?:@[A-Za-z0-9_\[][\w.:\[\]-]*)?")


class Tunnel:
    """A running ssh. `options` are more of its own options, as in `-p 2222`."""

    def __init__(self, destination: str, *, remote_port: int, local_port: int, options: Sequence[str] = ()) -> None:
        """Connect.

        Raises:
            UsageError: it is no destination. ToolMissing: there is no ssh.
            NetworkError: ssh does not connect, or the port there is taken; `why` has what it says.
        """
        if not _DESTINATION.fullmatch(destination):
            raise UsageError(f"--via {destination[:60]!r} is no user@host", hint="--via ada@main.example")
        ssh = shutil.which("ssh")
        if ssh is None:
            raise ToolMissing("ssh is not installed", why="it is the tunnel", hint="install the package openssh-client")
        self.destination = destination
        command = [ssh, "-N", "-T", "-R", f"{LOOPBACK}:{remote_port}:{LOOPBACK}:{local_port}"]
        for option in (
            "ExitOnForwardFailure=yes", "ServerAliveInterval=2", "ServerAliveCountMax=3", "ConnectTimeout=15",
            "ControlMaster=no", "ControlPath=none", "ForwardAgent=no", "ForwardX11=no",
            "PermitLocalCommand=yes", f"LocalCommand=echo {READY}",
            *(() if sys.stdin.isatty() else ("BatchMode=yes",)),
        ):  # fmt: skip
            command += ["-o", option]
        bound = tethered([*command, *options, "--", destination], dict(os.environ))
        stdin = None if sys.stdin.isatty() else subprocess.DEVNULL
        self._said = tempfile.TemporaryFile()  # noqa: SIM115, `close` closes it
        self._process = subprocess.Popen(
            bound.command, stdin=stdin, stdout=subprocess.PIPE, stderr=self._said, env=bound.env
        )
        try:
            self._until_ready()
        except BaseException:
            self.close()
            raise

    def _until_ready(self) -> None:
        """Wait until ssh is connected, and has not ended a moment later: it ends if the port there is taken."""
        if self._process.stdout is None or READY not in self._process.stdout.readline().decode(errors="replace"):
            raise self._failed()
        time.sleep(0.5)
        if self._process.poll() is not None:
            raise self._failed()

    def wait(self) -> NetworkError:
        """Wait until ssh ends, and return why."""
        self._process.wait()
        return self._failed("ended")

    def _failed(self, how: str = "cannot be opened") -> NetworkError:
        self._process.wait()
        said = ""
        with contextlib.suppress(ValueError):  # closed, because we end too
            self._said.seek(0)
            said = self._said.read()[-2000:].decode(errors="replace")
        why = " ".join(said.split())[-300:] or f"ssh ended with exit status {self._process.returncode}"
        hint = f"try it with: ssh {self.destination}"
        return NetworkError(f"the tunnel to {self.destination} {how}", why=why, hint=hint)

    def close(self) -> None:
        """End ssh."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()

    def __enter__(self) -> Tunnel:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
