"""Checks finished answers against the schemas of their request, because no grammar says all of a schema.

    check = AnswerCheck(body)
    async for event in check.watch(events): ...

An answer that a limit, a loop or the client ended is not checked: its finish reason says that it is not whole. One that
the model ended and that does not match is an error: instead of the answer, or at the end of a stream. The arguments of
a call are checked if the tool is `strict`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from edgellm.run.events import Call, End, Event, Text
from edgellm.run.structure import check_answer
from edgellm.serve.answer.forms import answer_schema, checker_of
from edgellm.serve.answer.whole import Whole


class AnswerCheck:
    """The checks of one request; `begun` is what the answer already had."""

    def __init__(self, body: Mapping[str, Any], warnings: Sequence[str] = (), *, begun: str = "") -> None:
        asked = answer_schema(body)
        self._answer = None if asked is None else checker_of(asked[1])
        self._begun = begun
        self._warnings = tuple(dict.fromkeys(warnings))
        # A tool with a warning cannot be checked either.
        self._tools = {
            function["name"]: function["parameters"]
            for index, tool in enumerate(body.get("tools") or ())
            if (function := tool.get("function") or {}).get("strict") and function.get("parameters") is not None
            and not any(each.startswith(f"tools.{index} ") for each in warnings)
        }  # fmt: skip

    def watch(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """The events; they end with AnswerMismatch if an answer is over and does not match."""
        has_work = self._answer is not None or self._tools or self._warnings
        return self._watched(events) if has_work else events

    async def _watched(self, events: AsyncIterator[Event]) -> AsyncIterator[Event]:
        whole = Whole()
        async for event in events:
            if isinstance(event, Text | Call | End):
                whole.add(event)
            if isinstance(event, End):
                if event.cut is None and event.reason in ("stop", "tool_calls"):
                    await asyncio.to_thread(self._check, whole, event)
                event = replace(event, warnings=self._warnings)
            yield event

    def _check(self, whole: Whole, end: End) -> None:
        choice = whole.choices[end.index]
        for call in choice.calls:
            if (schema := self._tools.get(call.name)) is not None:
                check_answer(call.text or "{}", checker_of(schema), f"the call of {call.name[:100]}")
        if self._answer is not None and not choice.calls:
            check_answer(self._begun + choice.text, self._answer)
