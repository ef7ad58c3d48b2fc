"""Fields of requests that need an answer to be seen: zero tokens, a context, counts on chunks, tools left out."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.wire.openai_requests import DEFAULT_MAX_TOKENS
from tests.serve.recordings import events, folded
from tests.serve.server import Server
from tests.serve.test_service import CHAT, COMPLETIONS, MESSAGES, PROTOCOLS, house, lines, usage_of, within

# How each protocol limits an answer.
LIMITS = {
    CHAT: "max_completion_tokens", COMPLETIONS: "max_tokens", "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens", "/api/chat": "num_predict", "/api/generate": "num_predict",
}  # fmt: skip
WEB_SEARCH, TOOL = {"type": "web_search", "external_web_access": False}, {"type": "function", "name": "f"}


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a socket's has at most 100 characters."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def asked(path: str, **fields: Any) -> dict[str, Any]:
    """A request with further fields, which Ollama's have in their options."""
    body = PROTOCOLS[path]
    return {**body, "options": fields} if path.startswith("/api/") else {**body, **fields}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", PROTOCOLS)
def test_no_tokens_are_none_and_the_prompt_is_read(directory: Path, path: str, stream: bool) -> None:
    async def work() -> None:
        async with house(directory) as made:
            answer = await made.post(path, {**asked(path, **{LIMITS[path]: 0}), "stream": stream})
            assert answer.status == 200 and answer.is_whole
            ended = [each for each in lines(answer) if "usage" in json.dumps(each) or each.get("done")][-1]
            n_prompt, n_completion = usage_of(ended)
            assert n_prompt > 0 and n_completion == 0
            text = answer.body.decode()
            assert "length" in text or "max_tokens" in text or "max_output_tokens" in text
            for piece in folded(events("completion" if "completion" in made.asked[-1] else "chat")).choice.text.split():
                assert f'"{piece}"' not in text
            assert made.asked[-1]["max_tokens"] == 0 and made.metrics.models["fake"].completion_tokens == 0

    within(work())


def test_no_limit_is_another_thing_than_zero(directory: Path) -> None:
    async def work() -> None:
        async with house(directory) as made:
            limits = []
            for path in PROTOCOLS:
                assert (await made.post(path, {**PROTOCOLS[path], "stream": False})).status == 200
                limits.append(made.asked[-1].get("max_tokens"))
            assert limits == [None, DEFAULT_MAX_TOKENS, None, 64, -1, -1]

    within(work())


@pytest.mark.parametrize("path", PROTOCOLS)
def test_a_context_is_taken_up_to_the_served_one(directory: Path, path: str) -> None:
    async def work() -> None:
        async with house(directory) as made:
            small = await made.post(path, {**asked(path, num_ctx=512, num_keep=4), "stream": False})
            assert small.status == 200 and not {"num_ctx", "num_keep"} & made.asked[-1].keys()
            large = await made.post(path, {**asked(path, num_ctx=2048), "stream": False})
            assert large.status == 400 and b"num_ctx: 2,048 is more than the 512 tokens" in large.body
            assert b"--ctx-size 2048" in large.body

    within(work())


@pytest.mark.parametrize("wants_timings", [None, True])
def test_counts_come_on_every_chunk_for_who_asks(directory: Path, wants_timings: bool | None) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = {**MESSAGES, "stream": True, "stream_options": options, "timings_per_token": wants_timings}

    async def work() -> None:
        async with house(directory, stream="chat_timings") as made:
            first, *pieces, end, usage = lines(await made.post(CHAT, body))
            assert made.asked[-1]["timings_per_token"] is True and "usage" not in first
            assert [each["usage"]["completion_tokens"] for each in pieces] == [1, 2, 3]
            assert {each["usage"]["prompt_tokens"] for each in pieces} == {12}
            assert all(("timings" in each) is bool(wants_timings) for each in pieces)
            assert end["usage"] == usage["usage"] == {**pieces[-1]["usage"], "total_tokens": 15}
            assert (await made.post(CHAT, {**body, "stream": False})).status == 200
            assert made.asked[-1].get("timings_per_token") is wants_timings

    within(work())


@pytest.mark.parametrize("stream", [False, True])
def test_tools_that_only_their_provider_runs_are_left_out_and_named(directory: Path, stream: bool) -> None:
    named = [{"type": "web_search"}, {"type": "namespace", "name": "agents"}]
    tools = [TOOL, WEB_SEARCH, {"type": "namespace", "name": "agents", "description": "a", "tools": [TOOL]}]
    browse = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}

    async def work() -> None:
        async with house(directory) as made:
            answer = await made.post("/v1/responses", {"input": "Hello", "tools": tools, "stream": stream})
            last = lines(answer)[-1]["response"] if stream else answer.json()
            assert last["edgellm"] == {"tools_left_out": named}
            assert [each["name"] for each in last["tools"]] == ["f"]
            assert [each["function"]["name"] for each in made.asked[-1]["tools"]] == ["f"]
            body = {**PROTOCOLS["/v1/messages"], "tools": [{"name": "f", "input_schema": {}}, browse], "stream": stream}
            answer = await made.post("/v1/messages", body)
            found = next(each["edgellm"] for each in lines(answer) if "edgellm" in each)
            assert found == {"tools_left_out": [{"type": browse["type"], "name": "web_search"}]}
            alone = await made.post(
                "/v1/responses", {"input": "Hello", "tools": [WEB_SEARCH], "tool_choice": "required"}
            )
            assert alone.status == 400 and alone.json()["error"]["param"] == "tool_choice"

    within(work())


@pytest.mark.parametrize("stream", [False, True])
def test_thoughts_that_are_not_wanted_are_not_sent(directory: Path, stream: bool) -> None:
    choice = folded(events("chat_thought")).choice
    word = next(each for each in map(str.strip, choice.blocks[0].pieces) if len(each) > 1 and each not in choice.text)

    async def work() -> None:
        async with house(directory, stream="chat_thought") as made:
            body = {**PROTOCOLS["/v1/messages"], "stream": stream, "context_management": {"edits": []}}
            shown = await made.post("/v1/messages", {**body, "thinking": {"type": "adaptive"}})
            assert word in shown.body.decode()
            hidden = await made.post("/v1/messages", {**body, "thinking": {"type": "adaptive", "display": "omitted"}})
            assert word not in hidden.body.decode() and b'"type":"thinking","thinking":""' in hidden.body
            assert b'"context_management":{"applied_edits":[]}' in hidden.body

    within(work())


@pytest.mark.engine
@pytest.mark.model
def test_no_tokens_with_the_real_worker_and_what_it_counts(server: Server) -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    body = {"model": "smollm2", "messages": messages, "temperature": 0}
    read = server.post(CHAT, {**body, "max_tokens": 0}).json()
    assert read["choices"][0] == {
        "index": 0, "message": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": "length",
    }  # fmt: skip
    assert read["usage"]["completion_tokens"] == read["timings"]["predicted_n"] == 0
    answer = server.post(CHAT, {**body, "max_tokens": 1}).json()
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == read["usage"]["prompt_tokens"] - 1
    counts = {"model": "smollm2", "max_tokens": 5, "messages": messages, "context_management": {"edits": []}}
    counted = server.post("/v1/messages/count_tokens", counts).json()
    assert counted["context_management"] == {"original_input_tokens": counted["input_tokens"]}


@pytest.mark.engine
@pytest.mark.model
def test_the_size_of_a_vector_is_the_model_s(server: Server) -> None:
    body = {"model": "bert", "input": "the cat"}
    assert server.post("/v1/embeddings", {**body, "dimensions": 384, "num_ctx": 99999}).status == 200
    refused = server.post("/v1/embeddings", {**body, "dimensions": 1536})
    assert refused.status == 400 and refused.json()["error"]["param"] == "dimensions"
    assert "have 384 numbers; send 384 or leave it out" in refused.json()["error"]["message"]
