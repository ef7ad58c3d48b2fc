"""What a worker and its client say before llama.cpp's protocol begins: one line of JSON each way.

    -> {"edgellm-worker": 1, "want": "facts"}
    <- {"edgellm-worker": 1, "version": "0.9.0", "stamp": "145c39cfad9a", "n_threads": 8, "available": 16000000000, ...}

`want` is "facts", "compute" (then the bytes of the protocol follow) or "pulse" (then a byte goes to and fro). The stamp
is the engine's: both sides must have the same, because tensor types and operations are numbers of its source.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgellm.engine.rpc.address import Address
from edgellm.errors import WorkerLost, WorkerRefused

GREETING = "edgellm-worker"
PROTOCOL = 1
FACTS, COMPUTE, PULSE = "facts", "compute", "pulse"
# How long a connection and an answer may take, in seconds.
PATIENCE = 5.0
# A worker that is in use waits a moment for its client to go before it refuses another.
COMPUTE_PATIENCE = 13.0
MOST_LINE = 4096
# Bytes that a machine may say it has; a number beyond is no answer.
MOST_MEMORY = 1 << 60
START_COMMAND = "edgellm worker"
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """A worker and its machine. Sizes are bytes; `available` is what it may still take."""

    address: Address
    version: str
    stamp: str
    n_threads: int
    available: int
    session: str = ""


def ask_facts(address: Address, stamp: str | None = None) -> WorkerFacts:
    """Return what a worker says of itself.

    Raises:
        WorkerLost: it cannot be reached.
        WorkerRefused: something else listens there, or an edgellm whose engine is not the one with this `stamp`.
    """
    connection, facts = greet(address, FACTS, stamp)
    connection.close()
    return facts


def ask_all(addresses: Sequence[Address], stamp: str | None = None) -> list[WorkerFacts | WorkerLost | WorkerRefused]:
    """Ask several workers at once; in place of the facts of one that cannot be used there is the error."""
    answers: dict[Address, WorkerFacts | WorkerLost | WorkerRefused] = {}

    def ask(address: Address) -> None:
        try:
            answers[address] = ask_facts(address, stamp)
        except (WorkerLost, WorkerRefused) as error:
            answers[address] = error

    threads = [threading.Thread(target=ask, args=(address,)) for address in addresses]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[address] for address in addresses]


def require_all(addresses: Sequence[Address], stamp: str | None = None) -> list[WorkerFacts]:
    """Ask several workers at once; raises the first error."""
    found = []
    for answer in ask_all(addresses, stamp):
        if not isinstance(answer, WorkerFacts):
            raise answer
        found.append(answer)
    return found


def greet(address: Address, want: str, stamp: str | None, session: str = "") -> tuple[socket.socket, WorkerFacts]:
    """Open a connection for a purpose; raises as `ask_facts`."""
    connection = _dial(address)
    try:
        connection.settimeout(COMPUTE_PATIENCE if want == COMPUTE else PATIENCE)
        message = {GREETING: PROTOCOL, "want": want, "stamp": stamp or "", "session": session}
        connection.sendall(frame(message))
        return connection, _facts(address, read_message(connection), stamp)
    except (OSError, ValueError) as error:
        connection.close()
        if isinstance(error, ConnectionError | ValueError):
            raise _stranger(address) from error
        raise WorkerLost(f"the worker at {address} does not answer", why=reason(error), worker=str(address)) from error
    except BaseException:
        connection.close()
        raise


def frame(message: Message) -> bytes:
    """A message as a line."""
    return json.dumps(message).encode() + b"\n"


def read_message(connection: socket.socket) -> Message:
    """Return the message in the next line, and read no byte of what follows.

    Raises:
        ValueError: it is no message. ConnectionError, OSError: the connection ended.
    """
    line, end = bytearray(), time.monotonic() + (connection.gettimeout() or PATIENCE)
    while not line.endswith(b"\n"):
        if len(line) > MOST_LINE or time.monotonic() > end or not (byte := connection.recv(1)):
            raise ValueError("no line")
        line += byte
    try:
        message = json.loads(line)
    except RecursionError:
        message = None
    if not isinstance(message, dict) or message.get(GREETING) != PROTOCOL:
        raise ValueError("no greeting")
    return message


def reason(error: OSError) -> str:
    """Why a connection failed, in words."""
    return "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)


def _dial(address: Address) -> socket.socket:
    try:
        connection = socket.create_connection((address.host, address.port), PATIENCE)
    except (OSError, UnicodeError) as error:
        why = reason(error) if isinstance(error, OSError) else "its name is none"
        hint = f"start it with {START_COMMAND} on its machine; without a tunnel, see {START_COMMAND} --help"
        what = f"the worker at {address} cannot be reached"
        raise WorkerLost(what, why=why, hint=hint, worker=str(address)) from error
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _facts(address: Address, message: Message, stamp: str | None) -> WorkerFacts:
    if isinstance(refusal := message.get("refused"), str):
        raise WorkerRefused(f"the worker at {address} refuses", why=refusal[:300], worker=str(address))
    if isinstance(theirs := message.get("other"), str):
        raise _other_version(address, theirs[:100], str(stamp))
    version, theirs, session = (message.get(key) for key in ("version", "stamp", "session"))
    n_threads, available = message.get("n_threads"), message.get("available")
    if not all(isinstance(text, str) and len(text) < 100 for text in (version, theirs, session)):
        raise _stranger(address)
    if not isinstance(n_threads, int) or not isinstance(available, int) or not 0 <= available <= MOST_MEMORY:
        raise _stranger(address)
    if stamp is not None and theirs != stamp:
        raise _other_version(address, str(theirs), stamp)
    return WorkerFacts(address, str(version), str(theirs), n_threads, available, str(session))


def _other_version(address: Address, theirs: str, ours: str) -> WorkerRefused:
    what, why = f"the worker at {address} runs another version", f"its engine is {theirs}, and here it is {ours}"
    return WorkerRefused(what, why=why, hint="install the same edgellm on both machines", worker=str(address))


def _stranger(address: Address) -> WorkerRefused:
    what = f"what listens at {address} is no worker of this edgellm"
    why = "it does not answer as one"
    return WorkerRefused(what, why=why, hint=f"start it with {START_COMMAND} on its machine", worker=str(address))
