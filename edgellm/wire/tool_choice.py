"""Which of its tools a model may or must call; llama-server knows only none, auto and required.

tools, choice = chosen(tools, NamedTool(type="function", function=FunctionName(name="weather")))

To force one tool, the model is shown only that tool and must call one, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from edgellm.wire.body import Body, FieldError
from edgellm.wire.fields import Name

Mode = Literal["none", "auto", "required"]


class FunctionName(Body):
    """A function by its name."""

    name: Name


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Body):
    """Those of the tools that may, or of which one must, be called."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class Allowed(Body):
    """The same as OpenAI's chat has it."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class ProviderTool(Body):
    """A tool that only its provider runs, a web search for example. It is left out, and named in the answer."""

    type: Name
    name: Name | None = None

    @classmethod
    def ignores(cls, name: str, body: Mapping[str, Any]) -> bool:
        """All of its settings: they have no effect without the tool."""
        return True


def left_out(tools: Iterable[Body] | None) -> list[dict[str, Any]]:
    """The tools that a model is not offered, by type and name."""
    return [tool.given() for tool in tools or () if isinstance(tool, ProviderTool)]


def chosen(tools: Sequence[dict[str, Any]], choice: Mode | NamedTool | Allowed | None) -> dict[str, Any]:
    """`tools` and `tool_choice` for the worker; `tools` are in chat's form."""
    if choice is None or isinstance(choice, str):
        if choice == "required" and not tools:
            raise _unknown("a tool is required, and tools has none")
        return {**({"tools": list(tools)} if tools else {}), **({"tool_choice": choice} if choice and tools else {})}
    mode: dict[str, Any]
    if isinstance(choice, NamedTool):
        names, mode = [choice.function.name], {"tool_choice": "required", "parallel_tool_calls": False}
    else:
        names = [tool.function.name for tool in choice.allowed_tools.tools]
        mode = {"tool_choice": choice.allowed_tools.mode}
        if not names:
            raise _unknown("allowed_tools names no tool")
    known = {tool["function"]["name"]: tool for tool in tools}
    for name in names:
        if name not in known:
            raise _unknown(f"tools has no function {name[:100]!r}")
    return {"tools": [known[name] for name in names], **mode}


def _unknown(why: str) -> FieldError:
    return FieldError(f"tool_choice: {why}", field="tool_choice")
