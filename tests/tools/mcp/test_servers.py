"""MCP servers that behave, and servers that do not: each of those costs one clear line and nothing else."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.tools.consent import Consent
from edgellm.tools.mcp.config import ServerConfig
from edgellm.tools.mcp.faults import McpFailed
from edgellm.tools.mcp.servers import McpServers, tool_name
from edgellm.tools.tool import Risk
from edgellm.tools.toolbox import Toolbox
from tests.tools.mcp.servers import server

Start = Callable[..., McpServers]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts servers, and ends them after the test."""
    running: list[McpServers] = []

    def start(*configs: ServerConfig, environ: dict[str, str] | None = None) -> McpServers:
        servers = McpServers(configs, logs=tmp_path / "logs", environ=environ or dict(os.environ))
        running.append(servers)
        servers.start()
        return servers

    yield start
    for servers in running:
        servers.close()


def test_a_tool_of_a_server_is_a_tool_like_others(start: Start, tmp_path: Path) -> None:
    servers = start(server(tmp_path, "good", name="say"))
    (echo,) = servers.tools
    assert (echo.name, echo.source, echo.risk) == ("say_echo", "mcp:say", Risk.ACTS)
    assert servers.origins == {"say_echo": ("say", "echo")} and not servers.problems
    assert echo.call({"text": "hello"}).text == "hello"
    assert Toolbox([echo], Consent(everything=True)).call("say_echo", '{"text": "a\\u001b[31mb"}').text == "ab"


def test_a_server_may_act_whatever_it_says_of_itself(start: Start, tmp_path: Path) -> None:
    liar = next(tool for tool in start(server(tmp_path, "lies")).tools if tool.name == "test_liar")
    assert liar.risk is Risk.ACTS
    assert Toolbox([liar], Consent(ask=None)).call("test_liar", "{}").error


def test_what_cannot_be_used_is_left_out_with_a_line_each(start: Start, tmp_path: Path) -> None:
    servers = start(server(tmp_path, "lies"))
    assert {tool.name for tool in servers.tools} == {"test_echo", "test_liar"}
    lines = {problem.text for problem in servers.problems}
    expected = {
        "huge": "bytes", "deep": "deep", "remote": "never fetched", "dangling": "nothing in the schema",
        "wrong": "JSON schema", "pattern": "JSON schema", "bad?[31mname": "printable",
    }  # fmt: skip
    for name, why in expected.items():
        assert any(line.startswith(f"its tool {name} is left out: ") and why in line for line in lines), (name, lines)
    assert len(lines) == len(expected) and all("\n" not in line and line.isprintable() for line in lines)


def test_a_description_is_printable_and_bounded(start: Start, tmp_path: Path) -> None:
    liar = next(tool for tool in start(server(tmp_path, "lies")).tools if tool.name == "test_liar")
    assert liar.description.isprintable() and len(liar.description) < 2100


def test_results_are_not_checked_by_patterns_of_the_server(start: Start, tmp_path: Path) -> None:
    liar = next(tool for tool in start(server(tmp_path, "lies")).tools if tool.name == "test_liar")
    began = time.monotonic()
    assert "aaaa" in liar.call({}).text
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("dies_at_start", "cannot be started: it ended with exit status 3; its last words: no licence key"),
        ("hangs_at_start", "cannot be started: it gave no answer within 2 s"),
        ("hangs_at_list", "does not list its tools: it gave no answer within 2 s"),
        ("lists_without_end", "lists tools without end: 500 are the most"),
        ("lists_nonsense", "does not list its tools: its answer breaks the protocol: tools: "),
        ("lists_an_array", "its answer breaks the protocol: tools.0.inputSchema.type: "),
    ],
)
def test_a_server_that_cannot_be_used_costs_one_line(start: Start, tmp_path: Path, kind: str, line: str) -> None:
    good = server(tmp_path, "good", name="good")
    servers = start(server(tmp_path, kind, name="bad", start_seconds=2.0), good)
    assert [tool.name for tool in servers.tools] == ["good_echo"]
    (problem,) = servers.problems
    assert problem.is_fatal and line in problem.text and "\n" not in problem.text


def test_a_program_that_is_not_there(start: Start, tmp_path: Path) -> None:
    no_directory = ServerConfig("lost", "sh", cwd=str(tmp_path / "nowhere"))
    servers = start(ServerConfig("gone", "no-such-program"), no_directory)
    assert [problem.text for problem in servers.problems] == [
        "the MCP server gone cannot be started: no-such-program is not installed",
        f"the MCP server lost cannot be started: there is no directory {tmp_path}/nowhere",
    ]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("dies_at_call", "it ended with exit status 7; its last words: out of cheese"),
        ("hangs_at_call", "it gave no answer within 1 s"),
        ("is_slow", "1 s were not enough"),
        ("floods", "a message of more than 8 MiB"),
        ("floods_lines", "it does not stop printing"),
        ("returns_nonsense", ""),
        ("returns_too_much", "a message of more than 8 MiB"),
    ],
)
def test_a_call_that_fails_says_why_in_one_line(start: Start, tmp_path: Path, kind: str, why: str) -> None:
    seconds = 1.0 if kind in ("hangs_at_call", "is_slow") else 30.0
    (tool,) = start(server(tmp_path, kind, call_seconds=seconds)).tools
    with pytest.raises(McpFailed) as failed:
        tool.call({"text": "a"})
    assert failed.value.what == "the MCP server test did not do echo"
    assert why in failed.value.why and "\n" not in failed.value.why
    if seconds > 1:
        assert Toolbox([tool], Consent(everything=True)).call("test_echo", {"text": "a"}).error


def test_a_server_that_died_is_started_again_by_the_next_call(start: Start, tmp_path: Path) -> None:
    (tool,) = start(server(tmp_path, "dies_once", str(tmp_path / "died"))).tools
    with pytest.raises(McpFailed):
        tool.call({"text": "a"})  # it may have had its effect, so it is not made again
    assert tool.call({"text": "a"}).text == "second life"


def test_a_server_that_always_dies_is_not_started_for_ever(start: Start, tmp_path: Path) -> None:
    (tool,) = start(server(tmp_path, "dies_at_call")).tools
    whys = []
    for _ in range(6):
        with pytest.raises(McpFailed) as failed:
            tool.call({"text": "a"})
        whys.append(failed.value.what)
    assert "is not started again" in whys[-1]


def test_what_is_no_message_goes_to_the_log(start: Start, tmp_path: Path) -> None:
    (tool,) = start(server(tmp_path, "greets")).tools
    assert tool.call({"text": "a"}).text == "a"
    log = tmp_path / "logs" / "mcp-test.log"
    assert "Welcome to my server!" in log.read_text() and log.stat().st_mode & 0o777 == 0o600


def test_the_log_is_bounded(start: Start, tmp_path: Path) -> None:
    (tool,) = start(server(tmp_path, "floods_errors")).tools
    assert tool.call({"text": "a"}).text == "done"
    files = list((tmp_path / "logs").iterdir())
    assert len(files) <= 2 and sum(file.stat().st_size for file in files) < 3 << 20


def test_all_kinds_of_results_become_text_and_sources(start: Start, tmp_path: Path) -> None:
    (tool,) = start(server(tmp_path, "returns_all_kinds")).tools
    found = tool.call({"text": "a"})
    assert found.text.splitlines() == [
        "first", "[image/png, 6 bytes, not readable here]", "A page: https://example.org/page", "inside",
    ]  # fmt: skip
    assert [source.place for source in found.sources] == ["https://example.org/page", "file:///notes.txt"]


def test_a_refusal_and_a_long_result(start: Start, tmp_path: Path) -> None:
    servers = start(server(tmp_path, "refuses", name="a"), server(tmp_path, "returns_much", name="b"))
    refused, much = (tool.call({"text": "a"}) for tool in servers.tools)
    assert refused.error and refused.text == "there is no such file"
    assert not much.error and much.text.endswith("[cut off: 3,000,000 characters]") and len(much.text) < 400_100


def test_a_server_cannot_make_us_run_a_model(start: Start, tmp_path: Path) -> None:
    (tool,) = start(server(tmp_path, "asks_back")).tools
    assert tool.call({"text": "a"}).text == "refused"


def test_a_server_gets_its_own_environment_and_not_ours(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    (tool,) = start(server(tmp_path, "shows_environment", env={"ITS_KEY": "1"})).tools
    shown = tool.call({"text": "a"}).text
    assert '"ITS_KEY": "1"' in shown and "PATH" in shown and "secret" not in shown


def test_what_a_server_started_ends_with_it(start: Start, tmp_path: Path) -> None:
    servers = start(server(tmp_path, "leaves_a_child"))
    pid = int(servers.tools[0].call({"text": "a"}).text)
    os.kill(pid, 0)
    servers.close()
    end = time.monotonic() + 5
    while _is_alive(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_names_are_unique_and_what_models_can_call() -> None:
    taken: set[str] = set()
    for server_name, name in [("files", "read"), ("files", "files_read"), ("my files!", "read it"), ("9", "x")]:
        taken.add(tool_name(server_name, name, taken))
    assert taken == {"files_read", "files_read_2", "my_files_read_it", "_9_x"}
    long = {tool_name("s" * 40, "t" * 60 + end, ()) for end in ("a", "b")}
    assert len(long) == 2 and all(len(name) <= 64 for name in long)


def test_only_and_without(start: Start, tmp_path: Path) -> None:
    servers = start(
        server(tmp_path, "good", name="a", only=frozenset({"other"})),
        server(tmp_path, "good", name="b", without=frozenset({"echo"})),
        server(tmp_path, "good", name="c", only=frozenset({"echo"})),
    )
    assert [tool.name for tool in servers.tools] == ["c_echo"]


def test_nothing_is_started_for_no_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgellm.tools.mcp.servers as module

    def missing() -> Any:
        raise AssertionError("the SDK is not needed")

    monkeypatch.setattr(module, "require_sdk", missing)
    with McpServers([ServerConfig("a", "x", is_disabled=True)], logs=tmp_path, environ={}) as servers:
        servers.start()
        assert not servers.tools
