"""One client of a worker: the process that computes for it, and the bytes that go to and fro.

with ClientProcess(engine.libraries, n_threads=8) as session:
    session.carry(connection)  # until either side ends
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

from edgellm.engine.rpc.address import LOOPBACK
from edgellm.errors import EngineError
from edgellm.machine.child import how_it_ended, module, tethered

START_SECONDS = 8.0
CRASH_SECONDS = 0.5
PIECE = 1 << 20
# How long the client may be silent on its second connection, in seconds.
SILENCE = 10.0


class ClientProcess:
    """A process of `compute`, and a connection to it. The thread that opens it must live as long as it does."""

    def __init__(self, libraries: Path, n_threads: int) -> None:
        """Start the process.

        Raises:
            EngineError: it does not start.
        """
        self.name = secrets.token_hex(8)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, `close` closes it
        try:
            self._process, self._inner = self._start(libraries, n_threads)
        except BaseException:
            self._errors.close()
            raise
        self._outer: socket.socket | None = None
        self._is_watched = self._was_left = False

    def _start(self, libraries: Path, n_threads: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
        with socket.create_server((LOOPBACK, 0)) as free:
            port = free.getsockname()[1]
        program = module("edgellm.engine.rpc.compute", str(libraries), str(port), str(n_threads))
        bound = tethered(program.command)
        process = subprocess.Popen(
            bound.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors, env=program.env,
            cwd=program.cwd, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                inner = socket.create_connection((LOOPBACK, port), START_SECONDS)
                inner.settimeout(None)
                inner.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return process, inner
            time.sleep(0.02)
        status = process.poll()
        process.kill()
        process.wait()
        why = "it takes too long" if status is None else f"{how_it_ended(status)}{self._last_words()}"
        raise EngineError("the engine of the worker does not start", why=why)

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def carry(self, outer: socket.socket) -> None:
        """Pass bytes between the client and the process until one of them ends.

        A client that never opens its second connection is as good as gone.
        """
        self._outer = outer
        unwatched = threading.Timer(SILENCE, lambda: None if self._is_watched else self.end())
        unwatched.daemon = True
        unwatched.start()
        back = threading.Thread(target=_pour, args=(self._inner, outer), daemon=True)
        back.start()
        _pour(outer, self._inner)
        self._was_left = back.is_alive()
        unwatched.cancel()
        self.end()
        back.join()

    def answer_pulse(self, connection: socket.socket) -> None:
        """Send every byte of the client back; end the session when none comes any more."""
        self._is_watched = True
        connection.settimeout(SILENCE)
        with contextlib.suppress(OSError):
            while self.is_alive and (data := connection.recv(16)):
                connection.sendall(data)
        self.end()

    def end(self) -> None:
        """Break the connections, which ends `carry`."""
        for connection in (self._inner, self._outer):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> str:
        """Kill the process, which has nothing to lose; how it ended if it was not we who ended it, else empty."""
        if not self._was_left:  # it crashed, and may be about to end
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(CRASH_SECONDS)
        status = self._process.poll()
        self._process.kill()
        self._process.wait()
        self._inner.close()
        words = "" if status is None else f"{how_it_ended(status)}{self._last_words()}"
        self._errors.close()
        return words

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read()[-4000:].decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"; its last words: {last[:300]}" if last else ""

    def __enter__(self) -> ClientProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _pour(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until the source ends or the target does, and end the target."""
    buffer = memoryview(bytearray(PIECE))
    with contextlib.suppress(OSError):
        while n_read := source.recv_into(buffer):
            target.sendall(buffer[:n_read])
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
