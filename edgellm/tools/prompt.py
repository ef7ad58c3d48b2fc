"""The messages for models whose templates know no tools: some ask for a tool's arguments, some show its result.

    with_call(messages, tool, examples)        # examples of calls as turns before the question
    with_result(messages, returned, toolbox)   # the last message has the result beside the question

Both begin like the chat itself, so that what the context holds of it is not computed again. The words were measured
with the smallest model (docs/explanation/tools.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgellm.run.events import Returned
from edgellm.tools.outside import is_from_outside
from edgellm.tools.tool import Tool
from edgellm.tools.toolbox import Toolbox

# Of the schema of a tool without examples, in characters.
MOST_SCHEMA = 2_000
COMPUTED = "Write this result as the answer, with its sign and all digits."
FOUND = "Answer the question from this data, in one or two sentences."
# A question and the arguments of the call for it.
Example = tuple[str, Mapping[str, Any]]
Messages = Sequence[Mapping[str, Any]]


def with_call(
    messages: Messages, tool: Tool, examples: Sequence[Example], failed: Sequence[Returned] = ()
) -> list[Mapping[str, Any]]:
    """The chat, then examples of calls, the question, and the attempts that failed."""
    question = messages[-1]["content"]
    turns = [(asked, _json(given)) for asked, given in examples]
    if not turns:
        schema = _json(dict(tool.parameters))[:MOST_SCHEMA]
        question = f"{tool.name}: {tool.description}\nIts arguments: {schema}\n\nWrite them as JSON for: {question}"
    turns += [(question, each.arguments) for each in failed]
    shown = [
        {"role": role, "content": text}
        for asked, given in turns
        for role, text in (("user", asked), ("assistant", given))
    ]
    last = question if not failed else f"{failed[-1].text} Write other arguments for: {question}"
    return [*messages[:-1], *shown, {**messages[-1], "content": last}]


def with_result(
    messages: Messages, returned: Sequence[Returned], toolbox: Toolbox, examples: Sequence[tuple[str, str]] = ()
) -> list[Mapping[str, Any]]:
    """The chat, with results below its last question; errors only where there is nothing else.

    `examples` are questions and results of the tool, which stand before the question, answered with the results.
    """
    shown = [each for each in returned if not each.error] or list(returned[-1:])
    tools = [toolbox.get(each.name) for each in shown]
    task = FOUND if any(tool is not None and is_from_outside(tool) for tool in tools) else COMPUTED
    turns = [
        {"role": role, "content": text}
        for asked, result in examples
        for role, text in (("user", _beside(asked, result, task)), ("assistant", result))
    ]
    last = _beside(messages[-1]["content"], "\n".join(each.text for each in shown), task)
    return [*messages[:-1], *turns, {**messages[-1], "content": last}]


def _beside(question: str, result: str, task: str) -> str:
    return f"{question}\n\nThe result is:\n{result}\n\n{task}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
