"""A call that must come: exactly one, valid, whatever the model is like and however its template writes calls."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from edgellm.run.call_form import CallForm
from edgellm.run.events import Begin, Call, Cut, End, Event, Text, Thought
from edgellm.serve.answer.required_call import as_calls, by_grammar, must_call
from tests.serve.scoring_models import write_bos_model
from tests.serve.server import Server
from tests.serve.tool_model import TEMPLATE, write_tool_model

WHOLE = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris", "in": {"unit": "}"}}}'
ARGUMENTS = '{"city": "Paris", "in": {"unit": "}"}}'
FORM = CallForm("<tool_call>\n")


def called(events: Sequence[Event]) -> list[Event]:
    """The events that come out."""

    async def source() -> AsyncIterator[Event]:
        for event in events:
            yield event

    async def work() -> list[Event]:
        return [event async for event in as_calls(source(), FORM)]

    return asyncio.run(work())


def pieces(text: str, size: int, index: int = 0) -> list[Event]:
    return [Text(text[n : n + size], index=index) for n in range(0, len(text), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_text_becomes_a_call(size: int) -> None:
    begin, *found, end = called([Begin({"id": "chat-1"}), *pieces(WHOLE, size), End("stop")])
    calls = [each for each in found if isinstance(each, Call)]
    assert isinstance(begin, Begin) and len(calls) == len(found)
    assert calls[0].name == "weather" and calls[0].id.startswith("call_")
    assert "".join(each.arguments for each in calls) == ARGUMENTS
    assert isinstance(end, End) and end.reason == "tool_calls"
    first = json.loads(calls[0].raw.removeprefix(b"data: "))
    assert first["id"] == "chat-1" and first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "weather"


@pytest.mark.parametrize("n", range(len(WHOLE)))
def test_a_call_that_is_cut_off_is_no_whole_call(n: int) -> None:
    *found, end = called([*pieces(WHOLE[:n], 3), End("length")])
    text = "".join(each.arguments for each in found if isinstance(each, Call))
    assert isinstance(end, End) and end.reason == "length" and ARGUMENTS.startswith(text)


def test_a_stop_string_within_a_call_leaves_no_whole_call() -> None:
    *_, end = called([*pieces(WHOLE[:45], 5), End("stop")])
    assert isinstance(end, End) and end.reason == "stop"
    *_, end = called([*pieces(WHOLE, 5), End("stop", cut=Cut("time"))])
    assert isinstance(end, End) and end.reason == "stop"


def test_answers_of_one_request_are_kept_apart() -> None:
    mixed = [each for pair in zip(pieces(WHOLE, 4, 0), pieces(WHOLE, 4, 1), strict=True) for each in pair]
    found = called([*mixed, End("stop", 0), End("stop", 1)])
    for index in (0, 1):
        mine = [each.arguments for each in found if isinstance(each, Call) and each.index == index]
        assert "".join(mine) == ARGUMENTS


def test_thoughts_count_and_calls_pass() -> None:
    *found, _ = called([Thought(WHOLE), End("stop")])
    assert "".join(each.arguments for each in found if isinstance(each, Call)) == ARGUMENTS
    call = Call(0, "call_1", "weather", "{}")
    assert called([call, End("tool_calls")]) == [call, End("tool_calls")]


def test_only_a_required_call_is_one() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    body: dict[str, Any] = {"tools": tools, "tool_choice": "required"}
    assert must_call(body)
    assert not must_call({**body, "tool_choice": "auto"}) and not must_call({"tool_choice": "required"})
    assert not must_call({**body, "max_tokens": 0})
    changed = by_grammar({**body, "logprobs": True}, FORM)
    assert changed["tool_choice"] == "none" and changed["tools"] == tools and "logprobs" not in changed
    assert 'root ::= "<tool_call>\\n" (' in changed["grammar"]


# How templates in the wild show a past call.
JSON_CALL = '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
SHOWN = {
    "plain": "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>",
    "hermes": TEMPLATE,
    "bare": TEMPLATE.replace("<tool_call>\n", "").replace("\n</tool_call>", "").replace('"arguments"', '"parameters"'),
    "xml": TEMPLATE.replace(JSON_CALL, "<f={{ call.function }}>"),
    "thought": TEMPLATE.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}"),
}  # fmt: skip
UNIT = {"enum": ["C", "F"]}
TOOLS: list[Any] = [
    {"type": "function", "function": {
        "name": "weather", "description": "The weather of a city.",
        "parameters": {
            "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "unit": {"$ref": "#/$defs/unit"}},
            "required": ["city", "unit"], "additionalProperties": False, "$defs": {"unit": UNIT},
        },
    }},
    {"type": "function", "function": {
        "name": "pick", "parameters": {
            "type": "object", "properties": {"number": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["number"], "additionalProperties": False,
        },
    }},
]  # fmt: skip


@pytest.fixture(scope="module")
def random_callers(
    tmp_path_factory: pytest.TempPathFactory, vocabularies: Path, start: Callable[..., Server]
) -> Iterator[Server]:
    """Models with random weights, which would never call by themselves, with templates of several kinds."""
    directory = tmp_path_factory.mktemp("required")
    plain = write_bos_model(directory / "plain.gguf", vocabularies)
    files = [write_tool_model(plain, directory / f"{name}.gguf", shown) for name, shown in SHOWN.items()]
    with start(*map(str, files), "--slots", "2", "--ctx-size", "2048", "--tools", "clock") as server:
        yield server


def calls_of(choice: Any) -> list[Any]:
    return list(choice.message.tool_calls or ())


def check(name: str, arguments: Any) -> None:
    """Whether a call is one of `TOOLS`."""
    if name == "weather":
        assert arguments["city"] in ("Paris", "Rome") and arguments["unit"] in ("C", "F") and len(arguments) == 2
    else:
        assert name == "pick" and 0 <= arguments["number"] <= 99 and len(arguments) == 1


@pytest.mark.engine
@pytest.mark.parametrize("name", SHOWN)
def test_every_kind_of_template_gives_one_valid_call(random_callers: Server, name: str) -> None:
    client = openai.OpenAI(base_url=f"{random_callers.url}/v1", api_key="none", max_retries=0, timeout=120)
    asked: Any = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "tools": TOOLS,
                  "tool_choice": "required", "temperature": 1}  # fmt: skip
    for seed in range(3):
        (choice,) = client.chat.completions.create(**asked, seed=seed).choices
        (call,) = calls_of(choice)
        assert choice.finish_reason == "tool_calls" and call.type == "function" and not choice.message.content
        check(call.function.name, json.loads(call.function.arguments))
        with client.chat.completions.stream(**asked, seed=seed) as stream:
            final = stream.get_final_completion().choices[0]
        (streamed,) = calls_of(final)
        assert final.finish_reason == "tool_calls" and not final.message.content
        assert streamed.function.name == call.function.name
        assert json.loads(streamed.function.arguments) == json.loads(call.function.arguments)
    two = client.chat.completions.create(**asked, n=2).choices
    assert [len(each.message.tool_calls or ()) for each in two] == [1, 1]


@pytest.mark.engine
def test_a_named_tool_and_a_limit(random_callers: Server) -> None:
    client = openai.OpenAI(base_url=f"{random_callers.url}/v1", api_key="none", max_retries=0, timeout=120)
    asked: Any = {"model": "hermes", "messages": [{"role": "user", "content": "Hello"}], "tools": TOOLS}
    named: Any = {"type": "function", "function": {"name": "pick"}}
    (call,) = calls_of(client.chat.completions.create(**asked, tool_choice=named).choices[0])
    assert call.type == "function" and call.function.name == "pick"
    cut = client.chat.completions.create(**asked, tool_choice="required", max_tokens=12).choices[0]
    assert cut.finish_reason == "length"


@pytest.mark.engine
def test_other_protocols_have_it_too(random_callers: Server) -> None:
    tools: list[Any] = [{"type": "function", **tool["function"]} for tool in TOOLS]
    client = openai.OpenAI(base_url=f"{random_callers.url}/v1", api_key="none", max_retries=0, timeout=120)
    asked: Any = {"model": "hermes", "input": "Hello", "tools": tools, "tool_choice": "required"}
    (item,) = client.responses.create(**asked).output
    assert item.type == "function_call"
    check(item.name, json.loads(item.arguments))
    with client.responses.stream(**asked) as stream:
        kinds = [event.type for event in stream]
        (item,) = stream.get_final_response().output
    assert "response.function_call_arguments.done" in kinds and item.type == "function_call"
    check(item.name, json.loads(item.arguments))
    claude = anthropic.Anthropic(base_url=random_callers.url, api_key="none", max_retries=0, timeout=120)
    shapes: Any = [{"name": each["name"], "input_schema": each["parameters"]} for each in tools]
    said: Any = {
        "model": "hermes",
        "max_tokens": 200,
        "messages": [{"role": "user", "content": "Hello"}],
        "tools": shapes,
    }
    message = claude.messages.create(**said, tool_choice={"type": "any"})
    assert message.stop_reason == "tool_use" and [each.type for each in message.content] == ["tool_use"]
    with claude.messages.stream(**said, tool_choice={"type": "tool", "name": "pick"}) as streamed:
        (block,) = streamed.get_final_message().content
    assert block.type == "tool_use"
    check(block.name, block.input)


@pytest.mark.engine
def test_models_that_know_tools_get_those_of_the_server(random_callers: Server) -> None:
    """Their weights are random: what they write is nothing, but the calls and the answer come in good order."""
    client = openai.OpenAI(base_url=f"{random_callers.url}/v1", api_key="none", max_retries=0, timeout=120)
    asked: Any = {"model": "hermes", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 60,
                  "extra_body": {"server_tools": ["clock"]}}  # fmt: skip
    free = client.chat.completions.create(**asked)
    assert free.choices[0].finish_reason in ("stop", "length") and not free.choices[0].message.tool_calls
    named: Any = {"type": "function", "function": {"name": "clock"}}
    forced = client.chat.completions.create(**{**asked, "max_tokens": 200}, tool_choice=named)
    (call, *_) = forced.model_dump()["edgellm"]["tools"]
    assert call["name"] == "clock" and isinstance(json.loads(call["arguments"]), dict)
