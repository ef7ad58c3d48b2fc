"""An answer for which the model may call tools that the server runs: asked, called, and asked again with the result.

    events = with_tools(asked, question, ask, worker)
    async for event in events: ...

The client sees one answer: one beginning, one end with the tokens of all steps, and between them each call with what it
returned. A call of a tool of the client's own ends the answer, as ever. One call is made at a time.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from edgellm.run.events import Begin, Call, End, Event, Returned, Text, TokenCounts
from edgellm.run.structure import JSON_OBJECT, Structure
from edgellm.serve.answer.prepare import Question
from edgellm.serve.answer.reader import begun
from edgellm.serve.answer.required_call import required_form
from edgellm.serve.answer.tools_and_schema import calling, has_schema
from edgellm.serve.documents.embedder import tokens
from edgellm.serve.http.problems import Problem
from edgellm.serve.metrics import Metrics
from edgellm.serve.tools.served import AskedTools, ServedTools
from edgellm.serve.tools.wanted import DecidedCall, FirstCall
from edgellm.serve.workers.worker import Worker
from edgellm.tools.budget import ToolBudget
from edgellm.tools.rounds import ToolRounds
from edgellm.tools.steps import MOST_CALL, ToolItem, ToolStep, ToolSteps, own_form, tool_steps

# Puts the body of one step to the model, with a grammar of our own for the answer, or "".
Ask = Callable[[dict[str, Any], str], Awaitable[AsyncIterator[Event]]]
# Kept free for the answer, and for the marks of the template around a result.
ANSWER_TOKENS, TEMPLATE_TOKENS = 512, 64
COUNT_SECONDS = 30.0
NO_TOKENS = TokenCounts(0, 0, 0)


@dataclass(slots=True)
class _Step:
    """What one step of the model came to: the call that it wants made, if any, and its end."""

    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    end: End | None = None


class AnswerWithTools:
    """The steps of one answer."""

    def __init__(
        self, served: ServedTools, asked: AskedTools, question: Question, worker: Worker, metrics: Metrics
    ) -> None:
        """Nothing is asked yet.

        Raises:
            Problem: the request cannot be honoured together with tools of the server.
        """
        self._served, self._asked, self._worker, self._metrics = served, asked, worker, metrics
        self._body = question.body
        self._own: list[dict[str, Any]] = list(question.body.get("tools") or ())
        if question.n > 1:
            raise Problem(400, "n: tools of the server give one answer, not several", code="bad-field", field="n")
        names = {tool["function"]["name"] for tool in self._own}
        if both := names & {tool.name for tool in asked.toolbox}:
            message = f"tools: the server has a tool {min(both)!r} of its own; give yours another name"
            raise Problem(400, message, code="bad-field", field="tools")
        loop = asyncio.get_running_loop()

        def count(text: str) -> int:
            return len(asyncio.run_coroutine_threadsafe(tokens(worker, text), loop).result(COUNT_SECONDS))

        most = asked.wanted.most_calls
        budget = ToolBudget() if most is None else ToolBudget(calls=min(most, ToolBudget().calls))
        text = _question(question.body["messages"])
        first = [tool for tool in asked.toolbox if asked.wanted.first is not None and asked.may_be_first(tool.name)]
        # In a thread: choosing among many tools compares what they mean.
        self._begin = lambda: ToolRounds(
            asked.toolbox, text, count=count, choose=served.choose, budget=budget, first=first, new_id=_new_id
        )
        self._rounds: ToolRounds
        self._messages: list[dict[str, Any]] = list(question.body["messages"])
        # The tokens of all steps so far, and the end of the last one.
        self._counts, self._last = NO_TOKENS, End("stop")
        self._has_begun = False

    async def watch(self, ask: Ask) -> AsyncIterator[Event]:
        """The events of the whole answer; `ask` puts one step to the model."""
        self._rounds = await self._served.work(self._begin)
        for decided in self._asked.wanted.decided:
            async for event in self._made(decided):
                yield event
        chooses = await self._served.work(lambda: self._chooses)
        async for event in self._chosen(ask) if chooses else self._choosing(ask):
            yield event

    @property
    def _chooses(self) -> bool:
        """Whether edgellm chooses the tools: the model cannot, and the chat has no calls of the client's."""
        has_calls = any(each["role"] == "tool" or each.get("tool_calls") for each in self._body["messages"])
        is_asked = self._body["messages"][-1]["role"] == "user"
        if self._own or has_calls or not is_asked:
            return False
        model = self._worker.model
        return model.has_prelude or own_form(required_form(model), model.outline.n_params, self._rounds) is None

    async def _choosing(self, ask: Ask) -> AsyncIterator[Event]:
        """Let a model that knows tools write, and run its calls, until it answers."""
        while True:
            step = _Step()
            async for event in self._step(await ask(self._step_body(), ""), step):
                yield event
            if step.end is None:
                return
            self._counts = _sum(self._counts, step.end.tokens)
            is_call = step.name and step.end.reason == "tool_calls" and step.end.cut is None
            if not is_call:
                yield replace(step.end, tokens=self._counts)
                return
            call = self._call(step.call_id, step.name, "".join(step.arguments) or "{}")
            yield call
            if self._asked.needs_approval(step.name):
                yield replace(step.end, reason="stop", tokens=self._counts)
                return
            self._last = step.end
            yield await self._run(call)
            self._messages[-2]["content"] = "".join(step.text)

    async def _chosen(self, ask: Ask) -> AsyncIterator[Event]:
        """Call the tool that fits the question, and let the model answer from the result: the steps of `tool_steps`."""
        plain = {name: each for name, each in self._body.items() if name not in ("tools", "tool_choice")}
        steps = tool_steps(list(self._body["messages"]), self._rounds, None, room=self._room)
        written: str | None = None
        while (item := await self._served.work(partial(_next, steps, written))) is not None:
            written = None
            match item:
                case ToolStep():
                    step = _Step()
                    async for event in self._step(await self._asked_for(ask, plain, item), step):
                        if item.structure is None or isinstance(event, Begin):
                            yield event
                    if step.end is None:
                        return
                    self._counts, self._last = _sum(self._counts, step.end.tokens), step.end
                    written = "".join(step.text)
                    if item.structure is None or step.end.cut is not None:
                        yield replace(step.end, tokens=self._counts)
                        return
                case Call():
                    yield replace(item, source=self._source(item.name))
                    if self._asked.needs_approval(item.name):
                        yield replace(self._last, reason="stop", tokens=self._counts)
                        return
                case Returned():
                    self._note(item)
                    yield item

    async def _asked_for(self, ask: Ask, plain: Mapping[str, Any], step: ToolStep) -> AsyncIterator[Event]:
        """The events of one step of `tool_steps`."""
        body = {**plain, "messages": list(step.messages)}
        if step.structure is not None:
            return await ask(_for_arguments(body, step.structure, self._left), "")
        is_free = self._worker.model.answers_plainly and not has_schema(body)
        return await ask(body | self._limit, step.grammar if is_free else "")

    @property
    def _left(self) -> int:
        """The tokens that may still be drawn; -1 for as many as there is room for."""
        most = self._body.get("max_tokens") or -1
        return max(1, most - self._counts.completion) if most > 0 else -1

    @property
    def _limit(self) -> dict[str, int]:
        """The limit of the whole answer, for one more step."""
        return {"max_tokens": self._left} if self._left > 0 else {}

    async def _made(self, decided: DecidedCall) -> AsyncIterator[Event]:
        """A call that the client was asked about: made, or refused."""
        name = self._asked.named(decided.label, decided.name)
        call = self._call(decided.id, name, decided.arguments)
        if decided.approved:
            if not self._has_begun:
                self._has_begun = True
                yield begun(str(self._body["model"]) if "model" in self._body else self._worker.model.name)
            yield call
            yield await self._run(call)
        else:
            why = f" The user says: {decided.reason[:500]}" if decided.reason else ""
            refused = Returned(0, decided.id, name, decided.arguments, f"The user does not allow this call.{why}", True)
            self._messages += self._rounds.messages(refused)

    def _call(self, call_id: str, name: str, arguments: str) -> Call:
        return Call(len(self._rounds.returned), call_id, name, arguments, source=self._source(name))

    def _source(self, name: str) -> str:
        tool = self._asked.toolbox.get(name)
        return tool.source if tool else "unknown"

    async def _step(self, events: AsyncIterator[Event], step: _Step) -> AsyncIterator[Event]:
        """The events of one step that the client sees; calls of the server's tools are kept in `step`."""
        async for event in events:
            match event:
                case Begin():
                    if not self._has_begun:
                        self._has_begun = True
                        yield event
                case Call() if event.position == 0 and (step.name or self._is_served(event.name)):
                    if event.name:
                        step.name, step.call_id = event.name, event.id
                    step.arguments.append(event.arguments)
                case Call() if step.name:  # one at a time: it may be made after the result of the first
                    continue
                case End():
                    step.end = event
                case _:
                    if isinstance(event, Text):
                        step.text.append(event.text)
                    yield event

    def _is_served(self, name: str) -> bool:
        return self._asked.toolbox.get(name) is not None

    def _step_body(self) -> dict[str, Any]:
        """The request for the next step."""
        offered = [tool.as_function for tool in self._rounds.offered]
        body = {**self._body, "messages": self._messages, "parallel_tool_calls": False, **self._limit}
        body.pop("tool_choice", None)
        if not self._rounds.may_call:
            offered_now = {"tools": [*self._own, *offered], "tool_choice": "auto" if self._own else "none"}
        elif self._asked.wanted.first is not None and not self._rounds.returned:
            first = [tool.as_function for tool in self._asked.toolbox if self._asked.may_be_first(tool.name)]
            is_any = self._asked.wanted.first in (None, FirstCall())
            offered_now = {"tools": [*self._own, *offered] if is_any else first, "tool_choice": "required"}
        else:
            offered_now = {"tools": [*self._own, *offered]}
        return body | offered_now

    async def _run(self, call: Call) -> Returned:
        """Make a call, and put it and its result into the messages."""
        room = self._room()
        returned = await self._served.work(lambda: self._rounds.run(call.id, call.name, call.arguments, room=room))
        self._note(returned)
        self._messages += self._rounds.messages(returned)
        return returned

    def _room(self, *_: Any) -> int:
        """The tokens that a result may have: beside the last step and the answer, a third of the context at most."""
        n_ctx, counts = self._worker.plan.n_ctx, self._last.tokens
        used = counts.prompt + counts.completion if counts else n_ctx // 2
        answer = min(self._body.get("max_tokens") or ANSWER_TOKENS, ANSWER_TOKENS)
        return max(0, min(n_ctx - used - answer - TEMPLATE_TOKENS, n_ctx // 3))

    def _note(self, returned: Returned) -> None:
        tool = self._asked.toolbox.get(returned.name)
        self._served.note(returned, tool)
        self._metrics.tool_returned(returned, is_known=tool is not None)


def _next(steps: ToolSteps, written: str | None) -> ToolItem | None:
    """The next item of the steps; None at their end."""
    try:
        return steps.send(written)
    except StopIteration:
        return None


def _for_arguments(body: Mapping[str, Any], structure: Structure, left: int) -> dict[str, Any]:
    """The request for the arguments of a tool alone, by its schema."""
    schema = json.loads(structure.schema or JSON_OBJECT)
    form = {"type": "json_schema", "json_schema": {"name": "arguments", "schema": schema}}
    most = min(MOST_CALL, left) if left > 0 else MOST_CALL
    return {**calling(body), "response_format": form, "max_tokens": most}


def _new_id(_: int) -> str:
    return f"call_{secrets.token_urlsafe(12)}"


def _question(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the user asked last."""
    asked = [str(each["content"]) for each in messages if each["role"] == "user" and each.get("content")]
    return asked[-1] if asked else ""


def _sum(counts: TokenCounts, more: TokenCounts | None) -> TokenCounts:
    return counts if more is None else TokenCounts(*map(sum, zip(counts, more, strict=True)))
