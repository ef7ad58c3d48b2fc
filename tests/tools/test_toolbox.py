"""Toolbox, consent and functions: what runs, what asks, and how wrong calls come back."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Literal

import pytest

from edgellm.errors import NetworkError, UsageError
from edgellm.tools.consent import Consent, Permission
from edgellm.tools.function import from_function
from edgellm.tools.tool import Risk, Tool, ToolResult
from edgellm.tools.toolbox import Toolbox

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def tool(risk: Risk = Risk.NOTHING, text: str = "sunny", name: str = "weather") -> Tool:
    return Tool(name, "The weather.", CITY, risk, lambda given: ToolResult(f"{given['city']}: {text}"))


def test_a_call() -> None:
    assert Toolbox([tool()]).call("weather", '{"city": "Oslo"}') == ToolResult("Oslo: sunny")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("wether", "{}", "Did you mean weather?"),
        ("weather", "{", "not a JSON object"),
        ("weather", "[1]", "an object with the arguments by name"),
        ("weather", "{}", "'city' is a required property"),
        ("weather", '{"city": 3}', "is not of type 'string'"),
        ("weather", '{"city": "Oslo", "colour": "red"}', "the property 'colour'"),
        ("weather", '{"city": NaN}', "not a JSON object"),
        ("weather", "[" * 100_000, "longer than"),
        ("weather", "[" * 60_000, "not a JSON object"),
    ],
)
def test_a_wrong_call_is_one_sentence(name: str, arguments: str, says: str) -> None:
    found = Toolbox([tool()]).call(name, arguments)
    assert found.error and says in found.text and len(found.text) < 700


def test_failures_and_empty_results_are_sentences() -> None:
    def fail(_: Mapping[str, Any]) -> ToolResult:
        raise NetworkError("the host is not known", why="no such name")

    def crash(_: Mapping[str, Any]) -> ToolResult:
        raise ZeroDivisionError("oh")

    def empty(_: Mapping[str, Any]) -> ToolResult:
        return ToolResult("  ")

    schema = {"type": "object"}
    box = Toolbox([Tool(f"t{n}", "", schema, Risk.NOTHING, call) for n, call in enumerate((fail, crash, empty))])
    assert [box.call(f"t{n}", {}).text for n in range(3)] == [
        "t0 failed: the host is not known (no such name).", "t1 failed: ZeroDivisionError: oh.", "t2 found nothing.",
    ]  # fmt: skip
    assert all(box.call(f"t{n}", {}).error for n in range(3))


def test_two_tools_of_one_name_and_wrong_names_are_refused() -> None:
    with pytest.raises(UsageError, match="two tools weather"):
        Toolbox([tool(), tool()])
    with pytest.raises(UsageError, match="no name"):
        tool(name="a b")


@pytest.mark.parametrize("risk", [Risk.HERE, Risk.NETWORK, Risk.ACTS])
def test_nothing_runs_that_nobody_allowed(risk: Risk) -> None:
    box = Toolbox([tool(risk)])
    assert not box.offerable and box.call("weather", {"city": "Oslo"}).error
    assert not Toolbox([tool(risk)], Consent(["weather"])).call("weather", {"city": "Oslo"}).error
    assert not Toolbox([tool(risk)], Consent(everything=True)).call("weather", {"city": "Oslo"}).error


@pytest.mark.parametrize(
    ("risk", "answers", "ran", "asked"),
    [
        (Risk.NETWORK, [Permission.YES], 3, 1),  # once a chat
        (Risk.NETWORK, [Permission.NO], 0, 1),
        (Risk.NETWORK, [Permission.ALWAYS], 3, 1),
        (Risk.ACTS, [Permission.YES, Permission.YES, Permission.NO], 2, 3),  # every call
        (Risk.ACTS, [Permission.ALWAYS], 3, 1),
        (Risk.NOTHING, [], 3, 0),
    ],
)
def test_the_user_is_asked(risk: Risk, answers: list[Permission], ran: int, asked: int) -> None:
    left, kept = list(answers), []

    def ask(_: Tool, __: Mapping[str, Any]) -> Permission:
        return left.pop(0)

    box = Toolbox([tool(risk)], Consent(ask=ask, on_always=kept.append))
    results = [box.call("weather", {"city": "Oslo"}) for _ in range(3)]
    assert sum(not each.error for each in results) == ran
    assert len(answers) - len(left) == asked and len(kept) == answers.count(Permission.ALWAYS)


class Colour(Enum):
    RED = "red"


def paint(colour: Colour, size: Literal["s", "l"], times: int = 1, names: list[str] | None = None) -> dict[str, Any]:
    """Paints something.

    Nobody reads this.

    Args:
        colour: which one.
        times: how often.

    Returns:
        what was painted.
    """
    return {"painted": colour.name, "size": size, "times": times, "names": names}


def test_a_python_function_is_a_tool() -> None:
    made = from_function(paint)
    assert made.description == "Paints something." and made.source == "python" and made.risk is Risk.NOTHING
    assert made.parameters["required"] == ["colour", "size"]
    assert made.parameters["properties"]["colour"] == {"enum": ["red"], "description": "which one."}
    assert made.parameters["properties"]["times"] == {"type": "integer", "description": "how often."}
    box = Toolbox([made])
    text = box.call("paint", {"colour": "red", "size": "l", "names": ["a"]}).text
    assert text == '{"painted": "RED", "size": "l", "times": 1, "names": ["a"]}'
    assert box.call("paint", {"colour": "blue", "size": "l"}).error


def test_a_function_without_hints_is_refused() -> None:
    def bare(city) -> str:  # type: ignore[no-untyped-def]
        return city

    def open_ended(*cities: str) -> str:
        return "".join(cities)

    def strange(what: object) -> str:
        return str(what)

    for each, why in ((bare, "city has no type hint"), (open_ended, "by name"), (strange, "object")):
        with pytest.raises(UsageError) as refused:
            from_function(each)
        assert why in refused.value.why
