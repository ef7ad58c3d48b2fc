"""What real clients send, as it was recorded, and what each of them needs of the answer; and OpenAI's own client."""

import base64
import http.client
import json
import select
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import psutil
import pytest

from tests.serve.server import Reply, Server
from tests.serve.test_ollama import WEATHER

pytestmark = [pytest.mark.engine, pytest.mark.model]

# openai-node 4 in AnythingLLM's connectors.
NODE = {
    "User-Agent": "OpenAI/JS 4.95.1",
    "Accept": "application/json",
    "Authorization": "Bearer not-needed",
    "X-Stainless-Lang": "js",
    "X-Stainless-Package-Version": "4.95.1",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Runtime": "node",
}
# AnythingLLM puts the minute and what it found in the documents into the system prompt.
CONTEXT = (
    "Given the following conversation, relevant context, and a follow up question, reply with an answer.\n"
    "Today is Wednesday, November 25, 2026 at 10:{minute:02} AM.\n"
    "Context:\n    [CONTEXT 0]:\nThe capital of France is Paris.\n[END CONTEXT 0]\n\n"
)
MESSAGES = [
    {"role": "system", "content": CONTEXT.format(minute=41)},
    {"role": "user", "content": "What is the capital of France?"},
]


def chunked(count: int) -> list[str]:
    """Pieces of documents of up to 1,000 characters, as AnythingLLM cuts them."""
    return [" ".join(["the cat sat", "the dog"] * (1 + number % 8)) + f" {number}" for number in range(count)]


def floats(encoded: str) -> list[float]:
    """What openai-node makes of base64."""
    data = base64.b64decode(encoded)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


# AnythingLLM, Generic OpenAI.


def test_generic_openai_chat(server: Server) -> None:
    body = {"model": "smollm2", "messages": MESSAGES, "temperature": 0, "max_tokens": 24, "stream": True}
    reply = server.post("/v1/chat/completions", body, headers=NODE)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.body.rstrip().endswith(b"data: [DONE]")
    events = reply.events()
    # It stops to read at the first finish_reason: all that it wants must have come by then.
    ends = [number for number, event in enumerate(events) if event["choices"][0].get("finish_reason")]
    finish = events[ends[0]]
    assert "Paris" in "".join(event["choices"][0]["delta"].get("content") or "" for event in events[: ends[0]])
    assert finish["usage"]["completion_tokens"] == finish["timings"]["predicted_n"] > 0
    assert finish["timings"]["predicted_ms"] > 0 and finish["usage"]["prompt_tokens"] > 50


def test_generic_openai_whole_answer(server: Server) -> None:
    body = {"model": "smollm2", "messages": MESSAGES, "temperature": 0.7, "max_tokens": 8}
    told = server.post("/v1/chat/completions", body, headers=NODE).json()
    assert told["choices"][0]["message"]["content"] and told["usage"]["total_tokens"] > 50
    assert told["timings"]["predicted_n"] == told["usage"]["completion_tokens"]


def test_generic_openai_models(server: Server) -> None:
    told = server.get("/v1/models", headers=NODE).json()
    assert {model["id"] for model in told["data"]} == {"smollm2", "bert"}


def test_every_list_knows_a_context_before_the_model_is_loaded(server: Server) -> None:
    server.post("/api/generate", {"model": "smollm2", "keep_alive": 0})
    model = server.get("/v1/models/smollm2").json()
    assert not model["meta"]["loaded"] and model["meta"]["n_ctx"] == model["max_model_len"] == 2048
    assert server.get("/api/v0/models/smollm2").json()["max_context_length"] == 2048
    assert server.get("/api/v1/models").json()["models"][0]["max_context_length"] == 2048
    assert server.post("/api/show", {"model": "smollm2"}).json()["model_info"]["llama.context_length"] == 2048
    assert server.get("/status.json").json()["models"][0]["n_ctx"] == 2048


def test_generic_openai_embeddings_of_500_pieces(server: Server) -> None:
    texts = chunked(500)
    body = {"model": "bert", "input": texts, "encoding_format": "base64"}
    told = server.post("/v1/embeddings", body, headers=NODE).json()
    assert [each["index"] for each in told["data"]] == list(range(500))
    vectors = [floats(each["embedding"]) for each in told["data"]]
    assert {len(vector) for vector in vectors} == {384}
    assert all(any(vector) for vector in vectors)  # a client that is given floats here has 96 zeros
    some = [0, 7, 499]
    plain = server.post("/v1/embeddings", {"model": "bert", "input": [texts[index] for index in some]}, headers=NODE)
    for index, each in zip(some, plain.json()["data"], strict=True):
        # Computed among others a vector differs in its last bits.
        assert vectors[index] == pytest.approx(each["embedding"], abs=2e-3)


def test_base64_is_the_same_numbers(server: Server) -> None:
    body = {"model": "bert", "input": ["the cat"]}
    plain = server.post("/v1/embeddings", {**body, "encoding_format": "float"}).json()["data"][0]["embedding"]
    encoded = server.post("/v1/embeddings", {**body, "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert len(plain) == 384 and floats(encoded) == pytest.approx(plain, abs=1e-6)


# AnythingLLM, LocalAI.


def test_localai(server: Server) -> None:
    body = {"model": "smollm2", "messages": MESSAGES, "temperature": 0, "stream": True}
    events = server.post("/v1/chat/completions", body, headers=NODE).events()
    assert events[-1]["choices"][0]["finish_reason"] == "stop"
    asked = {"model": "bert", "input": chunked(50), "dimensions": None, "encoding_format": "float"}
    told = server.post("/v1/embeddings", asked, headers=NODE).json()
    assert [len(each["embedding"]) for each in told["data"]] == [384] * 50


# AnythingLLM, LM Studio.


def test_lm_studio(server: Server) -> None:
    found = {model["id"]: model for model in server.get("/api/v0/models", headers=NODE).json()["data"]}
    assert found["smollm2"]["type"] == "llm" and found["smollm2"]["max_context_length"] == 2048
    assert found["bert"]["type"] == "embeddings" and found["bert"]["max_context_length"] == 512
    assert server.get("/api/v0/models/smollm2").json()["id"] == "smollm2"
    missing = server.get("/api/v0/models/nosuch")
    assert missing.status == 404 and missing.json()["error"]["code"] == "model_not_found"
    listed = {model["key"]: model for model in server.get("/api/v1/models").json()["models"]}
    assert listed["smollm2"]["type"] == "llm" and listed["bert"]["type"] == "embedding"
    assert listed["smollm2"]["max_context_length"] == 2048 and listed["smollm2"]["size_bytes"] > 90e6


# AnythingLLM, Ollama.


def test_ollama_connector(server: Server) -> None:
    assert server.get("/").status == 200
    names = [model["name"] for model in server.get("/api/tags").json()["models"]]
    limits = {}
    for name in names:
        shown = server.post("/api/show", {"model": name}).json()
        assert shown["capabilities"] == (["embedding"] if name == "bert" else ["completion"])
        limits[name] = next(value for key, value in shown["model_info"].items() if key.endswith(".context_length"))
    assert limits == {"smollm2": 2048, "bert": 512}
    body = {"model": "smollm2", "stream": True, "messages": MESSAGES, "keep_alive": 300}
    options = {"temperature": 0, "num_ctx": limits["smollm2"], "num_predict": 24}
    reply = server.post("/api/chat", {**body, "options": options})
    assert reply.headers["content-type"] == "application/x-ndjson"
    *pieces, last = reply.lines()
    assert "Paris" in "".join(piece["message"]["content"] for piece in pieces)
    assert not any(piece["done"] for piece in pieces) and last["done"]
    assert last["prompt_eval_count"] > 50 and last["eval_count"] == len(pieces) + (last["done_reason"] == "stop")
    assert 1e6 < last["eval_duration"] < 6e10  # nanoseconds
    whole = server.post("/api/chat", {**body, "stream": False, "options": options}).json()
    assert whole["message"]["content"] == "".join(piece["message"]["content"] for piece in pieces)


# What AnythingLLM found in three documents, a question about each, and a word of the right answer.
DOCUMENTS = [
    "The lighthouse of Brenholm was built in 1887 by the engineer Ada Lindqvist. It is 41 metres tall.",
    "The ferry from Brenholm to Oskar Island leaves every day at 9:40. A ticket costs 12 crowns.",
    "The library of Brenholm is closed on Mondays. On other days it opens at 10 o'clock.",
]
QUESTIONS = {
    "Who built the lighthouse of Brenholm?": "Lindqvist",
    "How much does a ticket for the ferry to Oskar Island cost?": "12",
    "On which day is the library closed?": "Monday",
}


@pytest.mark.parametrize(("question", "answer"), QUESTIONS.items())
def test_a_default_workspace_answers_from_the_documents(server: Server, question: str, answer: str) -> None:
    """Its chat mode is automatic: a model that is said to call tools becomes an agent, and never sees the documents."""
    assert "tools" not in server.post("/api/show", {"model": "smollm2"}).json()["capabilities"]
    v0, v1 = server.get("/api/v0/models").json()["data"], server.get("/api/v1/models").json()["models"]
    assert [model["capabilities"] for model in v0] == [[], []]
    assert v1[0]["capabilities"] == {"vision": False, "trained_for_tool_use": False}
    found = "".join(f"    [CONTEXT {n}]:\n{text}\n[END CONTEXT {n}]\n\n" for n, text in enumerate(DOCUMENTS))
    system = CONTEXT.partition("Context:")[0].format(minute=7) + f"Context:\n{found}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    options = {"temperature": 0, "num_ctx": 2048, "num_predict": 32}
    body = {"model": "smollm2", "stream": True, "messages": messages, "keep_alive": 300, "options": options}
    reply = server.post("/api/chat", body)
    assert answer in "".join(piece["message"]["content"] for piece in reply.lines())


def test_tools_are_claimed_for_a_model_that_knows_them(caller: Server) -> None:
    assert caller.post("/api/show", {"model": "caller"}).json()["capabilities"] == ["completion", "tools"]
    assert caller.get("/api/v0/models/caller").json()["capabilities"] == ["tool_use"]
    assert caller.get("/api/v1/models").json()["models"][0]["capabilities"]["trained_for_tool_use"] is True


@pytest.mark.parametrize("num_ctx", [512, 8192])
def test_ollama_connector_embeddings(server: Server, num_ctx: int) -> None:
    """The connector sends the largest piece that its user allows, in characters and as num_ctx."""
    body = {"model": "bert", "input": chunked(20), "options": {"num_ctx": num_ctx}}
    told = server.post("/api/embed", body).json()
    assert [len(vector) for vector in told["embeddings"]] == [384] * 20


# Open WebUI.


def test_open_webui(server: Server) -> None:
    assert {model["id"] for model in server.get("/v1/models").json()["data"]} == {"smollm2", "bert"}
    body = {"model": "smollm2", "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    events = server.post("/v1/chat/completions", {**body, "max_tokens": 8, "temperature": 0}).events()
    assert events[-1]["usage"]["completion_tokens"] > 0 and events[-1]["choices"] == []
    told = server.post("/v1/embeddings", {"model": "bert", "input": ["the cat"]}).json()
    assert isinstance(told["data"][0]["embedding"][0], float)
    title = {"model": "smollm2", "messages": [{"role": "user", "content": "Generate a title."}], "stream": False}
    assert server.post("/v1/chat/completions", {**title, "max_completion_tokens": 6}).status == 200


def built_in_tools() -> list[dict[str, Any]]:
    """36 tools in 25,712 characters, as Open WebUI's browser sends them with every message."""
    text = "Search the web, the notes or the knowledge of this workspace, and return what was found. " * 6
    field = {"type": "string", "description": "What to look for."}
    parameters = {"type": "object", "properties": {"query": field}, "required": ["query"]}
    tools = [
        {"type": "function", "function": {"name": f"search_{n}", "description": text, "parameters": parameters}}
        for n in range(36)
    ]
    tools[-1]["function"]["description"] += "x" * (25_712 - len(json.dumps(tools)))
    return tools


def test_the_first_message_of_open_webui(server: Server) -> None:
    """With what `connect` prints it has no tools; with them it is longer than the context, and the error says so."""
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    events = server.post("/v1/chat/completions", {**body, **stream}).events()
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events[:-1])
    refused = server.post("/v1/chat/completions", {**body, **stream, "tools": built_in_tools()})
    error = refused.json()["error"]
    assert (refused.status, error["code"], error["n_ctx"]) == (400, "context_length_exceeded", 2048)
    assert 5000 < error["n_prompt_tokens"] < 9000 and "it has 36 tools" in error["message"]
    assert "exceeds the available context size" in error["message"] and "larger --ctx-size" in error["message"]


def test_open_webui_as_an_ollama_client(server: Server) -> None:
    assert server.get("/api/version").status == server.get("/api/tags").status == server.get("/api/ps").status == 200
    told = server.post("/api/embed", {"model": "bert", "input": ["the cat"], "truncate": True}).json()
    assert len(told["embeddings"][0]) == 384


# A client that goes away.


@pytest.mark.parametrize(
    ("path", "limit", "stream"),
    [
        ("/api/generate", {"options": {"num_predict": 1500, "ignore_eos": True}}, True),
        ("/v1/completions", {"max_tokens": 1500, "ignore_eos": True}, True),
        ("/v1/completions", {"max_tokens": 1500, "ignore_eos": True}, False),
    ],
)
def test_who_goes_away_is_no_longer_computed_for(
    server: Server, path: str, limit: dict[str, Any], stream: bool
) -> None:
    server.post("/v1/completions", {"model": "smollm2", "prompt": "a", "max_tokens": 1})
    (worker,) = [each for each in map(psutil.Process, server.workers()) if "smollm2" in each.cmdline()]
    body = {"model": "smollm2", "prompt": "Once upon a time", "stream": stream, **limit}
    connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(4)]
    for connection in connections:  # two are answered, two wait
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    if stream:
        assert select.select([connection.sock for connection in connections], [], [], 30)[0]
    _until(lambda: _cpu_seconds(worker, 0.2) > 0, "it was not computing")
    for connection in connections:
        connection.close()
    closed = _cpu_seconds(worker)
    _until(lambda: _cpu_seconds(worker, 0.5) < 0.1, "it goes on computing")
    assert _cpu_seconds(worker) - closed < 5, "it computed what nobody reads"  # all of it takes over 20 seconds


def _until(condition: Callable[[], bool], message: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, message


def _cpu_seconds(process: psutil.Process, during: float | None = None) -> float:
    """The processor time that a process has used, or uses during so many seconds."""
    if during is not None:
        before = _cpu_seconds(process)
        time.sleep(during)
        return _cpu_seconds(process) - before
    times = process.cpu_times()
    return float(times.user + times.system)


# OpenAI's own client.


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="not-needed", max_retries=0) as client:
        yield client


def test_openai_chat(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "smollm2", "messages": MESSAGES, "temperature": 0, "max_tokens": 24}
    whole = client.chat.completions.create(**asked)
    assert "Paris" in (whole.choices[0].message.content or "") and whole.usage and whole.usage.prompt_tokens > 50
    with client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        whole.choices[0].message.content
    )
    assert chunks[-1].usage == whole.usage or chunks[-1].usage is not None


def test_openai_completions_and_models(client: openai.OpenAI) -> None:
    told = client.completions.create(model="smollm2", prompt="The capital of France is", max_tokens=3, temperature=0)
    assert told.choices[0].text.startswith(" Paris") and told.choices[0].finish_reason == "length"
    assert [model.id for model in client.models.list()] == ["smollm2", "bert"]
    assert client.models.retrieve("smollm2:latest").id == "smollm2"


def test_openai_embeddings(client: openai.OpenAI, server: Server) -> None:
    """The client asks for base64 unless it is told otherwise, and decodes it."""
    decoded = client.embeddings.create(model="bert", input=["the cat", "the dog"]).data
    plain = client.embeddings.create(model="bert", input=["the cat", "the dog"], encoding_format="float").data
    for one, other in zip(decoded, plain, strict=True):
        assert len(one.embedding) == 384 and one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_openai_tools(caller: Server) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages: list[Any] = [
        {"role": "user", "content": "How is the weather in Rome?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sun"},
        {"role": "assistant", "content": "sun in Rome"},
        {"role": "user", "content": "How is the weather in Paris?"},
    ]
    with openai.OpenAI(base_url=f"{caller.url}/v1", api_key="x", max_retries=0) as client:
        asked: dict[str, Any] = {"model": "caller", "messages": messages, "tools": [WEATHER], "temperature": 0}
        choice = client.chat.completions.create(**asked, max_tokens=40).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.tool_calls
    function: Any = choice.message.tool_calls[0]
    assert json.loads(function.function.arguments) == {"city": "Paris"}


def test_openai_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nosuch"):
        client.chat.completions.create(model="nosuch", messages=[{"role": "user", "content": "a"}])
    with pytest.raises(openai.BadRequestError, match="nosuchfield"):
        client.completions.create(model="smollm2", prompt="a", extra_body={"nosuchfield": 1})


def test_eight_openai_clients_at_once(server: Server) -> None:
    def ask(number: int) -> str | None:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
            if number % 4 == 3:
                return str(len(client.embeddings.create(model="bert", input="the cat").data[0].embedding))
            asked: dict[str, Any] = {"model": "smollm2", "messages": MESSAGES, "temperature": 0, "max_tokens": 6}
            if number % 2:
                return client.chat.completions.create(**asked).choices[0].message.content
            with client.chat.completions.create(**asked, stream=True) as stream:
                return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))
    texts = {answer for number, answer in enumerate(answers) if number % 4 != 3}
    assert len(texts) == 1 and "384" not in texts
    assert [answers[3], answers[7]] == ["384", "384"]


HOSTILE: list[bytes] = [
    b"",
    b"null",
    b"{",
    b"\xff\xfe",
    b'{"model": ["smollm2"], "messages": [{"role": "user", "content": "a"}], "input": "a", "prompt": "a"}',
    b'{"model": "../../etc/passwd", "messages": [{"role": "user", "content": "a"}], "input": "a", "prompt": "a"}',
    b'{"temperature": NaN, "messages": [{"role": "user", "content": "a"}], "input": "a", "prompt": "a"}',
    b'{"nosuchfield": 1, "messages": [{"role": "user", "content": "a"}], "input": "a", "prompt": "a"}',
    b'{"input": [[-1]], "prompt": [[-1]], "messages": [{"role": "user"}, 5]}',
    b'{"input": [99999999], "prompt": [[99999999]], "messages": [[]]}',
    b'{"messages": [' + b"[" * 5000,
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies(server: Server, path: str, body: bytes) -> None:
    reply: Reply = server.request("POST", path, body)
    assert 400 <= reply.status < 500, reply.body[:300]
    error = reply.json()["error"]
    assert 5 < len(error["message"]) < 600 and error["type"].endswith("_error")
    assert "Traceback" not in error["message"] and "edgellm/" not in error["message"]
