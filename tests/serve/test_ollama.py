"""Ollama's API with Ollama's own client, against a real server."""

import json
import math
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from typing import Any

import ollama
import psutil
import pytest

from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0, "num_predict": 12}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(host=server.url) as client:
        yield client


def test_a_chat_streamed_and_whole_is_the_same(client: ollama.Client) -> None:
    whole = client.chat("smollm2", QUESTION, options=GREEDY)
    assert whole.message.role == "assistant" and "Paris" in (whole.message.content or "")
    assert whole.done and whole.done_reason == "stop"
    pieces = list(client.chat("smollm2:latest", QUESTION, options=GREEDY, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert len(pieces) > 3 and [piece.done for piece in pieces] == [*[False] * (len(pieces) - 1), True]
    last = pieces[-1]
    assert last.prompt_eval_count == whole.prompt_eval_count and last.eval_count == whole.eval_count


def test_durations_are_nanoseconds(client: ollama.Client) -> None:
    begin = time.perf_counter_ns()
    told = client.chat("smollm2", QUESTION, options=GREEDY)
    passed = time.perf_counter_ns() - begin
    assert told.total_duration and told.load_duration is not None
    assert told.eval_count and told.eval_duration and told.prompt_eval_duration
    # Each is a part of the time that passed here; milliseconds or microseconds would be far below a percent of it.
    assert passed / 100 < told.eval_duration < told.total_duration < passed
    assert told.prompt_eval_duration + told.eval_duration + told.load_duration <= told.total_duration * 1.05


def test_a_prompt_in_the_template_and_a_raw_one(client: ollama.Client) -> None:
    told = client.generate("smollm2", QUESTION[0]["content"], options=GREEDY)
    assert told.response == client.chat("smollm2", QUESTION, options=GREEDY).message.content
    raw = client.generate("smollm2", "The capital of France is", raw=True, options={**GREEDY, "num_predict": 3})
    assert raw.response.startswith(" Paris") and raw.done_reason == "length"
    assert raw.eval_count == 3 and raw.prompt_eval_count == 5  # no template around it
    pieces = list(client.generate("smollm2", "The capital of France is", raw=True, options=GREEDY, stream=True))
    assert "".join(piece.response for piece in pieces).startswith(raw.response)
    with_system = client.generate("smollm2", QUESTION[0]["content"], system="Answer in German.", options=GREEDY)
    assert with_system.prompt_eval_count != told.prompt_eval_count


def test_an_answer_in_a_form(client: ollama.Client) -> None:
    form = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    options = {"temperature": 0, "num_predict": 40}
    for told in (
        client.chat("smollm2", QUESTION, format=form, options=options).message.content,
        client.generate("smollm2", "A city:", raw=True, format=form, options=options).response,
    ):
        assert list(json.loads(told or "")) == ["city"]
    loose = client.chat("smollm2", QUESTION, format="json", options={"temperature": 0, "num_predict": 20})
    assert (loose.message.content or "").startswith("{")


def test_log_probabilities(client: ollama.Client) -> None:
    told = client.chat("smollm2", QUESTION, logprobs=True, top_logprobs=2, options=GREEDY)
    assert told.logprobs and "".join(each.token for each in told.logprobs) == told.message.content
    assert all(each.logprob <= 0 and len(each.top_logprobs or ()) == 2 for each in told.logprobs)


def test_options_are_honoured(client: ollama.Client) -> None:
    def text(**options: Any) -> str:
        return client.generate("smollm2", "Once upon a time", options={"num_predict": 4, **options}).response

    assert text(seed=7, temperature=1.5) == text(seed=7, temperature=1.5)
    assert text(temperature=5, top_k=1) == text(temperature=0)
    assert len({text(seed=seed, temperature=3, top_k=0, top_p=1, min_p=0) for seed in range(4)}) > 1
    stopped = client.chat("smollm2", QUESTION, options={"temperature": 0, "stop": ["Paris"]})
    assert (stopped.message.content or "").endswith("France is ") or "Paris" not in (stopped.message.content or "")
    assert stopped.done_reason == "stop"


def test_tools(caller: Server) -> None:
    def call(city: str) -> dict[str, Any]:
        return {"role": "assistant", "tool_calls": [{"function": {"name": "weather", "arguments": {"city": city}}}]}

    messages: list[dict[str, Any]] = []
    for city, weather in (("Rome", "sun"), ("Oslo", "rain"), ("Lima", "fog")):
        messages += [
            {"role": "user", "content": f"How is the weather in {city}?"},
            call(city),
            {"role": "tool", "tool_name": "weather", "content": weather},
            {"role": "assistant", "content": f"{weather} in {city}"},
        ]
    messages += [{"role": "user", "content": "How is the weather in Paris?"}]
    options = {"temperature": 0, "num_predict": 40}
    with ollama.Client(host=caller.url) as client:
        assert client.show("caller").capabilities == ["completion", "tools"]
        whole = client.chat("caller", messages, tools=[WEATHER], options=options)
        assert whole.message.tool_calls and whole.message.content == ""
        assert [dict(each.function.arguments) for each in whole.message.tool_calls] == [{"city": "Paris"}]
        *_, calling, last = client.chat("caller", messages, tools=[WEATHER], options=options, stream=True)
        assert calling.message.tool_calls == whole.message.tool_calls and not calling.done
        assert last.done and last.done_reason == "stop" and last.message.content == ""
        # Cut off within its arguments a call is none.
        cut = client.chat("caller", messages, tools=[WEATHER], options={**options, "num_predict": 12})
        assert not cut.message.tool_calls and cut.done_reason == "length"


def test_models_are_listed_by_their_names_here(client: ollama.Client) -> None:
    listed = {model.model: model for model in client.list().models}
    assert set(listed) == {"smollm2", "bert"}
    found = listed["smollm2"]
    assert found.size and found.size > 90e6 and found.details and found.details.quantization_level == "Q4_1"
    assert found.details.parameter_size == "134.52M" and len(found.digest or "") == 64
    assert found.modified_at and found.modified_at < datetime.now(timezone.utc)


def test_a_model_tells_the_context_that_it_is_served_with(client: ollama.Client) -> None:
    shown = client.show("smollm2:latest")
    info = shown.modelinfo or {}
    # The server has --ctx-size 2048, the model was trained with more.
    assert info["llama.context_length"] == 2048 and info["edgellm.n_ctx_train"] == 8192
    assert shown.capabilities == ["completion"], "its own template has no tools"
    assert (shown.template or "").startswith("{% for message in messages %}"), "its own, without our prelude"
    assert info["tokenizer.ggml.tokens"] is None
    assert client.show("bert").capabilities == ["embedding"]
    assert (client.show("bert").modelinfo or {})["bert.context_length"] == 512


def test_everything_about_a_model(server: Server) -> None:
    shown = server.post("/api/show", {"name": "smollm2", "verbose": True}).json()
    assert len(shown["model_info"]["tokenizer.ggml.tokens"]) == 49152


def test_loading_keeping_and_unloading(client: ollama.Client) -> None:
    def loaded() -> dict[str, Any]:
        return {str(model.model): model for model in client.ps().models}

    assert client.generate("smollm2", keep_alive=0).done_reason == "unload"
    assert "smollm2" not in loaded()
    assert client.generate("smollm2", keep_alive="0s").done_reason == "unload"  # unloaded already
    told = client.chat("smollm2", [], keep_alive="1h30m")
    assert told.done_reason == "load" and told.message.content == ""
    state = loaded()["smollm2"]
    left = (state.expires_at - datetime.now(timezone.utc)).total_seconds()
    assert 5300 < left <= 5400 and state.context_length == 2048 and state.size > 90e6
    client.generate("smollm2", keep_alive=-1)
    assert loaded()["smollm2"].expires_at.year == 9999
    # With something to answer it is unloaded after that.
    assert client.chat("smollm2", QUESTION, options=GREEDY, keep_alive=0).eval_count
    assert "smollm2" not in loaded()


def test_vectors(client: ollama.Client, server: Server) -> None:
    told = client.embed("bert", ["the cat", "the dog sat"])
    assert [len(vector) for vector in told.embeddings] == [384, 384]
    assert all(math.isclose(math.hypot(*vector), 1, abs_tol=1e-5) for vector in told.embeddings)
    assert told.prompt_eval_count == 4 + 5  # two special tokens around each
    as_openai = server.post("/v1/embeddings", {"model": "bert", "input": ["the cat", "the dog sat"]}).json()["data"]
    for vector, other in zip(told.embeddings, as_openai, strict=True):
        assert vector == pytest.approx(other["embedding"], abs=1e-6)
    assert client.embeddings("bert", "the cat").embedding == pytest.approx(told.embeddings[0], abs=1e-6)
    assert client.embed("bert", []).embeddings == []
    assert client.embed("bert", "the cat", dimensions=384).embeddings[0] == pytest.approx(told.embeddings[0], abs=1e-6)
    with pytest.raises(ollama.ResponseError, match="384 numbers"):
        client.embed("bert", "the cat", dimensions=64)


@pytest.mark.parametrize(("path", "read"), [("/api/embed", "embeddings"), ("/v1/embeddings", "data")])
def test_a_text_too_long_to_embed(server: Server, path: str, read: str) -> None:
    texts = ["the cat", "the cat " * 300]  # 600 tokens and the two around them
    refused = server.post(
        path, {"model": "bert", "input": texts, "options": {}} if read != "data" else {"input": texts}
    )
    words = b"input 1 is too long: 602 tokens, which exceeds the available context size of 512; bert reads no more"
    assert refused.status == 400 and words in refused.body
    told = server.post(path, {"model": "bert", "input": texts, "truncate": True}).json()[read]
    # Its beginning, between the same special tokens.
    same = server.post(path, {"model": "bert", "input": ["the cat", "the cat " * 255]}).json()[read]
    assert _numbers(told[1]) == pytest.approx(_numbers(same[1]), abs=1e-5)
    assert _numbers(told[0]) == pytest.approx(_numbers(same[0]), abs=1e-5)


def _numbers(vector: Any) -> list[float]:
    numbers: list[float] = vector["embedding"] if isinstance(vector, dict) else vector
    return numbers


def test_token_ids_too_many_to_embed(server: Server) -> None:
    refused = server.post("/v1/embeddings", {"model": "bert", "input": [[5] * 700, [5]], "token_ids": True})
    assert refused.status == 400 and refused.json()["error"]["n_prompt_tokens"] == 700
    body = {"model": "bert", "input": [5] * 700, "token_ids": True, "truncate": True}
    cut = server.post("/v1/embeddings", body).json()
    assert cut["usage"]["prompt_tokens"] == 512


def test_a_prompt_too_long(server: Server) -> None:
    body = {"model": "smollm2", "stream": False, "options": {"num_predict": 1}}
    long = {"role": "user", "content": "hello " * 2500}
    refused = server.post("/api/chat", {**body, "messages": [long, {"role": "assistant", "content": "yes"}, *QUESTION]})
    assert refused.status == 400
    words = r"the prompt is too long: 2,5\d\d tokens, which exceeds the available context size of 2,048; "
    assert re.match(words, refused.json()["error"])
    messages = [long, {"role": "assistant", "content": "yes"}, *QUESTION]
    told = server.post("/api/chat", {**body, "messages": messages, "truncate": True}).json()
    assert told["done"] and told["prompt_eval_count"] < 60


def test_an_answer_that_was_ended_says_why(server: Server) -> None:
    """In a word that Ollama's clients know, and in a field for those who know us; a loop is told in the same way."""
    options = {"num_predict": 1500, "ignore_eos": True, "max_time": 0.5, "loop_guard": False}
    body = {"model": "smollm2", "prompt": "Once upon a time", "raw": True, "options": options}
    *pieces, last = server.post("/api/generate", body).lines()
    assert last["done"] and last["done_reason"] == "length" and last["edgellm"] == {"finish_reason": "time"}
    assert 0 < last["eval_count"] < 1000 and not any(piece["done"] for piece in pieces)


def test_eight_clients_at_once(client: ollama.Client) -> None:
    expected = client.chat("smollm2", QUESTION, options=GREEDY).message.content

    def ask(number: int) -> str | None:
        if number % 4 == 3:
            return str(len(client.embed("bert", ["the cat"] * 8).embeddings))
        if number % 2:
            return client.chat("smollm2", QUESTION, options=GREEDY).message.content
        return "".join(
            each.message.content or "" for each in client.chat("smollm2", QUESTION, options=GREEDY, stream=True)
        )

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))
    assert [answer for number, answer in enumerate(answers) if number % 4 == 3] == ["8"] * 2
    assert [answer for number, answer in enumerate(answers) if number % 4 != 3] == [expected] * 6


def test_what_clients_look_for_first(server: Server) -> None:
    assert server.get("/").status == 200 and server.request("HEAD", "/").status == 200
    version = server.get("/api/version").json()["version"]
    assert tuple(int(part) for part in version.split(".")) >= (0, 13, 4), "what Codex asks for"


def test_to_pull_a_model_that_is_here_succeeds_at_once(client: ollama.Client, server: Server) -> None:
    assert client.pull("smollm2").status == client.pull("bert:latest").status == "success"
    assert [step.status for step in client.pull("smollm2", stream=True)] == ["pulling manifest", "success"]
    older = server.post("/api/pull", {"name": "smollm2", "insecure": False})
    assert older.headers["content-type"] == "application/x-ndjson"
    with pytest.raises(ollama.ResponseError, match="type edgellm pull nosuch on the machine itself") as missing:
        client.pull("nosuch")
    assert missing.value.status_code == 404
    assert server.post("/api/pull", {}).status == server.post("/api/pull", {"model": 5}).status == 400


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("options", {"num_ctx": 4096}, "send at most 2048, or start the server with: edgellm serve smollm2"),
        ("options", {"num_ctx": 99999}, "it was trained with 8,192"),
        ("options", {"num_thread": 3}, "--threads"),
        ("options", {"num_gpu": 99}, "CPU"),
        ("options", {"tfs_z": 0.5}, "min_p"),
        ("options", {"temprature": 1}, "options.temprature is not supported"),
        ("options", {"mirostat": 3}, "options.mirostat"),
        ("think", True, "smollm2 does not support thinking"),
        ("think", "high", "smollm2 does not support thinking"),
        ("think", "enormous", "think"),
        ("template", "{{ .Prompt }}", "template"),
        ("shift", True, "done_reason length"),
        ("keep_alive", "soon", "a duration is seconds"),
        ("keep_alive", True, "a duration is seconds"),
        ("format", "xml", "format"),
        ("messages", [{"role": "user", "content": "a", "images": ["aGk="]}], "the models here read text only"),
        ("messages", [{"role": "robot", "content": "a"}], "messages.0.role"),
        ("strem", True, "did you mean stream?"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(server: Server, field: str, value: Any, said: str) -> None:
    reply = server.post("/api/chat", {"model": "smollm2", "messages": QUESTION, field: value})
    assert reply.status == 400 and list(reply.json()) == ["error"]
    assert said in reply.json()["error"] and field in reply.json()["error"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("suffix", "the end"), ("context", [1, 2, 3]), ("images", ["aGk="]), ("system", "with raw"), ("width", 512)],
)
def test_what_cannot_be_generated(server: Server, field: str, value: Any) -> None:
    reply = server.post("/api/generate", {"model": "smollm2", "prompt": "a", "raw": True, field: value})
    assert reply.status == 400 and field in reply.json()["error"]


def test_what_says_how_it_is_anyway_is_taken(server: Server) -> None:
    options = {"num_predict": 2, "num_gpu": 0, "use_mmap": True, "num_ctx": 2048, "num_keep": 4, "repeat_last_n": -1}
    body = {"model": "smollm2", "messages": QUESTION, "options": options, "stream": False, "shift": False}
    reply = server.post("/api/chat", {**body, "think": False, "tools": [], "format": "", "template": None})
    assert reply.status == 200 and reply.json()["eval_count"] == 2


def test_a_window_of_past_tokens_beyond_every_context(server: Server) -> None:
    """The worker would reserve 8 GB for it."""
    options = {"num_predict": 1, "repeat_last_n": 2**31 - 1, "repeat_penalty": 1.2, "dry_penalty_last_n": 2**31 - 1}
    body = {"model": "smollm2", "prompt": "a", "raw": True, "stream": False}
    reply = server.post("/api/generate", {**body, "options": {**options, "dry_multiplier": 0.8}})
    assert reply.status == 200
    (worker,) = [each for each in map(psutil.Process, server.workers()) if "smollm2" in each.cmdline()]
    assert worker.memory_info().rss < 2e9


def test_an_error_within_a_stream_is_its_last_line(caller: Server) -> None:
    body = {"model": "caller", "prompt": "a", "raw": True, "options": {"num_predict": 1500, "ignore_eos": True}}
    asked = urllib.request.Request(f"{caller.url}/api/generate", json.dumps(body).encode())
    with urllib.request.urlopen(asked, timeout=60) as reply:
        assert not json.loads(reply.readline())["done"]
        for worker in caller.workers():
            os.kill(worker, signal.SIGKILL)
        last = reply.readlines()[-1]
    assert list(json.loads(last)) == ["error"]
    body["options"], end = {"num_predict": 1}, time.monotonic() + 30
    while (reply := caller.post("/api/generate", body)).status == 503 and time.monotonic() < end:
        assert reply.headers["retry-after"]
        time.sleep(0.1)
    assert reply.status == 200 and reply.lines()[-1]["done"]


def test_errors_have_ollamas_statuses(client: ollama.Client, server: Server) -> None:
    for ask in (
        lambda: client.chat("nosuch", QUESTION),
        lambda: client.show("nosuch"),
        lambda: client.embed("nosuch", "a"),
        lambda: client.generate("nosuch", keep_alive=0),
    ):
        with pytest.raises(ollama.ResponseError, match="nosuch") as error:
            ask()
        assert error.value.status_code == 404
    for name, path in (("bert", "/api/chat"), ("bert", "/api/generate"), ("smollm2", "/api/embed")):
        asked = {"model": name, "messages": QUESTION} if path == "/api/chat" else {"model": name, "prompt": "a"}
        reply = server.post(path, {"model": name, "input": "a"} if path == "/api/embed" else asked)
        assert reply.status == 400 and name in reply.json()["error"]


def test_models_are_not_managed_over_http(client: ollama.Client, server: Server) -> None:
    for ask, said in (
        (lambda: client.delete("smollm2"), "edgellm rm"),
        (lambda: client.copy("smollm2", "other"), "edgellm import"),
        (lambda: client.create("other", from_="smollm2"), "edgellm import"),
        (lambda: client.push("smollm2"), "publishes no models"),
    ):
        with pytest.raises(ollama.ResponseError, match=said) as error:
            ask()
        assert error.value.status_code == 403
    assert server.request("POST", "/api/blobs/sha256:00", b"x").status == 403


HOSTILE: list[bytes] = [
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"{",
    b"\xff\xfe{}",
    b'{"model": "smollm2\xff"}',
    b'{"model": 7}',
    b'{"model": ["smollm2"]}',
    b'{"model": ""}',
    b'{"model": "../../etc/passwd"}',
    b'{"model": "/etc/passwd"}',
    b'{"model": "smollm2\\u0000"}',
    b'{"model": "' + b"a" * 100_000 + b'"}',
    b'{"model": "smollm2", "prompt": "\\ud800", "input": "\\ud800", "messages": [{"role": "user\\ud800"}]}',
    b'{"model": "smollm2", "options": [1]}',
    b'{"model": "smollm2", "options": {"temperature": NaN}}',
    b'{"model": "smollm2", "options": {"temperature": 1e999}}',
    b'{"model": "smollm2", "options": {"seed": 99999999999999999999999999}}',
    b'{"model": "smollm2", "options": {"num_predict": 1e300}}',
    b'{"model": "smollm2", "options": {"num_ctx": -5}}',
    b'{"model": "smollm2", "options": {"num_thread": {"a": [1]}}}',
    b'{"model": "smollm2", "keep_alive": 1e999}',
    b'{"model": "smollm2", "keep_alive": "' + b"9" * 50_000 + b'm"}',
    b'{"model": "smollm2", "nosuchfield": 1}',
    b'{"model": "smollm2", "messages": "hello", "prompt": 5, "input": 5, "name": 5}',
    b'{"model": "smollm2", "messages": [' + b"[" * 5000,
]


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/api/show"])
@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies(server: Server, path: str, body: bytes) -> None:
    reply = server.request("POST", path, body)
    assert 400 <= reply.status < 500, reply.body[:300]
    said = reply.json()
    assert list(said) == ["error"] and isinstance(said["error"], str) and 5 < len(said["error"]) < 600
    assert "Traceback" not in said["error"] and "edgellm/" not in said["error"] and os.sep + "root" not in said["error"]
