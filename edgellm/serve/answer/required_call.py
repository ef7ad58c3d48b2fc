"""A call that must come: the model writes it by a grammar of ours, and its text becomes the call that clients expect.

    if must_call(body):
        form = required_form(worker.model)
        events = as_calls(await said(by_grammar(body, form)), form)

llama-server's own grammar for `tool_choice: required` permits any text before the call, and a small model may never
stop writing it. Ours begins with the mark of the call, in the form that the model's template shows. So the answer is
exactly one call of an offered tool, with arguments of its schema, unless a limit cuts it off.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from edgellm.errors import EdgellmError
from edgellm.run.call_form import CallForm, call_form
from edgellm.run.chat_template import ChatTemplate
from edgellm.run.events import Begin, Call, End, Event, Text, Thought
from edgellm.serve.answer.reader import calling_piece
from edgellm.serve.workers.catalog import ServedModel
from edgellm.serve.workers.tool_prelude import CALL

# What our own prelude shows, and what stands in for a form that is no single JSON object.
PRELUDE_FORM, PLAIN_FORM = CallForm(CALL), CallForm("")


def must_call(body: Mapping[str, Any]) -> bool:
    """Whether the answer has to be a tool call; zero tokens are none."""
    return body.get("tool_choice") == "required" and bool(body.get("tools")) and body.get("max_tokens") != 0


def required_form(model: ServedModel) -> CallForm:
    """How a model writes a call."""
    return PRELUDE_FORM if model.has_prelude else _form(model.tool_template or model.template)


@lru_cache(maxsize=64)
def _form(template: str) -> CallForm:
    try:
        return call_form(ChatTemplate(template)) or PLAIN_FORM
    except EdgellmError:
        return PLAIN_FORM


def by_grammar(body: Mapping[str, Any], form: CallForm) -> dict[str, Any]:
    """The body of a request whose answer is the text of one call; the model sees the tools as before."""
    changed = {name: value for name, value in body.items() if name not in ("logprobs", "top_logprobs")}
    return {**changed, "tool_choice": "none", "grammar": form.grammar(body["tools"])}


async def as_calls(events: AsyncIterator[Event], form: CallForm) -> AsyncIterator[Event]:
    """The events, with the text of each answer as a call."""
    about: Mapping[str, Any] = {}
    written: dict[int, _Written] = {}
    async for event in events:
        match event:
            case Begin():
                about = event.about
                yield event
            case Text() | Thought():  # a template that opens a thought makes llama-server take all for one
                call = written.setdefault(event.index, _Written(form, event.index))
                for piece in call.feed(event.text):
                    yield calling_piece(piece, about)
            case End() if event.index in written:
                call = written[event.index]
                for piece in call.finish():
                    yield calling_piece(piece, about)
                is_call = call.is_whole and event.reason == "stop" and event.cut is None
                yield replace(event, reason="tool_calls") if is_call else event
            case _:
                yield event


@dataclass(slots=True)
class _Written:
    """The text of one call as it comes: first its name, then its arguments without the brace that closes the call."""

    form: CallForm
    index: int
    name: str = ""
    head: str = ""
    arguments: str = ""
    n_shown: int = 0

    def feed(self, text: str) -> Iterator[Call]:
        """Take a piece; yields what it adds to the call."""
        if self.name:
            self.arguments += text
        else:
            self.head += text
            begun = _begin(self.form).search(self.head)
            if begun is None:
                return
            self.name, self.arguments = json.loads(begun[1]), self.head[begun.end() :]
            yield Call(0, f"call_{secrets.token_urlsafe(18)}", self.name, "", self.index)
        # The last brace may be the one that closes the call.
        yield from self._show(max(self.n_shown, len(self.arguments.rstrip().removesuffix("}").rstrip())))

    def finish(self) -> Iterator[Call]:
        """What was held back and belongs to the arguments: nothing if they are whole."""
        if not self.is_whole:
            yield from self._show(len(self.arguments))

    @property
    def is_whole(self) -> bool:
        """Whether the arguments that were shown are whole JSON."""
        try:
            json.loads(self.arguments[: self.n_shown])
        except (ValueError, RecursionError):
            return False
        return bool(self.name)

    def _show(self, end: int) -> Iterator[Call]:
        piece = self.arguments[self.n_shown : end]
        self.n_shown = end
        if piece and self.name:
            yield Call(0, "", "", piece, self.index)


@lru_cache(maxsize=64)
def _begin(form: CallForm) -> re.Pattern[str]:
    name, arguments = (re.escape(json.dumps(key)) for key in (form.name_key, form.arguments_key))
    return re.compile(rf'\{{\s*{name}\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*{arguments}\s*:\s*(?=\S)')
