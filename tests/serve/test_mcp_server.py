"""`edgellm mcp`, driven by the official SDK's own client, and by clients that do not keep to the protocol."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters

from edgellm.mcp_server import McpOffer, offered_tools
from edgellm.workspace import workspace

pytestmark = [pytest.mark.engine, pytest.mark.model]
LONG = "Write a very long story about a dog."


@pytest.fixture(scope="module")
def connect(serve_home: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Connects the SDK's client to an `edgellm mcp` with one collection of documents, which is found by words."""
    notes = tmp_path_factory.mktemp("notes")
    (notes / "warranty.md").write_text("# Warranty\n\nThe warranty of the pump lasts 36 months.\n")
    command = [sys.executable, "-m", "edgellm", "docs", "add", str(notes), "--name", "pumps", "--embed", "none"]
    subprocess.run(command, env=environment(serve_home), check=True, capture_output=True)

    @asynccontextmanager
    async def connect(*arguments: str, mode: str = "auto") -> AsyncIterator[Client]:
        parameters = StdioServerParameters(
            command=sys.executable, args=["-m", "edgellm", "mcp", "--ctx-size", "2048", *arguments],
            env=environment(serve_home),
        )  # fmt: skip
        async with Client(parameters, mode=mode) as client:
            yield client

    yield connect
    # Other tests share the home, and their documents are their own.
    remove = [sys.executable, "-m", "edgellm", "docs", "rm", "pumps"]
    subprocess.run(remove, env=environment(serve_home), check=True, capture_output=True)


def environment(home: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **home}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_sdks_client_asks_with_progress(connect: Callable[..., Any], mode: str) -> None:
    async def work() -> None:
        async with connect(mode=mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools) == {"ask", "embed", "search_documents", "ask_documents"}
            heard: list[tuple[float, float | None, str | None]] = []

            async def hear(done: float, total: float | None, message: str | None) -> None:
                heard.append((done, total, message))

            asked = {"prompt": "What is the capital of France?", "max_tokens": 12}
            answer = await client.call_tool("ask", asked, progress_callback=hear)
            assert not answer.is_error and "Paris" in answer.content[0].text
            assert answer.structured_content["model"] == "smollm2" and heard

    asyncio.run(work())


def test_documents_are_searched_and_asked(connect: Callable[..., Any]) -> None:
    async def work() -> None:
        async with connect("--docs", "pumps") as client:
            question = {"question": "How long does the warranty of the pump last?"}
            found = await client.call_tool("search_documents", question)
            assert found.structured_content["passages"][0]["file"] == "warranty.md"
            answer = await client.call_tool("ask_documents", question)
            assert "36 months" in answer.content[0].text and answer.structured_content["citations"]
        async with connect("--no-docs") as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == {"ask", "embed"}

    asyncio.run(work())


def test_texts_are_embedded(connect: Callable[..., Any], bert_file: Path) -> None:
    async def work() -> None:
        async with connect("--embed", str(bert_file)) as client:
            vectors = (await client.call_tool("embed", {"texts": ["a", "b"]})).structured_content["vectors"]
            assert [len(vector) for vector in vectors] == [384, 384]
            assert abs(sum(each * each for each in vectors[0]) - 1) < 1e-3

    asyncio.run(work())


def test_a_cancelled_call_ends_the_computation(connect: Callable[..., Any]) -> None:
    async def work() -> None:
        async with connect() as client:
            await client.call_tool("ask", {"prompt": "Hi", "max_tokens": 1})  # the model is loaded
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.call_tool("ask", {"prompt": LONG}), 0.2)
            began = time.monotonic()
            await client.call_tool("ask", {"prompt": "Hi", "max_tokens": 1})
            assert time.monotonic() - began < 10  # a whole story takes longer

    asyncio.run(work())


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("ask", {}, "'prompt' is a required property"),
    ("ask", {"prompt": ""}, "arguments of ask are wrong"),
    ("ask", {"prompt": "x", "max_tokens": 10**9}, "arguments of ask are wrong"),
    ("ask", {"prompt": "x", "shell": "rm"}, "arguments of ask are wrong"),
    ("ask", {"prompt": "word " * 3000}, "the context holds 2,048"),
    ("embed", {"texts": []}, "arguments of embed are wrong"),
    ("search_documents", {"question": "x", "collection": "../etc"}, "arguments of search_documents are wrong"),
    ("nothing", {}, "there is no tool nothing"),
]


def test_wrong_calls_are_errors_of_one_line(connect: Callable[..., Any]) -> None:
    async def work() -> None:
        async with connect() as client:
            answers = [(await client.call_tool(tool, arguments), said) for tool, arguments, said in WRONG]
        for answer, said in answers:
            assert answer.is_error and said in answer.content[0].text and "\n" not in answer.content[0].text

    asyncio.run(work())


def test_nothing_but_the_protocol_is_on_standard_output(serve_home: dict[str, str]) -> None:
    begin = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }  # fmt: skip
    asked = {"name": "ask", "arguments": {"prompt": "Hi", "max_tokens": 2}}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": asked}
    begun = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    lines = [
        json.dumps(begin),
        json.dumps(begun),
        "not json",
        '{"jsonrpc": "2.0"}',
        "[1, 2]",
        "\x00\xff",
        json.dumps(call),
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgellm", "mcp", "--ctx-size", "2048"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env=environment(serve_home),
    )  # fmt: skip
    assert process.stdin and process.stdout
    process.stdin.write("".join(f"{line}\n" for line in lines).encode("latin-1"))
    process.stdin.flush()
    answers = []
    while not any(answer.get("id") == 2 for answer in answers):
        answers.append(json.loads(process.stdout.readline()))
    process.stdin.close()
    rest = process.stdout.read()
    assert process.wait(20) == 0 and not rest
    process.stdout.close()
    assert process.stderr
    process.stderr.close()
    assert all(answer["jsonrpc"] == "2.0" for answer in answers)


def test_what_a_host_is_to_be_told(serve_home: dict[str, str]) -> None:
    command = [sys.executable, "-m", "edgellm", "mcp", "--no-docs", "-m", "smollm2"]
    done = subprocess.run([*command, "--json"], env=environment(serve_home), capture_output=True, check=True)
    entry = json.loads(done.stdout)["mcpServers"]["edgellm"]
    assert Path(entry["command"]).is_absolute() and entry["args"][-4:] == ["mcp", "--no-docs", "-m", "smollm2"]
    command = [*command[:4], "--docs", "nothing"]
    wrong = subprocess.run(command, env=environment(serve_home), capture_output=True, check=False)
    assert wrong.returncode != 0 and not wrong.stdout and b"nothing" in wrong.stderr


def test_the_tools_are_those_of_the_offer() -> None:
    offer = McpOffer(workspace(), documents=())
    assert [tool.name for tool in offered_tools(offer)] == ["ask", "embed"]
