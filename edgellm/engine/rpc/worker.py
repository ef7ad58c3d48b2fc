"""A worker: waits for clients, and computes the layers that one of them at a time gives it.

    with WorkerServer(Address("127.0.0.1", 7531), engine, n_threads=8) as server:
        server.run()  # until it is interrupted

There is no password. It listens on the loopback, where an SSH tunnel ends (`tunnel.py`), unless its user says
otherwise.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.rpc.address import Address
from edgellm.engine.rpc.hello import (
    COMPUTE,
    FACTS,
    GREETING,
    PATIENCE,
    PROTOCOL,
    PULSE,
    Message,
    frame,
    read_message,
)
from edgellm.engine.rpc.session import ClientProcess
from edgellm.errors import EdgellmError, UsageError
from edgellm.machine import memory
from edgellm.version import __version__

# Connections at once: a client has two, and more than a few are no clients.
MOST_CONNECTIONS = 32
# How long a client waits for another one to be gone, in seconds: as long as it takes to notice that its link is cut.
TURN_SECONDS = 3.0
PAUSE_SECONDS = 0.2
Say = Callable[[str], None]


class WorkerServer:
    """The worker's listener.

    `cap` bounds the memory that it offers, in bytes; `say` is called when a client comes or goes.
    """

    def __init__(
        self,
        address: Address,
        engine: InstalledEngine,
        *,
        n_threads: int,
        cap: int | None = None,
        say: Say = lambda _: None,
    ) -> None:
        """Listen.

        Raises:
            UsageError: the address cannot be listened on.
        """
        self._engine, self._n_threads, self._cap = engine, n_threads, cap
        self._say = say
        self._turn = threading.Lock()
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._session: ClientProcess | None = None
        self._is_closed = False
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            self._listener = socket.create_server((address.host, address.port), family=family)
        except OSError as error:
            what = f"nothing can listen on {address}"
            raise UsageError(what, why=error.strerror or str(error), hint="--port with another number") from error
        self.address = Address(address.host, self._listener.getsockname()[1])

    def run(self) -> None:
        """Take clients until the listener is closed, or an exception comes."""
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                if self._is_closed:
                    return
                time.sleep(PAUSE_SECONDS)  # too many open files, for example
                continue
            if not self._slots.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._attend, args=(connection, str(peer[0])), daemon=True).start()

    def close(self) -> None:
        """Take no more clients, and end the one that is there."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if (session := self._session) is not None:
            session.end()
        # Its thread ends the process.
        if self._turn.acquire(timeout=TURN_SECONDS):
            self._turn.release()

    def __enter__(self) -> WorkerServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _attend(self, connection: socket.socket, peer: str) -> None:
        """Answer one connection; nothing that a stranger sends may end the worker."""
        try:
            with connection, contextlib.suppress(OSError, ValueError):
                connection.settimeout(PATIENCE)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                message = read_message(connection)
                try:
                    self._answer(connection, message, peer)
                except EdgellmError as error:
                    why = ": ".join(filter(None, [error.what, error.why]))
                    connection.sendall(frame({GREETING: PROTOCOL, "refused": why}))
        finally:
            self._slots.release()

    def _answer(self, connection: socket.socket, message: Message, peer: str) -> None:
        want = message.get("want")
        if message.get("stamp") not in ("", self._engine.record.stamp):
            connection.sendall(frame({GREETING: PROTOCOL, "other": self._engine.record.stamp}))
        elif want == COMPUTE:
            self._compute(connection, peer)
        elif want == PULSE:
            session = self._session
            if session is None or message.get("session") != session.name:
                raise UsageError("there is no such session")
            connection.sendall(self._facts(session.name))
            session.answer_pulse(connection)
        elif want == FACTS:
            connection.sendall(self._facts())
        else:
            raise UsageError("it is asked for something that it does not know")

    def _compute(self, connection: socket.socket, peer: str) -> None:
        if not self._turn.acquire(timeout=TURN_SECONDS):
            raise UsageError("it is in use: it computes for one client at a time")
        try:
            start = time.monotonic()
            session = ClientProcess(self._engine.libraries, self._n_threads)
            try:
                self._session = session
                connection.sendall(self._facts(session.name))
                connection.settimeout(None)
                self._say(f"computing for {peer}")
                session.carry(connection)
            finally:
                self._session = None
                ended = session.close()
            self._say(f"{peer} is gone after {time.monotonic() - start:.0f} s{f': {ended}' if ended else ''}")
        finally:
            self._turn.release()

    def _facts(self, session: str = "") -> bytes:
        available = memory.available()
        facts = {
            GREETING: PROTOCOL,
            "version": __version__,
            "stamp": self._engine.record.stamp,
            "n_threads": self._n_threads,
            "available": available if self._cap is None else min(available, self._cap),
            "session": session,
        }
        return frame(facts)
