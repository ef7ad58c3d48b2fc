"""Every protocol's words, byte for byte: recorded answers in, streams and documents out; and the errors.

The expected bytes lie in `tests/serve/golden/`. After a change that clients are meant to see, write them anew with
`python -m tests.serve.word_cases` and read the difference: a client gets every line of it.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.run.events import End
from edgellm.serve.http.api import Api
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import EVENTS, LINES
from edgellm.serve.protocols import APIS
from edgellm.serve.workers.upstream import Chunk
from tests.serve.recordings import folded, read_all
from tests.serve.word_cases import CASES, GOLDEN, Case, normal

NAMED = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@NAMED
def test_a_stream_is_what_it_was(case: Case) -> None:
    assert case.streamed() == (GOLDEN / f"{case.name}.stream").read_bytes()


@NAMED
def test_a_document_is_what_it_was(case: Case) -> None:
    assert case.whole() == (GOLDEN / f"{case.name}.json").read_bytes()


def test_every_golden_file_belongs_to_a_case() -> None:
    names = [f"{case.name}.{form}" for case in CASES for form in ("json", "stream")]
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(names)


def data_of(stream: bytes) -> list[Any]:
    """The JSON of server-sent events or lines."""
    lines = [line.removeprefix("data: ") for line in stream.decode().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


@NAMED
def test_a_stream_adds_up_to_its_document(case: Case) -> None:
    """Text, thoughts and arguments of the stream, put together as clients do, are those of the answer's fold."""
    whole = folded([event for event in case.events if not isinstance(event, End)], case.asked.get("n", 1))
    got = _put_together(case.protocol, data_of(case.streamed()))
    for index, choice in whole.choices.items():
        calls = "".join(call.text for call in choice.calls)
        if case.protocol == "ollama-chat":  # whole calls only
            calls = "".join(json.dumps(_object(call.text)) for call in choice.calls if _object(call.text))
        expected = {"text": choice.text, "thoughts": choice.thoughts, "calls": calls}
        if case.protocol == "completion" or case.protocol == "ollama-generate":
            expected["calls"] = ""
        assert got.get(index, dict.fromkeys(expected, "")) == expected


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _put_together(protocol: str, data: list[Any]) -> dict[int, dict[str, str]]:
    found: dict[int, dict[str, str]] = {}

    def add(kind: str, piece: str | None, index: int = 0) -> None:
        found.setdefault(index, {"text": "", "thoughts": "", "calls": ""})[kind] += piece or ""

    for each in data:
        if protocol in ("chat", "completion"):
            for choice in each["choices"]:
                index, delta = choice["index"], choice.get("delta") or {}
                add("text", delta.get("content") or choice.get("text"), index)
                add("thoughts", delta.get("reasoning_content"), index)
                for call in delta.get("tool_calls") or ():
                    add("calls", call["function"]["arguments"], index)
        elif protocol == "responses":
            kinds = {"response.output_text.delta": "text", "response.reasoning_text.delta": "thoughts",
                     "response.function_call_arguments.delta": "calls"}  # fmt: skip
            if each["type"] in kinds:
                add(kinds[each["type"]], each["delta"])
        elif protocol == "anthropic":
            delta = each.get("delta", {})
            add("text", delta.get("text"))
            add("thoughts", delta.get("thinking"))
            add("calls", delta.get("partial_json"))
        else:
            message = each.get("message", {})
            add("text", message.get("content") or each.get("response"))
            add("thoughts", message.get("thinking") or each.get("thinking"))
            for call in message.get("tool_calls", ()):
                add("calls", json.dumps(call["function"]["arguments"]))
    return found


def _whole_put_together(protocol: str, document: Any) -> dict[str, str]:
    """Text, thoughts and arguments in the document of an answer, and its first choice only."""
    found = {"text": "", "thoughts": "", "calls": ""}
    if protocol == "chat":
        message = document["choices"][0]["message"]
        found["text"], found["thoughts"] = message["content"] or "", message.get("reasoning_content", "")
        found["calls"] = "".join(call["function"]["arguments"] for call in message.get("tool_calls", ()))
    elif protocol == "responses":
        for item in document["output"]:
            kind = {"message": "text", "reasoning": "thoughts", "function_call": "calls"}[item["type"]]
            found[kind] += item["arguments"] if kind == "calls" else item["content"][0]["text"]
    elif protocol == "anthropic":
        for block in document["content"]:
            found["text"] += block.get("text", "")
            found["thoughts"] += block.get("thinking", "")
            found["calls"] += json.dumps(block["input"]) if "input" in block else ""
    else:
        message = document["message"]
        found["text"], found["thoughts"] = message["content"], message.get("thinking", "")
        found["calls"] = "".join(json.dumps(call["function"]["arguments"]) for call in message.get("tool_calls", ()))
    return found


# Pieces of an answer as deltas: thoughts, text, and whole calls, each in pieces.
DELTAS = st.lists(
    st.one_of(
        st.builds(lambda text: [{"content": text}], st.sampled_from(["", "a", "é ", "日本", '"\n'])),
        st.builds(lambda text: [{"reasoning_content": text}], st.sampled_from(["x", "y "])),
        st.builds(
            lambda *pieces: [
                {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": pieces[0]}}]},
                *({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in pieces[1:]),
            ],
            st.just('{"a"'), st.just(": "), st.sampled_from(["1}", "null}", '"é"}']),
        ),
    ),
    max_size=8,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(DELTAS, st.sampled_from(["stop", "length", "tool_calls"]))
def test_any_answer_streams_as_what_it_is_whole(groups: list[Any], reason: str) -> None:
    n_calls, deltas = 0, []
    for group in groups:
        for delta in group:
            for call in delta.get("tool_calls", ()):
                n_calls += "id" in call
                call["index"] = n_calls - 1
            deltas.append(delta)
    data = [{"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    data += [{"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}]
    found = read_all([Chunk(each, b"data: " + json.dumps(each).encode()) for each in data])
    for case in (Case(protocol, "") for protocol in ("chat", "responses", "anthropic", "ollama-chat")):
        words = case.words()
        stream = b"".join(map(words.write, found)) + words.finish()
        streamed = _put_together(case.protocol, data_of(stream)).get(0, {"text": "", "thoughts": "", "calls": ""})
        whole = _whole_put_together(case.protocol, case.words().whole(folded(found)))
        assert _plain(streamed) == _plain(whole), case.protocol


def _plain(answer: dict[str, str]) -> dict[str, str]:
    """Arguments without the spaces in which JSON may differ."""
    return {**answer, "calls": answer["calls"].replace(" ", "").replace("\\u00e9", "é")}


FULL = Problem(429, "4 requests wait", code="queue-full", retry_after=2)
WRONG = Problem(400, "temperature: too “hot”", code="bad-field", field="temperature", n_ctx=512)
OPENAI_FULL = (
    b'{"error":{"message":"4 requests wait; try again in 2 seconds","type":"rate_limit_error",'
    b'"param":null,"code":"queue-full"}}'
)
OPENAI_WRONG = (
    '{"error":{"message":"temperature: too “hot”","type":"invalid_request_error","param":"temperature",'
    '"code":"bad-field","n_ctx":512}}'
).encode()
RESPONSES_WRONG = (
    '{"type":"error","code":"bad-field","message":"temperature: too “hot”","param":"temperature",'.encode()
)
ANTHROPIC_WRONG = (
    '{"type":"error","error":{"type":"invalid_request_error","message":"temperature: too “hot”"}}'.encode()
)
OLLAMA_WRONG = '{"error":"temperature: too “hot”"}'.encode()
ERRORS = {
    "openai": (b"data: " + OPENAI_WRONG + b"\n\n", OPENAI_WRONG),
    "responses": (b"event: error\ndata: " + RESPONSES_WRONG + OPENAI_WRONG[1:] + b"\n\n", OPENAI_WRONG),
    "anthropic": (b"event: error\ndata: " + ANTHROPIC_WRONG + b"\n\n", ANTHROPIC_WRONG),
    "ollama": (OLLAMA_WRONG + b"\n", OLLAMA_WRONG),
    "lmstudio": (b"data: " + OPENAI_WRONG + b"\n\n", OPENAI_WRONG),
    "rerank": (b"data: " + OPENAI_WRONG + b"\n\n", OPENAI_WRONG),
    "tokenizer": (b"data: " + OPENAI_WRONG + b"\n\n", OPENAI_WRONG),
}


@pytest.mark.parametrize("api", list(APIS), ids=lambda api: api.name)
def test_the_errors_of_a_protocol(api: Api) -> None:
    event, document = ERRORS[api.name]
    assert api.error_event(WRONG) == event
    assert api.error(WRONG) == json.loads(document)
    if document == OPENAI_WRONG:
        assert api.error(FULL) == json.loads(OPENAI_FULL), "facts and fields only where there are some"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/chat/completions", "openai"), ("/v1/models", "openai"), ("/", "openai"), ("/nothing", "openai"),
        ("/metrics", "openai"), ("/v1/messages", "anthropic"), ("/v1/messages/count_tokens", "anthropic"),
        ("/v1/responses", "responses"), ("/v1/responses/input_tokens", "responses"), ("/api/chat", "ollama"),
        ("/api/nothing", "ollama"), ("/api/v0/models", "lmstudio"), ("/api/v1/models", "lmstudio"),
        ("/v1/rerank", "rerank"), ("/tokenize", "tokenizer"), ("/tokenizer_info", "tokenizer"),
    ],
)  # fmt: skip
def test_a_path_belongs_to_a_protocol(path: str, name: str) -> None:
    assert APIS.of(path).name == name


def test_every_route_belongs_to_its_own_protocol() -> None:
    for api in APIS:
        for route in api.routes:
            assert APIS.of(route.path) is api, route.path


def test_the_media_type_of_a_stream() -> None:
    for case in CASES:
        assert case.words().media_type == (LINES if case.protocol.startswith("ollama") else EVENTS), case.name


def test_golden_files_have_nothing_that_differs_from_run_to_run() -> None:
    for path in GOLDEN.iterdir():
        data = path.read_bytes()
        assert normal(data) == data
