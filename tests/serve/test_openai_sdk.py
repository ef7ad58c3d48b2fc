"""The openai package as it is installed, against a real server; and its types against our requests."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_type_hints

import jsonschema
import openai
import pytest
from openai.types import completion_create_params as completion_params
from openai.types import embedding_create_params as embedding_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as response_params

from edgellm.serve.protocols.responses.requests import ResponseRequest
from edgellm.wire.body import Body, FieldError, parse
from edgellm.wire.openai_requests import ChatRequest, CompletionRequest, EmbeddingRequest
from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: Any = {"type": "function", "function": {"name": "weather", "description": "a city's", "parameters": CITY}}
TIME: Any = {"type": "function", "function": {"name": "time", "description": "a city's", "parameters": CITY}}

# Their fields that need what is not here; each is refused by its name, unless its value asks for nothing.
REFUSED = {
    ChatRequest: {
        "audio", "function_call", "functions", "modalities", "moderation", "prediction", "service_tier", "store",
        "verbosity", "web_search_options",
    },
    CompletionRequest: {"best_of", "suffix"},
    EmbeddingRequest: set(),
    ResponseRequest: {
        "access_programs", "background", "background_options", "context_management", "conversation", "image",
        "moderation", "previous_response_id", "prompt", "service_tier", "store",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        (ChatRequest, chat_params.CompletionCreateParamsBase),
        (CompletionRequest, completion_params.CompletionCreateParamsBase),
        (EmbeddingRequest, embedding_params.EmbeddingCreateParams),
        (ResponseRequest, response_params.ResponseCreateParamsBase),
    ],
)
def test_every_field_of_theirs_is_known_or_refused_by_name(kind: type[Body], params: type) -> None:
    fields = set(get_type_hints(params))
    assert fields - set(kind.model_fields) - set(kind.ignored) == REFUSED[kind]  # type: ignore[index]
    minimal = {"messages": QUESTION, "prompt": "a", "input": "a"}
    body = {name: value for name, value in minimal.items() if name in kind.model_fields}
    for field in REFUSED[kind]:  # type: ignore[index]
        with pytest.raises(FieldError) as refused:
            parse(kind, json.dumps({**body, field: {"a": 1}}).encode())
        assert refused.value.field == field
        parse(kind, json.dumps({**body, field: None}).encode())


def test_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: Any = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "max_completion_tokens": 12}
    whole = client.chat.completions.create(**asked)
    assert "Paris" in (whole.choices[0].message.content or "") and whole.usage
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert not chunks[-1].choices and chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_several_choices_have_their_prompt_counted_once(client: openai.OpenAI) -> None:
    asked: Any = {"model": "smollm2", "messages": QUESTION, "max_tokens": 3, "temperature": 0}
    one = client.chat.completions.create(**asked)
    two = client.chat.completions.create(**asked, n=2)
    assert one.usage and two.usage and len(two.choices) == 2
    assert two.usage.prompt_tokens == one.usage.prompt_tokens
    assert two.usage.completion_tokens == 2 * one.usage.completion_tokens
    streamed = list(client.chat.completions.create(**asked, n=2, stream=True, stream_options={"include_usage": True}))
    ends = {c.choices[0].index for c in streamed if c.choices and c.choices[0].finish_reason}
    assert ends == {0, 1} and streamed[-1].usage and streamed[-1].usage.total_tokens == two.usage.total_tokens


def test_a_chosen_tool_is_called_once(client: openai.OpenAI) -> None:
    chosen: Any = {"type": "function", "function": {"name": "weather"}}
    messages: Any = [{"role": "user", "content": "How is the weather in Paris?"}]
    asked: Any = {
        "model": "smollm2",
        "messages": messages,
        "tools": [TIME, WEATHER],
        "temperature": 0,
        "max_tokens": 80,
    }
    whole = client.chat.completions.create(**asked, tool_choice=chosen)
    assert whole.choices[0].finish_reason == "tool_calls"
    (call,) = whole.choices[0].message.tool_calls or ()
    assert call.type == "function" and call.function.name == "weather"
    assert "Paris" in json.loads(call.function.arguments)["city"]
    with client.chat.completions.stream(**asked, tool_choice=chosen) as stream:
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls or ()
    assert json.loads(streamed.function.arguments) == json.loads(call.function.arguments)
    # The call and its result go back, and the answer is text again.
    messages += [whole.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "It is sunny."}]
    answer = client.chat.completions.create(**{**asked, "max_tokens": 8}, tool_choice="none")
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls


def test_a_tool_that_is_not_there_cannot_be_chosen(client: openai.OpenAI) -> None:
    chosen: Any = {"type": "function", "function": {"name": "missing"}}
    with pytest.raises(openai.BadRequestError, match="missing"):
        client.chat.completions.create(model="smollm2", messages=QUESTION, tools=[WEATHER], tool_choice=chosen)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_by_a_schema(client: openai.OpenAI, stream: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "size": {"enum": ["small", "large"]}},
        "required": ["city", "size"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}}
    asked: Any = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "max_tokens": 60, "response_format": form}
    if stream:
        chunks = client.chat.completions.create(**asked, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    else:
        text = client.chat.completions.create(**asked).choices[0].message.content or ""
    jsonschema.validate(json.loads(text), schema)


def test_a_schema_that_is_none_is_a_400(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "#/nowhere"}}}
    with pytest.raises(openai.BadRequestError, match="nowhere"):
        client.chat.completions.create(model="smollm2", messages=QUESTION, response_format=form)


@pytest.mark.parametrize("n_top", [0, 3])
def test_log_probabilities(client: openai.OpenAI, n_top: int) -> None:
    asked: Any = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "max_tokens": 4}
    told = client.chat.completions.create(**asked, logprobs=True, top_logprobs=n_top).choices[0]
    assert told.logprobs and told.logprobs.content
    assert "".join(each.token for each in told.logprobs.content) == told.message.content
    assert all(each.logprob <= 0 and len(each.top_logprobs) == n_top for each in told.logprobs.content)
    chunks = client.chat.completions.create(**asked, logprobs=True, top_logprobs=n_top, stream=True)
    streamed = [each for c in chunks if c.choices[0].logprobs for each in c.choices[0].logprobs.content or ()]
    assert [each.token for each in streamed] == [each.token for each in told.logprobs.content]
    assert all(len(each.top_logprobs) == n_top for each in streamed)

    asked = {"model": "smollm2", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4}
    choice = client.completions.create(**asked, logprobs=n_top).choices[0]
    legacy = choice.logprobs
    assert legacy and legacy.tokens and legacy.text_offset and legacy.token_logprobs
    assert "".join(legacy.tokens) == choice.text
    for token, offset in zip(legacy.tokens, legacy.text_offset, strict=True):
        assert choice.text[offset:].startswith(token)
    assert [len(top) for top in legacy.top_logprobs or ()] == ([n_top] * 4 if n_top else [])
    chunks = [c.choices[0].logprobs for c in client.completions.create(**asked, logprobs=n_top, stream=True)]
    offsets = [offset for each in chunks if each for offset in each.text_offset or ()]
    assert offsets == legacy.text_offset


def test_several_prompts(client: openai.OpenAI) -> None:
    reply = client.completions.create(model="smollm2", prompt=["One, two,", "The sky is"], max_tokens=3, temperature=0)
    alone = client.completions.create(model="smollm2", prompt="The sky is", max_tokens=3, temperature=0)
    assert len(reply.choices) == 2 and reply.choices[1].text == alone.choices[0].text
    assert reply.usage and alone.usage and reply.usage.prompt_tokens > alone.usage.prompt_tokens


@pytest.mark.parametrize(
    ("path", "model", "field", "tokens"),
    [
        ("/v1/completions", "smollm2", "prompt", [1, 49152]),
        ("/v1/completions", "smollm2", "prompt", [[1], [2**31 - 1]]),
        ("/v1/embeddings", "bert", "input", [[5], [10]]),
        ("/v1/chat/completions", "smollm2", "logit_bias", {"49152": 1}),
    ],
)
def test_numbers_that_are_no_tokens(server: Server, path: str, model: str, field: str, tokens: Any) -> None:
    more = {"messages": QUESTION} if "chat" in path else {"token_ids": True} if "embeddings" in path else {}
    body = {"model": model, field: tokens, **more}
    reply = server.post(path, body)
    assert reply.status == 400 and reply.json()["error"]["param"] == field


def test_one_of_several_prompts_is_too_long(server: Server) -> None:
    for stream in (False, True):
        body = {"model": "smollm2", "prompt": ["a", "a " * 3000], "max_tokens": 2, "stream": stream}
        reply = server.post("/v1/completions", body)
        assert reply.status == 400 and reply.json()["error"]["code"] == "context_length_exceeded"


def test_embeddings_as_the_package_asks_for_them(client: openai.OpenAI) -> None:
    coded = client.embeddings.create(model="bert", input=["the cat", "at"])
    plain = client.embeddings.create(model="bert", input=["the cat", "at"], encoding_format="float")
    assert [len(each.embedding) for each in coded.data] == [384, 384]
    assert coded.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-6)


def test_models(client: openai.OpenAI) -> None:
    assert {"smollm2", "bert"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("smollm2").owned_by == "edgellm"
    with pytest.raises(openai.NotFoundError, match="smollm2"):
        client.models.retrieve("smolm2")


def test_eight_clients_at_once(client: openai.OpenAI) -> None:
    def ask(number: int) -> str:
        asked: Any = {"model": "smollm2", "prompt": f"{number} and {number} are", "temperature": 0, "max_tokens": 6}
        if number % 2:
            return client.completions.create(**asked).choices[0].text
        return "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(8)))
    assert all(together) and together[3] == ask(3)
