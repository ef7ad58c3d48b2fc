"""The schemas of requests as llama-server gets them, and the checks of finished answers."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edgellm.errors import AnswerMismatch
from edgellm.run.events import Call, Cut, End, Event, Text
from edgellm.serve.answer.check import AnswerCheck
from edgellm.serve.answer.forms import constrained
from edgellm.serve.http.problems import Problem

CITY = {"type": "object", "properties": {"city": {"type": "string", "minLength": 3}}, "required": ["city"]}


def form(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def tools(*schemas: Any, **more: Any) -> dict[str, Any]:
    functions = [{"name": f"f{index}", "parameters": schema, **more} for index, schema in enumerate(schemas)]
    return {"tools": [{"type": "function", "function": function} for function in functions]}


@pytest.mark.parametrize(
    "body",
    [
        form(CITY), {"json_schema": CITY}, {"response_format": {"type": "json_object", "schema": CITY}},
        {"response_format": {"type": "json_object"}}, form(True), form({}), {"json_schema": True},
    ],
)  # fmt: skip
def test_the_schema_of_an_answer_becomes_a_grammar(body: dict[str, Any]) -> None:
    formed = constrained(body, by_grammar=True)
    assert formed.body.keys() - {"draft_hint"} == {"grammar"} and formed.body["grammar"].startswith("root ::= ")
    with_thoughts = constrained(body, by_grammar=False).body["response_format"]
    assert with_thoughts["type"] == "json_schema" and with_thoughts["json_schema"]["schema"]


def test_text_needs_no_grammar() -> None:
    body = {"response_format": {"type": "text"}, "messages": []}
    assert constrained(body, by_grammar=True).body == body


@pytest.mark.parametrize("field", ["json_schema", "response_format"])
def test_a_schema_that_nothing_matches_names_its_field(field: str) -> None:
    with pytest.raises(Problem, match="nothing can match it") as caught:
        constrained({"json_schema": False} if field == "json_schema" else form(False), by_grammar=True)
    assert caught.value.status == 400 and caught.value.field == field


def test_plain_tools_stay_as_they_are() -> None:
    body = tools(CITY, {"type": "object", "properties": {}})
    assert constrained(body, by_grammar=False).body == body


def test_a_bad_tool_does_not_block_the_others() -> None:
    bad = {"type": "object", "properties": {"a": {"$ref": "#/nowhere", "description": "what"}}}
    formed = constrained(tools(CITY, bad, True, False, {}), by_grammar=False)
    parameters = [tool["function"]["parameters"] for tool in formed.body["tools"]]
    opened = {"type": "object", "properties": {"a": {"description": "what"}}, "additionalProperties": True}
    assert parameters == [CITY, opened, {"type": "object"}, {"type": "object"}, {"type": "object"}]
    assert [warning.split(":")[0] for warning in formed.warnings] == ["tools.1 (f1)", "tools.3 (f3)"]
    assert "leads nowhere" in formed.warnings[0] and "nothing can match it" in formed.warnings[1]


def test_a_tools_schema_is_rewritten_where_llama_server_misreads_it() -> None:
    schema = {"properties": {"kind": {"allOf": [{"$ref": "#/definitions/K"}], "description": "which"}},
              "definitions": {"K": {"enum": ["a", "b"]}}}  # fmt: skip
    formed = constrained(tools(schema), by_grammar=False)
    written = formed.body["tools"][0]["function"]["parameters"]
    assert written["properties"]["kind"]["description"] == "which" and "allOf" not in str(written)
    assert not formed.warnings


async def said(*events: Event) -> AsyncIterator[Event]:
    for event in events:
        yield event


def watched(body: dict[str, Any], *events: Event, warnings: tuple[str, ...] = (), begun: str = "") -> list[Event]:
    async def run() -> list[Event]:
        check = AnswerCheck(body, warnings, begun=begun)
        return [event async for event in check.watch(said(*events))]

    return asyncio.run(run())


def test_an_answer_is_checked_when_the_model_has_ended_it() -> None:
    good, bad = Text('{"city": "Rome"}'), Text('{"city": "R"}')
    assert watched(form(CITY), good, End("stop")) == [good, End("stop")]
    with pytest.raises(AnswerMismatch, match="does not match") as caught:
        watched(form(CITY), bad, End("stop"))
    assert "too short at $.city" in caught.value.why
    with pytest.raises(AnswerMismatch, match="not whole JSON"):
        watched(form(CITY), Text('{"ci'), End("stop"))
    assert watched(form(CITY), Text('"Rome"}'), End("stop"), begun='{"city": ')
    for end in (End("length"), End("stop", cut=Cut("time"))):
        assert watched(form(CITY), bad, end) == [bad, end]


def test_each_of_several_answers_is_checked() -> None:
    first, second = Text('{"city": "Rome"}', index=0), Text('{"city": 5}', index=1)
    with pytest.raises(AnswerMismatch):
        watched(form(CITY), first, second, End("stop", 0), End("stop", 1))


@pytest.mark.parametrize("strict", [True, False])
def test_arguments_of_a_strict_tool_are_checked(strict: bool) -> None:
    call, end = Call(0, "c1", "f0", '{"city": "R"}'), End("tool_calls")
    if not strict:
        assert watched(tools(CITY), call, end) == [call, end]
        return
    with pytest.raises(AnswerMismatch, match="the call of f0 does not match"):
        watched(tools(CITY, strict=True), call, end)
    # A call is an answer, too.
    assert watched({**form(CITY), **tools(CITY)}, Call(0, "c", "f0", '{"city": "Rome"}'), end)


def test_warnings_come_with_the_end() -> None:
    (end,) = watched(tools({}), End("stop"), warnings=("tools.0 (f0): it is bad",))
    assert isinstance(end, End) and end.warnings == ("tools.0 (f0): it is bad",)
