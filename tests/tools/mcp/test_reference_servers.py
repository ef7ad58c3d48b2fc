"""The official reference servers, unchanged. Those from npm are looked for on PATH and in EDGELLM_MCP_SERVERS.

npm install @modelcontextprotocol/server-filesystem @modelcontextprotocol/server-memory \
    @modelcontextprotocol/server-everything
EDGELLM_MCP_SERVERS=$PWD/node_modules/.bin python -m pytest tests/tools/mcp
"""

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgellm.tools.mcp.config import ServerConfig
from edgellm.tools.mcp.servers import McpServers
from edgellm.tools.tool import Tool
from tests.serve.tool_world import mcp_server

PLACES = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ.get("EDGELLM_MCP_SERVERS", ""), os.environ.get("PATH", "")]
)
Tools = Callable[..., dict[str, Tool]]


@pytest.fixture
def tools(tmp_path: Path) -> Iterator[Tools]:
    """Starts one of the servers, and returns its tools by name."""
    running: list[McpServers] = []

    def start(program: str, *arguments: str, **env: str) -> dict[str, Tool]:
        found = shutil.which(f"mcp-server-{program}", path=PLACES)
        command = [found] if found else [sys.executable, "-m", f"mcp_server_{program}"]
        if found is None and importlib.util.find_spec(f"mcp_server_{program}") is None:
            pytest.skip(f"mcp-server-{program} is not installed")
        config = ServerConfig(program, command[0], (*command[1:], *arguments), env)
        servers = McpServers([config], logs=tmp_path / "logs", environ=os.environ)
        running.append(servers)
        servers.start()
        assert not servers.problems
        return {tool.name: tool for tool in servers.tools}

    yield start
    for servers in running:
        servers.close()


def test_time(tools: Tools) -> None:
    convert = tools("time")["time_convert_time"]
    found = convert.call({"source_timezone": "Asia/Tokyo", "time": "12:00", "target_timezone": "UTC"})
    assert "T03:00:00" in found.text and not found.error
    assert convert.call({"source_timezone": "Nowhere", "time": "12:00", "target_timezone": "UTC"}).error


def test_filesystem(tools: Tools, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    files = tools("filesystem", str(inside))
    assert not files["filesystem_write_file"].call({"path": str(inside / "a.txt"), "content": "hello"}).error
    assert files["filesystem_read_text_file"].call({"path": str(inside / "a.txt")}).text == "hello"
    assert "[FILE] a.txt" in files["filesystem_list_directory"].call({"path": str(inside)}).text
    assert files["filesystem_read_text_file"].call({"path": "/etc/passwd"}).error


def test_memory(tools: Tools, tmp_path: Path) -> None:
    memory = tools("memory", MEMORY_FILE_PATH=str(tmp_path / "memory.json"))
    entity = {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]}
    assert not memory["memory_create_entities"].call({"entities": [entity]}).error
    assert "wrote programs" in memory["memory_search_nodes"].call({"query": "Ada"}).text


def test_everything(tools: Tools) -> None:
    everything = tools("everything")
    assert everything["everything_echo"].call({"message": "hi"}).text == "Echo: hi"
    assert "not readable here" in everything["everything_get-tiny-image"].call({}).text
    slow = everything["everything_trigger-long-running-operation"]
    assert "completed" in slow.call({"duration": 1, "steps": 4}).text


def test_a_server_over_http(tmp_path: Path) -> None:
    with mcp_server("sesame") as url:
        configs = [
            ServerConfig("numbers", url=url, headers={"Authorization": "Bearer sesame"}),
            ServerConfig("locked", url=url),
            ServerConfig("gone", url="http://127.0.0.1:9/mcp"),
        ]
        with McpServers(configs, logs=tmp_path, environ={}) as servers:
            servers.start()
            (double,) = servers.tools
            assert double.call({"number": 21}).text == "twice 21 is 42"
            assert double.call({"number": "x"}).error
            lines = {problem.server: problem.text for problem in servers.problems}
            assert "locked cannot be reached" in lines["locked"] and "gone cannot be reached" in lines["gone"]
