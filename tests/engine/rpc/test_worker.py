"""The worker's door: who is let in, who is refused, and with which words; strangers and garbage end nothing."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.rpc.address import DEFAULT_PORT, Address, parse_addresses
from edgellm.engine.rpc.hello import ask_all, ask_facts
from edgellm.errors import UsageError, WorkerLost, WorkerRefused
from edgellm.settings import Settings
from tests.commands.cli import edgellm, error
from tests.engine.rpc.workers import free_port, worker_here


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.0.0.2", [Address("10.0.0.2", DEFAULT_PORT)]),
        ("a.example:80, b:81", [Address("a.example", 80), Address("b", 81)]),
        ("[fe80::1]:9,[::1]", [Address("fe80::1", 9), Address("::1", DEFAULT_PORT)]),
    ],
)
def test_addresses(text: str, found: list[Address]) -> None:
    assert list(parse_addresses(text)) == found
    assert list(parse_addresses(",".join(map(str, found)))) == found


@pytest.mark.parametrize(
    "text", ["", "a:0", "a:65536", "a:b", ",", "a:1,a:1", "a b:1", "user@a:1", "a:-1", "[::1", "é:1", "a:1" * 200,
             ",".join(f"a{number}" for number in range(17))],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--workers"):
        parse_addresses(text)


@contextmanager
def stranger(answer: bytes) -> Iterator[Address]:
    """Something that listens, and says the same to everybody."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(4096)
                    connection.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield Address("127.0.0.1", listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 5000, b"[" * 4000 + b"\n", b"{}\n", b"null\n",
        b'{"edgellm-worker": 1}\n', b'{"edgellm-worker": 2, "version": "1"}\n',
        json.dumps({"edgellm-worker": 1, "version": "1", "stamp": "s", "n_threads": "many", "available": 1,
                    "session": ""}).encode() + b"\n",
        json.dumps({"edgellm-worker": 1, "version": "1", "stamp": "s", "n_threads": 1, "available": 10**400,
                    "session": ""}).encode() + b"\n",
    ],
)  # fmt: skip
def test_what_is_no_worker_is_called_so(answer: bytes) -> None:
    with stranger(answer) as address, pytest.raises(WorkerRefused, match="no worker of this edgellm"):
        ask_facts(address)


def test_nobody_there() -> None:
    address = Address("127.0.0.1", free_port())
    with pytest.raises(WorkerLost, match="cannot be reached"):
        ask_facts(address)
    assert isinstance(ask_all([address, address])[1], WorkerLost)


@pytest.mark.engine
def test_another_version_is_refused_on_both_sides(engine: InstalledEngine) -> None:
    other = InstalledEngine(engine.directory, replace(engine.record, stamp="000000000000"))
    with worker_here(other) as worker:
        with pytest.raises(WorkerRefused) as refused:
            ask_facts(worker, engine.record.stamp)
        assert "000000000000" in refused.value.why and engine.record.stamp in refused.value.why
        assert ask_facts(worker).stamp == "000000000000"


@pytest.mark.engine
def test_the_worker_says_what_it_offers(engine: InstalledEngine) -> None:
    with worker_here(engine, cap=12345) as worker:
        facts = ask_facts(worker, engine.record.stamp)
        assert (facts.available, facts.n_threads, facts.session) == (12345, 1, "")


@pytest.mark.engine
@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x0e" + (24).to_bytes(8, "little") + bytes(24), b"GET / HTTP/1.1\r\n\r\n", b"\n", b"x" * 100_000,
        b"{" * 4000 + b"\n", b'{"edgellm-worker": 1}\n', b'{"edgellm-worker": 1, "want": "pulse", "session": "a"}\n',
        b'{"edgellm-worker": 1, "want": "compute", "stamp": "0"}\n', b'{"edgellm-worker": 1, "want": []}\n',
        b'{"edgellm-worker": 1, "want": "compute"}\n' + b"\xff" * 1000,
    ],
)  # fmt: skip
def test_garbage_ends_nothing(engine: InstalledEngine, data: bytes) -> None:
    with worker_here(engine) as worker:
        with socket.create_connection((worker.host, worker.port), 20) as connection, suppress(OSError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass
        assert ask_facts(worker).available > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--bind", "0.0.0.0"), "needs --open"),
        (("--bind", "10.0.0.2"), "needs --open"),
        (("--bind", "example"), "is no address"),
        (("--via", "-oProxyCommand=x"), "is no user@host"),
        (("--via", "a@b", "--bind", "::1"), "do not go together"),
        (("--ssh-option", "Port=1"), "is for a tunnel"),
    ],
)
def test_what_the_verb_refuses(with_engine: Settings, arguments: tuple[str, ...], words: str) -> None:
    result = edgellm("worker", *arguments, "--json")
    assert result.returncode == 2
    assert words in error(result)["what"]
