"""The way to the Hub: proxies, SOCKS among them, certificates, and every variable that is wrong."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from edgellm.errors import NetworkError
from edgellm.models.hub.client import Hub
from edgellm.models.hub.retry import Patience
from edgellm.models.hub.transport import EnvironmentTransport, certificates, proxy_for
from tests.commands.cli import data, edgellm, error
from tests.models.hub_server import HubServer

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE",
             "CURL_CA_BUNDLE")  # fmt: skip
HUB = "https://huggingface.co"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class _Socks(socketserver.StreamRequestHandler):
    """SOCKS5 without a password: connects to an IPv4 address or a name, and copies both ways."""

    def handle(self) -> None:
        self.rfile.read(self.rfile.read(2)[1])
        self.wfile.write(b"\x05\x00")
        kind = self.rfile.read(4)[3]
        address = self.rfile.read(4 if kind == 1 else self.rfile.read(1)[0])
        port = int.from_bytes(self.rfile.read(2), "big")
        host = socket.inet_ntoa(address) if kind == 1 else address.decode()
        self.server.asked.append(host)  # type: ignore[attr-defined]
        with socket.create_connection((host, port)) as other:
            self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
            threading.Thread(target=self._back, args=(other,), daemon=True).start()
            while chunk := self.request.recv(65536):
                other.sendall(chunk)

    def _back(self, other: socket.socket) -> None:
        with suppress(OSError):  # the client has closed the connection
            while chunk := other.recv(65536):
                self.wfile.write(chunk)


@contextmanager
def socks_proxy() -> Iterator[socketserver.ThreadingTCPServer]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Socks) as server:
        server.daemon_threads = True
        server.block_on_close = False
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def test_which_proxy_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proxy_for(HUB) is None
    monkeypatch.setenv("ALL_PROXY", "socks5://one:1080")
    monkeypatch.setenv("HTTP_PROXY", "http://two:1")
    assert str(proxy_for(HUB)) == "ALL_PROXY=socks5://one:1080"
    assert str(proxy_for("http://x")) == "HTTP_PROXY=http://two:1"
    monkeypatch.setenv("https_proxy", "user:secret@three:3")
    assert str(proxy_for(HUB)) == "https_proxy=http://***@three:3"
    monkeypatch.setenv("NO_PROXY", "localhost,.co")
    assert proxy_for(HUB) is None


@pytest.mark.parametrize("kind", ["socks5", "socks5h"])
def test_through_a_socks_proxy(kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with HubServer() as server, socks_proxy() as proxy:
        server.add("user/x", {"x-Q4_0.gguf": b"x" * 2000})
        monkeypatch.setenv("ALL_PROXY", f"{kind}://127.0.0.1:{proxy.server_address[1]}")
        hub = Hub(server.endpoint, tmp_path)
        assert list(hub.repository("user/x").files) == ["x-Q4_0.gguf"]
        assert b"".join(hub.stream(hub.file("user/x", "x-Q4_0.gguf"))) == b"x" * 2000
        assert "127.0.0.1" in proxy.asked and "through ALL_PROXY" in hub.reach()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:1080", "socks5://"),
        ("ALL_PROXY", "ftp://127.0.0.1:1080", "not the address of a proxy"),
        ("HTTP_PROXY", "http://", "not the address of a proxy"),
        ("HTTP_PROXY", "http://user:secret@host:port", "not the address of a proxy"),
        ("HTTP_PROXY", "http://[::1", "not the address of a proxy"),
        ("HTTP_PROXY", "127.0.0.1:9", "cannot be reached"),
    ],
)
def test_a_proxy_that_is_none(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(NetworkError) as refused:
        Hub("http://hub.example", tmp_path, patience=Patience(pauses=())).repository("a/b")
    shown = f"{refused.value.what} {refused.value.why} {refused.value.hint}"
    assert said in shown and "secret" not in shown


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates(variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing, wrong, right = tmp_path / "missing.pem", tmp_path / "wrong.pem", tmp_path / "right.pem"
    wrong.write_text("no certificate")
    trustme.CA().cert_pem.write_to_path(str(right))
    for path, said in ((missing, "is not there"), (wrong, "holds no certificates")):
        monkeypatch.setenv(variable, str(path))
        with pytest.raises(NetworkError, match=said) as refused:
            Hub(HUB, tmp_path, patience=Patience(pauses=())).repository("a/b")
        assert variable in refused.value.what and variable in refused.value.hint
    for path in (right, tmp_path):
        monkeypatch.setenv(variable, str(path))
        assert certificates().check_hostname
    EnvironmentTransport().close()


def test_verbs_with_a_network_that_is_set_up_wrongly(tmp_path: Path) -> None:
    (tmp_path / "socksio.py").write_text("raise ImportError('it is not installed')")
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "PYTHONPATH": str(tmp_path), "ALL_PROXY": "socks5://127.0.0.1:1"}
    found = error(edgellm("pull", "u/m-GGUF", "--json", env=env))
    assert found["code"] == "network" and found["try"].endswith("-m pip install socksio")
    direct = edgellm("pull", "u/m-GGUF", "--json", env={**env, "NO_PROXY": "127.0.0.1", "EDGELLM_OFFLINE": "1"})
    assert "offline" in error(direct)["what"]


def test_doctor_says_whether_the_hub_is_reached(tmp_path: Path) -> None:
    def network(**env: str) -> dict[str, object]:
        bare = {"PATH": str(tmp_path), "EDGELLM_HOME": str(tmp_path / "home"), **env}
        checks = data(edgellm("doctor", "--json", env=bare), code=1)["checks"]  # there is no engine
        return next(check for check in checks if check["name"] == "network")

    with HubServer() as server:
        there = network(HF_ENDPOINT=server.endpoint)
        assert there["ok"] and "answers, without a proxy" in str(there["detail"])
        proxied = network(HF_ENDPOINT="http://hub.example", HTTP_PROXY=server.endpoint)
        assert proxied["ok"] and f"through HTTP_PROXY={server.endpoint}" in str(proxied["detail"])
    gone = network(HF_ENDPOINT="http://127.0.0.1:9")
    assert not gone["ok"] and not gone["needed"] and "cannot be reached" in str(gone["detail"]) and gone["fix"]
    off = network(HF_HUB_OFFLINE="1")
    assert off["ok"] and "HF_HUB_OFFLINE is set" in str(off["detail"])
