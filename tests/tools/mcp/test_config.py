"""mcp.json as other programs write it, and as nobody should."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgellm.errors import ConfigInvalid, FileAccessError, UsageError
from edgellm.settings import Settings
from edgellm.tools.mcp.choice import known_servers, servers_named, tools_named
from edgellm.tools.mcp.config import ServerConfig, read_servers, server_of
from edgellm.tools.mcp.servers import McpServers

ENVIRON = {"HOME": "/home/ada", "KEY": "s3cret", "EMPTY": ""}


def entry(**fields: Any) -> ServerConfig:
    return server_of("a", fields, ENVIRON)


def test_a_file_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    servers = {
        "files": {"type": "stdio", "command": "npx", "args": ["-y", "files", "${HOME}/notes"], "env": {"A": "${KEY}"}},
        "remote": {"type": "http", "url": "https://x.example/mcp", "headers": {"Authorization": "Bearer ${KEY}"}},
        "off": {"command": "x", "disabled": True},
    }  # fmt: skip
    path.write_text(json.dumps({"mcpServers": servers, "other": 1}))
    files, remote, off = read_servers(path, ENVIRON)
    assert files.args == ("-y", "files", "/home/ada/notes") and files.env == {"A": "s3cret"}
    assert remote.headers == {"Authorization": "Bearer s3cret"} and remote.place == "https://x.example/mcp"
    assert off.is_disabled and not files.is_disabled
    assert "s3cret" not in repr((files, remote))


def test_vs_codes_key_is_known(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    path.write_text('\ufeff{"servers": {"a": {"command": "x"}}}', encoding="utf-8")
    assert [each.name for each in read_servers(path, {})] == ["a"]


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("${KEY}", "s3cret"), ("${env:KEY}", "s3cret"), ("${GONE:-x y}", "x y"), ("${EMPTY:-x}", "x"),
     ("$KEY", "$KEY"), ("a${EMPTY}b", "ab")],
)  # fmt: skip
def test_variables(text: str, expanded: str) -> None:
    assert entry(command="x", args=[text]).args == (expanded,)


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({}, "a command or a url"),
        ({"command": "x", "url": "http://a"}, "not both"),
        ({"command": 3}, "command is no text"),
        ({"command": ""}, "command is no text"),
        ({"command": "x\0y"}, "command is no text"),
        ({"command": "x", "args": "y"}, "args is no list"),
        ({"command": "x", "args": [{}]}, "args is no text"),
        ({"command": "x", "env": {"A": 1}}, "env.A is no text"),
        ({"command": "x", "env": []}, ""),
        ({"command": "x", "env": [1]}, "env is no object"),
        ({"command": "${GONE}"}, "the environment has no GONE"),
        ({"command": "x", "args": ["${input:key}"]}, "cannot be asked for"),
        ({"url": "file:///etc/passwd"}, "http:// or https://"),
        ({"url": "https://"}, "http:// or https://"),
        ({"url": "x", "type": "sse"}, "'sse' is not supported"),
        ({"command": "x", "disabled": "yes"}, "disabled is neither true nor false"),
        ({"command": "x", "timeout": 0}, "timeout is not between"),
        ({"command": "x", "timeout": True}, "timeout is not between"),
        ({"command": "x", "includeTools": "all"}, "no list of names"),
    ],
)
def test_what_is_written_wrong_is_a_fault_of_one_server(fields: dict[str, Any], fault: str) -> None:
    found = entry(**fields)
    assert fault in found.fault and bool(found.fault) == bool(fault) and "\n" not in found.fault


@pytest.mark.parametrize(("value", "seconds"), [(60, 60), (999, 999), (1000, 1), (600000, 600), (0.5, 0.5)])
def test_a_timeout_is_seconds_or_milliseconds(value: float, seconds: float) -> None:
    assert entry(command="x", timeout=value).call_seconds == seconds
    assert entry(command="x", timeout=5, tool_timeout_sec=7, startup_timeout_sec=9).call_seconds == 7


def test_what_a_file_permits_permits_nothing() -> None:
    found = entry(command="x", autoApprove=["*"], alwaysAllow=["a"], trust=True, description="mine")
    assert found.notes == ("'alwaysAllow' is not honoured", "'autoApprove' is not honoured", "'trust' is not honoured")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"mcpServers": []}', "{}", "[" * 100_000,
              json.dumps({"mcpServers": {str(n): {} for n in range(65)}})]
)  # fmt: skip
def test_a_file_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mcp.json"
    path.write_text(text)
    with pytest.raises(ConfigInvalid):
        read_servers(path, {})


def test_a_file_that_is_huge_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "mcp.json"
    with pytest.raises(FileAccessError):
        read_servers(path, {})
    path.write_text(" " * (1 << 20) + "{}")
    with pytest.raises(UsageError):
        read_servers(path, {})


def test_which_servers_words_mean(tmp_path: Path) -> None:
    settings = Settings.from_environment({"EDGELLM_HOME": str(tmp_path)})
    assert known_servers(None, settings, {}) == ()
    settings.mcp_servers.parent.mkdir(parents=True)
    settings.mcp_servers.write_text(
        '{"mcpServers": {"files": {"command": "x", "disabled": true}, "time": {"command": "y"}}}'
    )
    configs = known_servers(None, settings, {})
    chosen, others = servers_named(["clock", "files_read", "tim"], configs)
    assert [(each.name, each.is_disabled) for each in chosen] == [("files", False)] and others == ["clock", "tim"]


def test_a_tool_that_a_server_does_not_have(tmp_path: Path) -> None:
    from tests.tools.mcp.servers import server

    with McpServers([server(tmp_path, "good", name="say")], logs=tmp_path, environ={}) as servers:
        servers.start()
        assert [tool.name for tool in tools_named(["say"], servers)] == ["say_echo"]
        assert [tool.name for tool in tools_named(["say_echo", "say"], servers)] == ["say_echo"]
        with pytest.raises(UsageError, match="has no tool say_ecko"):
            tools_named(["say_ecko"], servers)
