"""Stands between the engine and one worker, so that a worker that is lost is an error and no end of this process.

    relay = Relay(Address("10.0.0.2", 7531), stamp)
    relay.endpoint                # where the engine finds the worker: 127.0.0.1:40123
    relay.check()                 # raises WorkerLost once the worker is gone
    relay.close()

ggml-rpc aborts the process when its connection breaks, and connects several times. The relay keeps one connection to
the worker for all of them. Once that is lost it answers in the worker's place with zeros, so that the computation under
way ends at once; whoever asked for it calls `check` and never uses its result. A second connection carries a byte each
second: it notices a cut link, on which nothing would ever come, and a machine that hangs.

The messages are those of ggml-rpc.cpp, version 7: a command (1 byte), a size (8 bytes) and that many bytes, little
endian. Only the commands in `RESPONSES` are answered, with a size and that many bytes.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from edgellm.engine.rpc.address import LOOPBACK, Address
from edgellm.engine.rpc.hello import COMPUTE, PULSE, greet, reason
from edgellm.errors import WorkerLost, WorkerRefused

RPC_VERSION = 7
ALLOC_BUFFER, GET_ALIGNMENT, GET_MAX_SIZE, BUFFER_GET_BASE = 0, 1, 2, 3
SET_TENSOR_HASH, GET_TENSOR, COPY_TENSOR, GET_DEVICE_MEMORY = 7, 8, 9, 11
GET_ALLOC_SIZE, HELLO, DEVICE_COUNT = 13, 14, 15
CAPS_SIZE = 24


def _number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


# What is answered in place of a lost worker: an allocation fails, an address is not null, a copy is made.
RESPONSES = {
    ALLOC_BUFFER: bytes(16),
    GET_ALIGNMENT: _number(32),
    GET_MAX_SIZE: _number(1 << 40),
    BUFFER_GET_BASE: _number(1 << 32),
    SET_TENSOR_HASH: b"\1",
    COPY_TENSOR: b"\1",
    GET_DEVICE_MEMORY: bytes(16),
    GET_ALLOC_SIZE: _number(1 << 20),
    DEVICE_COUNT: _number(1, 4),
    GET_TENSOR: b"",  # as many zeros as it asks for
}
HEADER = 9
PIECE = 1 << 20
PULSE_SECONDS, PULSE_PATIENCE = 1.0, 6.0
DIED = "it closed the connection: its process was ended"
SILENT = "nothing comes from its machine: the link is cut, or it hangs"


class Relay:
    """The link to one worker. `n_sent` and `n_received` count the bytes of the protocol."""

    def __init__(self, address: Address, stamp: str, *, on_loss: Callable[[WorkerLost], None] | None = None) -> None:
        """Connect. With `on_loss`, a loss is only reported: nothing is answered in the worker's place.

        Raises:
            WorkerLost, WorkerRefused: as `hello.ask_facts`, or somebody else uses the worker.
        """
        self.address = address
        self.n_sent = self.n_received = 0
        self.lost: WorkerLost | None = None
        self._on_loss = on_loss
        self._closed = False
        self._lock = threading.Lock()
        self._remote, self.facts = greet(address, COMPUTE, stamp)
        try:
            self._hello = self._say_hello()
            self._listener = socket.create_server((LOOPBACK, 0))
        except BaseException:
            self._remote.close()
            raise
        try:
            self._pulse, _ = greet(address, PULSE, stamp, self.facts.session)
        except BaseException:
            self._listener.close()
            self._remote.close()
            raise
        self.endpoint = f"{LOOPBACK}:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._serve, self._watch)]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raise WorkerLost if the worker is gone."""
        if self.lost is not None:
            raise self.lost

    def close(self) -> None:
        """End the connections; the worker gives its memory back."""
        self._closed = True
        for connection in (self._remote, self._pulse, self._listener):
            _end(connection)
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(PULSE_SECONDS)

    def _say_hello(self) -> bytes:
        """Begin the protocol; the worker's answer, which every connection of the engine gets."""
        try:
            self._remote.sendall(bytes([HELLO]) + _number(CAPS_SIZE) + bytes(CAPS_SIZE))
            answer = _read(self._remote, int.from_bytes(_read(self._remote, 8), "little") & 0xFF)
        except (OSError, EOFError) as error:
            raise self._loss(_why(error)) from error
        if len(answer) != 4 + CAPS_SIZE or answer[0] != RPC_VERSION:
            what = f"the worker at {self.address} runs another version"
            raise WorkerRefused(what, why=f"its protocol is {list(answer[:3])}, not {RPC_VERSION}")
        self._remote.settimeout(None)
        return answer

    def _serve(self) -> None:
        """Serve the engine's connections, of which it has one at a time."""
        while not self._closed:
            try:
                engine, _ = self._listener.accept()
            except OSError:
                return
            engine.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with engine, contextlib.suppress(OSError, EOFError):
                while not self._closed:
                    self._exchange(engine)

    def _exchange(self, engine: socket.socket) -> None:
        """Pass on one message of the engine, and its answer."""
        header = _read(engine, HEADER)
        command, size = header[0], int.from_bytes(header[1:], "little")
        if command == HELLO:
            _read(engine, size)
            engine.sendall(_number(len(self._hello)) + self._hello)
            return
        tail, pending = b"", header
        buffer = memoryview(bytearray(min(size, PIECE)))
        while size:
            n_read = engine.recv_into(buffer, min(size, PIECE))
            if not n_read:
                raise EOFError
            self._send(pending + bytes(buffer[:n_read]))
            tail, pending = (tail + bytes(buffer[max(0, n_read - 8) : n_read]))[-8:], b""
            size -= n_read
        self._send(pending)
        if command in RESPONSES:
            self._answer(engine, command, int.from_bytes(tail, "little"))

    def _answer(self, engine: socket.socket, command: int, n_asked: int) -> None:
        """Pass on the worker's answer; what of it does not come is zeros."""
        expected = len(RESPONSES[command]) if command != GET_TENSOR else n_asked
        left = 8 + expected
        while left and self.lost is None:
            try:
                data = self._remote.recv(min(left, PIECE))
            except OSError as error:
                self._lose(_why(error))
                break
            if not data:
                self._lose(DIED)
                break
            self.n_received += len(data)
            engine.sendall(data)
            left -= len(data)
        if left and self._on_loss is None:
            stand_in = _number(expected) + (RESPONSES[command] or bytes(expected))
            engine.sendall(stand_in[-left:])
        elif left:
            while not self._closed:  # whoever it was reported to ends the engine
                time.sleep(0.05)

    def _send(self, data: bytes) -> None:
        if not data or self.lost is not None:
            return
        try:
            self._remote.sendall(data)
            self.n_sent += len(data)
        except OSError as error:
            self._lose(_why(error))

    def _watch(self) -> None:
        """Send a byte each second, and expect it back."""
        pulse = self._pulse
        pulse.settimeout(PULSE_PATIENCE)
        while not self._closed:
            try:
                pulse.sendall(b"\n")
                if not pulse.recv(1):
                    return self._lose(DIED)
            except TimeoutError:
                return self._lose(SILENT)
            except OSError as error:
                return self._lose(_why(error))
            time.sleep(PULSE_SECONDS)
        return None

    def _lose(self, why: str) -> None:
        """Note the loss, once, and wake whoever waits for the worker."""
        with self._lock:
            if self._closed or self.lost is not None:
                return
            self.lost = self._loss(why)
        _end(self._remote)
        if self._on_loss is not None:
            self._on_loss(self.lost)

    def _loss(self, why: str) -> WorkerLost:
        hint = "start the worker again, or leave it out of --workers"
        return WorkerLost(f"the worker at {self.address} is lost", why=why, hint=hint, worker=str(self.address))


def _why(error: Exception) -> str:
    """Why a connection to a worker ended, in words."""
    return reason(error) if isinstance(error, OSError) and not isinstance(error, ConnectionError) else DIED


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = connection.recv(min(size - len(data), PIECE))
        if not piece:
            raise EOFError if not data else ConnectionResetError("it ended within a message")
        data += piece
    return bytes(data)


def _end(connection: socket.socket) -> None:
    """Close a connection, and wake the threads that wait for it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
