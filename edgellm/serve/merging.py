"""A stream of chat or completion events as the one answer that a client wants who does not stream.

merged = Merged()
async for event in answer: merged.add(event.data)
merged.as_chat(ending)

The front always streams from the worker: so the loop guard watches, and a client that goes away stops the work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgellm.serve.answers import Ending
from edgellm.serve.logprobs import Entries, as_chat, as_completion

CONTENT, REASONING = "content", "reasoning_content"


@dataclass(slots=True)
class _Choice:
    """One of the answers."""

    pieces: list[tuple[str, str]] = field(default_factory=list)
    tool_calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None

    def add(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta") or {}
        for kind in (REASONING, CONTENT):
            if text := delta.get(kind):
                self.pieces.append((kind, text))
        if text := choice.get("text"):
            self.pieces.append((CONTENT, text))
        for call in delta.get("tool_calls") or ():
            self._call(call)
        if choice.get("logprobs"):
            self.logprobs.extend(choice["logprobs"].get("content") or ())
        self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def _call(self, call: dict[str, Any]) -> None:
        known = self.tool_calls.setdefault(
            call.get("index", 0), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
        )
        function = call.get("function") or {}
        known["id"] = call.get("id") or known["id"]
        known["function"]["name"] = function.get("name") or known["function"]["name"]
        known["function"]["arguments"] += function.get("arguments") or ""

    def text(self, kind: str, kept: int | None = None) -> str:
        return "".join(text for each, text in self.pieces[:kept] if each == kind)


class Usage:
    """What an answer took in tokens, told choice by choice; `n` of them have a prompt in common."""

    def __init__(self, n: int = 1) -> None:
        self._n = n
        self._prompts: dict[int, tuple[int, int]] = {}
        self._answer = 0

    def add(self, usage: Mapping[str, Any], index: int) -> None:
        """What the choice of that index took."""
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        self._prompts[index // self._n] = (usage["prompt_tokens"], cached)
        self._answer += usage["completion_tokens"]

    def as_field(self) -> dict[str, Any]:
        """All together."""
        prompt = sum(tokens for tokens, _ in self._prompts.values())
        cached = sum(cached for _, cached in self._prompts.values())
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self._answer,
            "total_tokens": prompt + self._answer,
            "prompt_tokens_details": {"cached_tokens": cached},
        }


class Merged:
    """The answer so far. `n_top` alternatives are told of each token, None for no log-probabilities."""

    def __init__(self, n: int = 1, n_top: int | None = None) -> None:
        self._choices: dict[int, _Choice] = {}
        self._about: dict[str, Any] = {}
        self._n_top = n_top
        self._usage = Usage(n)
        self.timings: dict[str, Any] = {}

    @property
    def usage(self) -> dict[str, Any]:
        """What it took in tokens."""
        return self._usage.as_field()

    def add(self, data: dict[str, Any]) -> None:
        """The next event."""
        index = 0  # a chat's usage comes without a choice, and it has one prompt
        for choice in data.get("choices") or ():
            index = choice.get("index", 0)
            self._choices.setdefault(index, _Choice()).add(choice)
        if not self._about:
            self._about = {name: data.get(name) for name in ("id", "created", "model", "system_fingerprint")}
        if data.get("usage"):
            self._usage.add(data["usage"], index)
        self.timings = data.get("timings") or self.timings

    def as_chat(self, ending: Ending) -> dict[str, Any]:
        """A `chat.completion`; a loop is left out of its text."""
        choices = [
            {"index": index, "message": _message(choice, _kept(ending)), **self._rest(choice, ending, _chat_logprobs)}
            for index, choice in sorted(self._choices.items())
        ]
        return self._whole("chat.completion", choices, ending)

    def as_completion(self, ending: Ending) -> dict[str, Any]:
        """A `text_completion`."""
        choices = [
            {"index": index, "text": choice.text(CONTENT, _kept(ending)), **self._rest(choice, ending, as_completion)}
            for index, choice in sorted(self._choices.items())
        ]
        return self._whole("text_completion", choices, ending)

    def _whole(self, kind: str, choices: list[dict[str, Any]], ending: Ending) -> dict[str, Any]:
        ours = {"edgellm": ending.as_field()} if ending.reason else {}
        return {**self._about, "object": kind, "choices": choices, "usage": self.usage, "timings": self.timings, **ours}

    def _rest(self, choice: _Choice, ending: Ending, form: Callable[[Entries, int], dict[str, Any]]) -> dict[str, Any]:
        kept = choice.logprobs[: _kept(ending)]
        logprobs = None if self._n_top is None else form(kept, self._n_top)
        return {"logprobs": logprobs, "finish_reason": choice.finish_reason or "length"}


def _message(choice: _Choice, kept: int | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": choice.text(CONTENT, kept)}
    if reasoning := choice.text(REASONING, kept):
        message[REASONING] = reasoning
    if choice.tool_calls:
        message["tool_calls"] = [call for _, call in sorted(choice.tool_calls.items())]
        message["content"] = message["content"] or None
    return message


def _chat_logprobs(entries: Entries, n_top: int) -> dict[str, Any]:
    return {"content": as_chat(entries, n_top), "refusal": None}


def _kept(ending: Ending) -> int | None:
    return ending.kept if ending.loop is not None else None
