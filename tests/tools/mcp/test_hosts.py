"""Which addresses a client may make this machine connect to."""

import asyncio
import socket

import pytest

from edgellm.errors import UsageError
from edgellm.tools.mcp.hosts import AddressRefused, McpHosts


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/mcp", "http://localhost/mcp", "https://10.0.0.1/mcp", "http://169.254.169.254/latest", "file:///etc/passwd",
        "http://[::1]/mcp", "gopher://x", "http://", "http://a:99999/", "//x", "",
    ],
)  # fmt: skip
def test_nothing_is_permitted_unless_it_is_named(url: str) -> None:
    for hosts in (McpHosts(), McpHosts.of(["notes.example"])):
        with pytest.raises(AddressRefused):
            hosts.check(url, "x")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/mcp", "http://10.1.2.3/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/",
        "http://[fe80::1]/", "http://0.0.0.0/", "http://[2002:7f00:1::]/", "http://224.0.0.1/", "http://100.64.0.1/",
    ],
)  # fmt: skip
def test_public_means_public(url: str) -> None:
    with pytest.raises(AddressRefused):
        McpHosts.of(["public"]).check(url, "x")


def test_a_named_host_is_permitted_with_its_port() -> None:
    hosts = McpHosts.of(["127.0.0.1:9000", "Notes.Example", "[::1]"])
    for url in ("http://127.0.0.1:9000/mcp", "https://notes.example/mcp", "http://[::1]:5/x"):
        hosts.check(url, "x")
    for url in ("http://127.0.0.1:9001/mcp", "http://127.0.0.1/mcp", "https://notes.example.evil/mcp"):
        with pytest.raises(AddressRefused):
            hosts.check(url, "x")


def test_a_name_that_leads_inside_is_refused_when_it_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rebind.example": ["93.184.216.34", "127.0.0.1"], "fine.example": ["93.184.216.34"]}

    async def run(host: str) -> str:
        async def getaddrinfo(host: str, port: int, **_: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers[host]]

        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
        return await McpHosts.of(["public"]).checked(host, 443)

    assert asyncio.run(run("fine.example")) == "93.184.216.34"
    with pytest.raises(AddressRefused):
        asyncio.run(run("rebind.example"))


@pytest.mark.parametrize("word", ["", "http://x/", "a@b", "x/y"])
def test_what_is_no_host(word: str) -> None:
    with pytest.raises(UsageError):
        McpHosts.of([word])
