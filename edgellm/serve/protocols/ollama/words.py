"""How Ollama's API writes an answer: a line of JSON for each piece; the last one has the counts and durations.

words = OllamaWords(request, "smollm2", chat_piece, Clock())
words.write(Text("Paris"))  ->  b'{"model":"smollm2",...,"message":{"role":"assistant","content":"Paris"},"done":false}'
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from edgellm.run.events import Event, LogprobEntry, Text, Thought
from edgellm.serve.answer.whole import Block, Whole
from edgellm.serve.answer.words import cut_field
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import LINES
from edgellm.serve.protocols.ollama.requests import OllamaTextRequest
from edgellm.wire.encoding import encoded
from edgellm.wire.logprobs import as_chat

# Text, thoughts and tool calls in the form of /api/chat or /api/generate.
Piece = Callable[[str, str, list[dict[str, Any]]], dict[str, Any]]


class Clock:
    """Durations of a request, in nanoseconds."""

    def __init__(self) -> None:
        self._begin = time.perf_counter_ns()
        self._load = 0

    def loaded(self) -> None:
        """The model is in memory now."""
        self._load = time.perf_counter_ns() - self._begin

    def durations(self, timings: Mapping[str, Any] | None = None) -> dict[str, int]:
        """The durations so far, with those that llama-server measured."""
        durations = {"total_duration": time.perf_counter_ns() - self._begin, "load_duration": self._load}
        if timings is not None:
            durations["prompt_eval_duration"] = _nanoseconds(timings, "prompt_ms")
            durations["eval_duration"] = _nanoseconds(timings, "predicted_ms")
        return durations


def _nanoseconds(timings: Mapping[str, Any], name: str) -> int:
    return max(1, round(float(timings.get(name) or 0) * 1e6))  # clients divide by it


class OllamaWords:
    """The lines of one answer."""

    media_type = LINES
    counts_first = False

    def __init__(self, asked: OllamaTextRequest, model: str, piece: Piece, clock: Clock) -> None:
        self._asked, self._piece, self._clock = asked, piece, clock
        self._model = asked.model or model
        self._n_top = (asked.top_logprobs or 0) if asked.logprobs else None
        self._answer = Whole()

    def write(self, event: Event) -> bytes:
        """A line for text or thoughts; calls are written when they are whole."""
        self._answer.add(event)
        match event:
            case Text(text) if text:
                return self._line(self._piece(text, "", []), self._logprobs(event.logprobs), {"done": False})
            case Thought(text):
                return self._line(self._piece("", text, []), self._logprobs(event.logprobs), {"done": False})
        return b""

    def finish(self) -> bytes:
        """The calls, and the last line."""
        calls = _calls(self._answer.choice.calls)
        before = self._line(self._piece("", "", calls), {"done": False}) if calls else b""
        return before + self._line(self._piece("", "", []), self._end(self._answer))

    def whole(self, answer: Whole) -> dict[str, Any]:
        """The answer in one document."""
        choice = answer.choice
        piece = self._piece(choice.text, choice.thoughts, _calls(choice.calls))
        return {**self.about(), **piece, **self._logprobs(choice.logprobs), **self._end(answer)}

    def without_answer(self, reason: str) -> dict[str, Any]:
        """The document of a request that only loads or unloads a model."""
        return {**self.about(), **self._piece("", "", []), "done": True, "done_reason": reason}

    def about(self) -> dict[str, Any]:
        """What every piece begins with."""
        now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
        return {"model": self._model, "created_at": now}

    def _line(self, *parts: dict[str, Any]) -> bytes:
        line = self.about()
        for part in parts:
            line |= part
        return encoded(line) + b"\n"

    def _logprobs(self, entries: Sequence[LogprobEntry]) -> dict[str, Any]:
        return {} if self._n_top is None or not entries else {"logprobs": as_chat(entries, self._n_top)}

    def _end(self, answer: Whole) -> dict[str, Any]:
        """Why it ended, and the counts. Ollama's clients know no other reasons than these two."""
        reason = "length" if answer.cut or answer.choice.finish_reason == "length" else "stop"
        counts = {"prompt_eval_count": answer.tokens.prompt, "eval_count": answer.tokens.completion}
        durations = self._clock.durations(answer.timings)
        about = cut_field(answer.cut, answer.warnings, documents=answer.documents, cache=answer.cache)
        return {"done": True, "done_reason": reason, **about, **counts, **durations}


def _calls(calls: Sequence[Block]) -> list[dict[str, Any]]:
    """Calls with their arguments as objects; a call that a limit cut off is left out."""
    whole = []
    for index, call in enumerate(calls):
        try:
            arguments = json.loads(call.text or "{}")
        except ValueError:
            continue
        function = {"index": index, "name": call.name, "arguments": arguments}
        whole.append({"id": call.call_id, "function": function})
    return whole


def chat_piece(text: str, thought: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    """The form of /api/chat."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        message["thinking"] = thought
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def generate_piece(text: str, thought: str, _: list[dict[str, Any]]) -> dict[str, Any]:
    """The form of /api/generate."""
    return {"response": text, **({"thinking": thought} if thought else {})}


def error(problem: Problem) -> dict[str, Any]:
    """`{"error": "..."}`."""
    return {"error": problem.message}


def error_event(problem: Problem) -> bytes:
    """The last line of a stream that failed."""
    return encoded(error(problem)) + b"\n"
