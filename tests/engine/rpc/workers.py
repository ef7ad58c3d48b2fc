"""Workers for tests: in this process, as `edgellm worker` in one of its own, and a link that can be slow or cut."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.rpc.address import LOOPBACK, Address
from edgellm.engine.rpc.worker import WorkerServer

PIECE = 1 << 16
START_SECONDS = 120


@contextmanager
def worker_here(engine: InstalledEngine, *, cap: int | None = None) -> Iterator[Address]:
    """A worker in this process."""
    with WorkerServer(Address(LOOPBACK, 0), engine, n_threads=1, cap=cap) as server:
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        yield server.address
    thread.join(10)
    assert not thread.is_alive()


class WorkerProcess:
    """`edgellm worker` in a process of its own.

    `within` is put before the command, as `ip netns exec NAME`; `program` is another one that takes the arguments.
    """

    def __init__(self, *arguments: str, within: Sequence[str] = (), program: str = "") -> None:
        port = () if "--port" in arguments else ("--port", str(free_port()))
        edgellm = ("-c", program) if program else ("-m", "edgellm")
        command = [*within, sys.executable, *edgellm, "worker", *arguments, *port, "--json", "-t", "1"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None and self.process.stderr is not None
        text = ""
        while not text.endswith("\n}\n"):
            line = self.process.stdout.readline()
            assert line, self.process.stderr.read()
            text += line
        self.address: str = json.loads(text)["data"]["address"]

    def kill(self) -> None:
        """End it as when memory runs out."""
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            self.process.kill()
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe is not None:
                    pipe.close()


class Link:
    """A port that leads to another one, with a delay in seconds and a speed in bytes a second; `cut` it."""

    def __init__(self, target: str, *, delay: float = 0.0, speed: float = float("inf")) -> None:
        host, _, port = target.rpartition(":")
        self._target, self._delay, self._speed = (host, int(port)), delay, speed
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server((LOOPBACK, 0))
        self.address = f"{LOOPBACK}:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def cut(self) -> None:
        """From now on nothing passes, and nobody is told."""
        self._whole.clear()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                self._sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    pair[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pour, args=pair, daemon=True).start()

    def _pour(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(PIECE):
                if self._delay:
                    time.sleep(self._delay + len(data) / self._speed)
                self._whole.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._whole.set()
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> "Link":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as free:
        return int(free.getsockname()[1])
