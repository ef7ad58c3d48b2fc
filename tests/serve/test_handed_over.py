"""A socket that systemd opened: the server listens there, and whoever connected before it ran gets an answer."""

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgellm.settings import Settings
from tests.serve.server import Server, free_port

# What systemd does between fork and exec: descriptor 3 is the socket, and the variables are for this process.
START = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.executable, [sys.executable, "-m", "edgellm", "serve", *sys.argv[2:]])
"""


def start(opened: socket.socket, *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", START, str(opened.fileno()), *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, pass_fds=(opened.fileno(),))


@pytest.fixture
def opened() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.mark.engine
@pytest.mark.model
def test_who_connected_before_the_server_ran_gets_an_answer(with_engine: Settings, opened: socket.socket) -> None:
    port = opened.getsockname()[1]
    answers = []

    def ask() -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=120) as reply:
            answers.append(reply.read())

    early = threading.Thread(target=ask)
    early.start()
    process = start(opened, "smollm2", "--port", str(free_port()))
    opened.close()
    early.join(120)
    server = Server(process, port)
    try:
        assert b"smollm2" in answers[0]
        # It is listed at the address of the socket, and its workers do not hold it.
        assert f":{port}" in subprocess.check_output([sys.executable, "-m", "edgellm", "ps"], text=True)
    finally:
        server.stop()
    with pytest.raises(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


TAKE = """\
import os, sys
from edgellm.errors import UsageError
from edgellm.serve.http.handed_over import handed_over
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = sys.argv[2] or str(os.getpid())
os.environ["LISTEN_FDS"] = sys.argv[3]
try:
    print(handed_over(), os.get_inheritable(3))
except UsageError as error:
    print(error.what)
"""


def taken(opened: socket.socket, *, pid: str = "", count: str = "1") -> str:
    """What a process that is handed a socket makes of it."""
    command = [sys.executable, "-c", TAKE, str(opened.fileno()), pid, count]
    return subprocess.check_output(command, text=True, pass_fds=(opened.fileno(),))


def test_it_is_kept_from_child_processes(opened: socket.socket) -> None:
    assert f"{opened.getsockname()}" in taken(opened) and taken(opened).endswith("False\n")


def test_several_sockets_are_refused(opened: socket.socket) -> None:
    assert taken(opened, count="2") == "2 sockets were handed over\n"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_that_does_not_listen_on_tcp_is_refused(kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as other:
        assert "does not listen on a TCP port" in taken(other)


def test_a_socket_of_a_path_is_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(tmp_path / "s"))
        other.listen()
        assert "does not listen on a TCP port" in taken(other)


@pytest.mark.parametrize(("pid", "count"), [("1", "1"), ("", "0")])
def test_variables_for_another_process_or_no_socket_mean_nothing(pid: str, count: str, opened: socket.socket) -> None:
    assert taken(opened, pid=pid, count=count).startswith("None")


def test_an_open_address_needs_a_key_as_ever() -> None:
    with socket.create_server(("0.0.0.0", 0)) as opened:
        process = start(opened, "smollm2")
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2 and b"--host 0.0.0.0 needs a key" in errors
