"""Tools that the server runs itself, driven by the SDKs of OpenAI and Anthropic, openai-agents and pydantic-ai."""

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.serve.server import Server
from tests.serve.tool_world import mcp_server, search_engine
from tests.tools.mcp.servers import server as mcp_program

pytestmark = [pytest.mark.engine, pytest.mark.model]
SUM = "What is 17 * 23?"
TOWER = "Search the web: how tall is the Eiffel Tower?"
DOUBLE = "Double the number 21."


@pytest.fixture(scope="module")
def numbers() -> Iterator[str]:
    """The address of an MCP server on loopback, which wants a key."""
    with mcp_server("sesame") as url:
        yield url


@pytest.fixture(scope="module")
def tool_server(
    start: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory, numbers: str
) -> Iterator[Server]:
    """A server that runs tools: a calculator, a web search, and the MCP server `say`."""
    directory = tmp_path_factory.mktemp("tools")
    program = mcp_program(directory, "good", name="say")
    entry = {"command": program.command, "args": list(program.args)}
    file = directory / "mcp.json"
    file.write_text(json.dumps({"mcpServers": {"say": entry}}))
    host = numbers.split("/")[2]
    with (
        search_engine() as engine,
        start(
            "smollm2", "--slots", "2", "--ctx-size", "2048", "--mcp", str(file), "--mcp-host", host,
            "--tools", f"calculator,say,web_search:{engine}",
        ) as server,
    ):  # fmt: skip
        yield server


@pytest.fixture(scope="module")
def client(tool_server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{tool_server.url}/v1", api_key="none", max_retries=0)


def own(*tools: str, label: str = "edgellm", **more: Any) -> dict[str, Any]:
    """A server's tools, to be called without a question."""
    return {"type": "mcp", "server_label": label, "allowed_tools": list(tools), "require_approval": "never", **more}


def events_of(stream: Any) -> list[Any]:
    return list(stream)


def test_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "smollm2", "messages": [{"role": "user", "content": SUM}], "temperature": 0,
        "extra_body": {"server_tools": ["calculator"]},
    }  # fmt: skip
    whole = client.chat.completions.create(**asked)
    message = whole.choices[0].message
    assert "391" in (message.content or "") and not message.tool_calls and whole.choices[0].finish_reason == "stop"
    (call,) = whole.model_dump()["edgellm"]["tools"]
    assert call["name"] == "calculator" and "391" in call["output"] and not call["error"]
    assert whole.usage and whole.usage.completion_tokens > 5 and whole.usage.prompt_tokens > 50
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == message.content
    assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks)
    (ran,) = [chunk.model_dump()["edgellm"]["tools"][0] for chunk in chunks if "edgellm" in chunk.model_dump()]
    assert ran["name"] == "calculator" and ran["output"] == call["output"]
    assert len({chunk.id for chunk in chunks}) == 1


def test_all_tools_are_offered_by_one_word(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(
        model="smollm2", messages=[{"role": "user", "content": SUM}], temperature=0, extra_body={"server_tools": True}
    )
    assert "391" in (whole.choices[0].message.content or "")


def test_pages_are_cited(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "smollm2", "messages": [{"role": "user", "content": TOWER}], "temperature": 0, "max_tokens": 60,
        "tool_choice": {"type": "function", "function": {"name": "web_search"}},
        "extra_body": {"server_tools": ["web_search", "calculator"]},
    }  # fmt: skip
    message = client.chat.completions.create(**asked).choices[0].message
    assert "330" in (message.content or "") and message.annotations
    cited = [each.url_citation for each in message.annotations]
    assert {each.url for each in cited} == {"https://example.org/eiffel", "https://example.org/paris"}
    assert all(0 <= each.start_index <= each.end_index <= len(message.content or "") for each in cited)
    last = list(client.chat.completions.create(**asked, stream=True))[-1].choices[0]
    assert last.finish_reason == "stop" and len(last.delta.model_dump()["annotations"]) == 2


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"server_tools": ["calculatr"]}, "unknown-tool", "did you mean calculator?"),
        ({"server_tools": ["calculator"], "n": 2}, "bad-field", "n: "),
        ({"server_tools": ["calculator"], "logprobs": True}, "bad-field", "logprobs"),
        ({"server_tools": "calculator"}, "bad-field", "server_tools"),
        (
            {"server_tools": ["calculator"], "tools": [{"type": "function", "function": {"name": "calculator"}}]},
            "bad-field", "of its own",
        ),
        (
            {"server_tools": ["calculator"], "tool_choice": {"type": "function", "function": {"name": "clock"}}},
            "bad-field", "clock",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(tool_server: Server, fields: dict[str, Any], code: str, said: str) -> None:
    body = {"model": "smollm2", "messages": [{"role": "user", "content": SUM}], **fields}
    reply = tool_server.post("/v1/chat/completions", body)
    assert reply.status == 400 and reply.json()["error"]["code"] == code and said in reply.json()["error"]["message"]


def test_a_server_without_tools_runs_none(server: Server) -> None:
    body = {"model": "smollm2", "messages": [{"role": "user", "content": SUM}], "server_tools": ["calculator"]}
    reply = server.post("/v1/chat/completions", body)
    assert reply.status == 400 and "edgellm serve --tools" in reply.json()["error"]["message"]
    tools = [{"type": "web_search"}, {"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:9/mcp"}]
    answer = server.post("/v1/responses", {"input": "Hello", "tools": tools, "max_output_tokens": 3}).json()
    assert answer["edgellm"]["tools_left_out"] == [{"type": "web_search"}, {"type": "mcp", "name": "x"}]


def test_the_log_has_the_call_and_not_its_text(tool_server: Server, serve_home: dict[str, str]) -> None:
    messages = [{"role": "user", "content": "What is 4321 * 2?"}]
    tool_server.post("/v1/chat/completions", {"messages": messages, "server_tools": ["calculator"], "temperature": 0})
    log = (Path(serve_home["EDGELLM_HOME"]) / "data" / "logs" / "serve.log").read_text()
    assert "tool calculator of edgellm: done in" in log and "4321" not in log
    assert 'edgellm_tool_calls_total{tool="calculator",outcome="done"}' in tool_server.get("/metrics").body.decode()


def test_web_search_in_responses(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "smollm2", "input": TOWER, "tools": [{"type": "web_search"}], "temperature": 0,
        "max_output_tokens": 80, "tool_choice": {"type": "web_search_preview"},
        "include": ["web_search_call.action.sources"],
    }  # fmt: skip
    whole = client.responses.create(**asked)
    search, message = whole.output
    assert search.type == "web_search_call" and search.status == "completed"
    assert search.action.type == "search" and search.action.query and len(search.action.sources or []) == 2
    assert message.type == "message" and "330" in whole.output_text
    assert {each.type for each in message.content[0].annotations} == {"url_citation"}  # type: ignore[union-attr]
    kinds, last = [], None
    for event in client.responses.create(**asked, stream=True):
        kinds.append(event.type)
        last = event
    assert last is not None and last.type == "response.completed" and last.response.output_text == whole.output_text
    begun = kinds.index("response.output_item.added")
    assert kinds[begun : begun + 5] == [
        "response.output_item.added", "response.web_search_call.in_progress", "response.web_search_call.searching",
        "response.web_search_call.completed", "response.output_item.done",
    ]  # fmt: skip
    assert "response.output_text.annotation.added" in kinds
    with client.responses.stream(**asked) as stream:
        assert stream.get_final_response().output_text == whole.output_text


def test_an_own_mcp_server_in_responses(client: openai.OpenAI) -> None:
    asked: Any = {
        "model": "smollm2", "input": SUM, "tools": [own("calculator")], "temperature": 0, "max_output_tokens": 80
    }  # fmt: skip
    whole = client.responses.create(**asked)
    listed, call, _ = whole.output
    assert listed.type == "mcp_list_tools" and [tool.name for tool in listed.tools] == ["calculator"]
    assert call.type == "mcp_call" and (call.name, call.server_label) == ("calculator", "edgellm") and call.output
    assert "391" in whole.output_text
    kinds = [event.type for event in client.responses.create(**asked, stream=True)]
    for kind in ("mcp_list_tools.completed", "mcp_call_arguments.done", "mcp_call.completed", "output_text.done"):
        assert f"response.{kind}" in kinds
    again = client.responses.create(
        **{**asked, "input": [{"role": "user", "content": SUM}, *whole.output, {"role": "user", "content": "Thanks!"}]}
    )
    assert "mcp_list_tools" not in [item.type for item in again.output]


def test_a_call_that_the_client_approves(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "mcp", "server_label": "edgellm", "allowed_tools": ["calculator"]}]
    asked: Any = {"model": "smollm2", "tools": tools, "temperature": 0, "max_output_tokens": 80}
    question: Any = {"role": "user", "content": SUM}
    first = client.responses.create(**asked, input=[question])
    request = first.output[-1]
    assert request.type == "mcp_approval_request" and "17" in request.arguments and first.output_text == ""
    for approve in (True, False):
        decided: Any = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": approve}
        answer = client.responses.create(**asked, input=[question, *first.output, decided])
        calls = [item for item in answer.output if item.type == "mcp_call"]
        assert [call.approval_request_id for call in calls] == [request.id] * approve
        assert ("391" in answer.output_text) == approve
    with pytest.raises(openai.BadRequestError, match="no mcp_approval_request"):
        unknown: Any = {"type": "mcp_approval_response", "approval_request_id": "mcpr_x", "approve": True}
        client.responses.create(**asked, input=[question, unknown])


def test_an_mcp_server_of_the_clients_choice(client: openai.OpenAI, numbers: str) -> None:
    tool = own("double", label="numbers", server_url=numbers, authorization="sesame")
    asked: Any = {
        "model": "smollm2", "input": DOUBLE, "tools": [tool], "tool_choice": "required", "temperature": 0,
        "max_output_tokens": 100,
    }  # fmt: skip
    whole = client.responses.create(**asked)
    call = next(item for item in whole.output if item.type == "mcp_call")
    assert call.output and call.output.endswith("twice 21 is 42") and "sesame" not in whole.model_dump_json()
    tool = own("double", label="numbers", server_url=numbers, authorization="wrong")
    whole = client.responses.create(**{**asked, "tools": [tool], "tool_choice": "auto", "max_output_tokens": 5})
    listed = whole.output[0]
    assert listed.type == "mcp_list_tools" and not listed.tools and "cannot be reached" in (listed.error or "")


def test_a_request_names_few_servers(tool_server: Server, numbers: str) -> None:
    tools = [own("double", label=f"n{n}", server_url=numbers) for n in range(9)]
    reply = tool_server.post("/v1/responses", {"input": "Hi", "tools": tools})
    assert reply.status == 400 and "8 are the most" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/mcp", "http://localhost/mcp", "https://example.com/mcp", "file:///etc/passwd", "x"]
)
def test_other_addresses_are_refused(tool_server: Server, url: str) -> None:
    tools = [own("a", label="x", server_url=url)]
    reply = tool_server.post("/v1/responses", {"input": "Hi", "tools": tools})
    assert reply.status == 403 and reply.json()["error"]["code"] == "address-refused"


def test_unknown_labels_are_refused(tool_server: Server) -> None:
    reply = tool_server.post("/v1/responses", {"input": "Hi", "tools": [own("a", label="files")]})
    assert reply.status == 400 and "only edgellm, say" in reply.json()["error"]["message"]
    reply = tool_server.post(
        "/v1/responses", {"input": "Hi", "tools": [{"type": "web_search", "filters": {"allowed_domains": ["a.b"]}}]}
    )
    assert reply.status == 400 and reply.json()["error"]["param"] == "tools.0.filters"


def test_anthropics_search_and_servers(tool_server: Server) -> None:
    client = anthropic.Anthropic(base_url=tool_server.url, api_key="none", max_retries=0)
    asked: Any = {
        "model": "smollm2", "max_tokens": 80, "messages": [{"role": "user", "content": TOWER}],
        "extra_body": {"temperature": 0},
        "tools": [{"type": "web_search_20250305", "name": "web_search"}],
        "tool_choice": {"type": "tool", "name": "web_search"},
    }  # fmt: skip
    whole = client.messages.create(**asked)
    use, found, text = whole.content
    assert use.type == "server_tool_use" and use.name == "web_search" and use.input
    assert found.type == "web_search_tool_result" and found.tool_use_id == use.id
    assert isinstance(found.content, list) and found.content[0].url == "https://example.org/eiffel"
    assert text.type == "text" and "330" in text.text and text.citations and whole.stop_reason == "end_turn"
    with client.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    assert [block.type for block in streamed.content] == [block.type for block in whole.content]
    assert streamed.content[2].text == text.text  # type: ignore[union-attr]
    turns: Any = [
        *asked["messages"],
        {"role": "assistant", "content": [block.model_dump() for block in whole.content]},
        {"role": "user", "content": "And in feet?"},
    ]
    again = client.messages.create(**{**asked, "messages": turns, "tool_choice": {"type": "none"}, "max_tokens": 3})
    assert again.content[0].type == "text"
    beta = client.beta.messages.create(
        model="smollm2", max_tokens=80, extra_body={"temperature": 0}, messages=[{"role": "user", "content": SUM}],
        mcp_servers=[{"type": "url", "name": "edgellm", "url": "https://nowhere.example/mcp"}],
        betas=["mcp-client-2025-04-04"],
    )  # fmt: skip
    kinds = [block.type for block in beta.content]
    assert kinds == ["mcp_tool_use", "mcp_tool_result", "text"] and "391" in str(beta.content[2])


def test_openai_agents_drives_search_and_servers(tool_server: Server) -> None:
    from agents import (
        Agent,
        HostedMCPTool,
        ModelSettings,
        OpenAIResponsesModel,
        Runner,
        WebSearchTool,
        set_tracing_disabled,
    )

    set_tracing_disabled(True)

    async def work() -> None:
        async with openai.AsyncOpenAI(base_url=f"{tool_server.url}/v1", api_key="none", max_retries=0) as client:
            model = OpenAIResponsesModel("smollm2", client)
            settings = ModelSettings(temperature=0, max_tokens=80)
            sums = Agent("sums", model=model, model_settings=settings, tools=[HostedMCPTool(own("calculator"))])  # type: ignore[typeddict-item]
            result = await Runner.run(sums, SUM)
            assert "391" in result.final_output
            streamed = Runner.run_streamed(sums, SUM)
            async for _ in streamed.stream_events():
                pass
            assert streamed.final_output == result.final_output
            searching = ModelSettings(temperature=0, max_tokens=80, tool_choice="web_search")
            finder = Agent("finder", model=model, model_settings=searching, tools=[WebSearchTool()])
            assert "330" in (await Runner.run(finder, TOWER)).final_output

            asked = []

            def approve(request: Any) -> Any:
                asked.append(request.data.name)
                return {"approve": True}

            careful: Any = {**own("calculator"), "require_approval": "always"}
            tools = [HostedMCPTool(careful, on_approval_request=approve)]
            asker = Agent("asker", model=model, model_settings=settings, tools=tools)
            assert "391" in (await Runner.run(asker, SUM)).final_output and asked == ["calculator"]

    asyncio.run(work())


def test_pydantic_ai_drives_search_and_servers(tool_server: Server) -> None:
    from pydantic_ai import Agent
    from pydantic_ai.capabilities import NativeTool
    from pydantic_ai.models.openai import OpenAIResponsesModel
    from pydantic_ai.native_tools import MCPServerTool, WebSearchTool
    from pydantic_ai.providers.openai import OpenAIProvider

    settings: Any = {"temperature": 0, "max_tokens": 80}

    async def work() -> None:
        async with openai.AsyncOpenAI(base_url=f"{tool_server.url}/v1", api_key="none", max_retries=0) as client:
            model = OpenAIResponsesModel("smollm2", provider=OpenAIProvider(openai_client=client))
            server = MCPServerTool(id="edgellm", url="https://nowhere.example/mcp", allowed_tools=["calculator"])
            sums = Agent(model, capabilities=[NativeTool(server)], model_settings=settings)
            result = await sums.run(SUM)
            assert "391" in result.output
            async with sums.run_stream(SUM) as streamed:
                assert await streamed.get_output() == result.output
            finder = Agent(model, capabilities=[NativeTool(WebSearchTool())], model_settings=settings)
            assert "330" in (await finder.run(TOWER)).output

    asyncio.run(work())
