"""An answer in Ollama's words: a line of JSON a piece; the last one has the counts, and durations in nanoseconds.

await tell(service, worker, Telling(asked, Protocol.CHAT, chat_piece, Clock()), body, out)
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from edgellm.serve.answers import Ending, Protocol
from edgellm.serve.catalog import ServedModel
from edgellm.serve.encoding import encoded
from edgellm.serve.logprobs import as_chat
from edgellm.serve.merging import CONTENT, REASONING, Merged
from edgellm.serve.ollama_requests import ChatRequest, GenerateRequest
from edgellm.serve.responding import LINES, Output
from edgellm.serve.service import Service
from edgellm.serve.worker import Worker

Asked = ChatRequest | GenerateRequest
# Text, thoughts and calls as /api/chat or /api/generate have them.
Piece = Callable[[str, str, list[dict[str, Any]]], dict[str, Any]]


class Clock:
    """Times of a request, in nanoseconds."""

    def __init__(self) -> None:
        self._begin = time.perf_counter_ns()
        self._load = 0

    def loaded(self) -> None:
        """The model is there."""
        self._load = time.perf_counter_ns() - self._begin

    def told(self, timings: dict[str, Any] | None = None) -> dict[str, int]:
        """The times so far, with those that the worker tells."""
        told = {"total_duration": time.perf_counter_ns() - self._begin, "load_duration": self._load}
        if timings is not None:
            told["prompt_eval_duration"] = _nanoseconds(timings, "prompt_ms")
            told["eval_duration"] = _nanoseconds(timings, "predicted_ms")
        return told


def _nanoseconds(timings: dict[str, Any], name: str) -> int:
    return max(1, round(float(timings.get(name) or 0) * 1e6))  # clients divide by it


@dataclass(frozen=True, slots=True)
class Telling:
    """A request, and how its answer is told."""

    asked: Asked
    protocol: Protocol
    piece: Piece
    clock: Clock


async def tell(service: Service, worker: Worker, telling: Telling, body: dict[str, Any], out: Output) -> None:
    """Ask the worker and pass on what it answers."""
    asked = telling.asked
    n_top = (asked.top_logprobs or 0) if asked.logprobs else None
    merged = Merged(n_top=n_top)
    async with service.answering(worker, telling.protocol, body, asked.sampling, out) as answer:
        async for event in answer:
            merged.add(event.data)
            if asked.wants_stream and (piece := _next(event.data, telling.piece, n_top)):
                _line({**about_answer(asked, worker.model), **piece, "done": False}, out)
    service.metrics.timings(worker.model.name, merged.timings)
    (choice,) = merged.as_chat(answer.ending)["choices"]
    message = choice["message"]
    calls = _calls(message.get("tool_calls") or [])
    about = about_answer(asked, worker.model)
    end = {"done": True, **_end(choice, merged, answer.ending), **telling.clock.told(merged.timings)}
    if not asked.wants_stream:
        logprobs = {"logprobs": choice["logprobs"]["content"]} if choice["logprobs"] else {}
        piece = telling.piece(message.get(CONTENT) or "", message.get(REASONING) or "", calls)
        await out.json({**about, **piece, **logprobs, **end})
        return
    if calls:
        _line({**about, **telling.piece("", "", calls), "done": False}, out)
    _line({**about, **telling.piece("", "", []), **end}, out)
    await out.close()


def _line(data: dict[str, Any], out: Output) -> None:
    if not out.media_type:
        out.open(LINES)
    out.write(encoded(data) + b"\n")


def _next(data: dict[str, Any], piece: Piece, n_top: int | None) -> dict[str, Any]:
    """What an event adds to the answer's text; calls are told when they are whole."""
    choices = data.get("choices")
    if not choices:
        return {}
    choice = choices[0]
    delta = choice.get("delta") or {}
    text, thought = delta.get(CONTENT) or choice.get("text") or "", delta.get(REASONING) or ""
    if not text and not thought:
        return {}
    entries = (choice.get("logprobs") or {}).get("content")
    logprobs = {"logprobs": as_chat(entries, n_top)} if entries and n_top is not None else {}
    return {**piece(text, thought, []), **logprobs}


def _end(choice: dict[str, Any], merged: Merged, ending: Ending) -> dict[str, Any]:
    """Why it ended, and how much it was. Ollama's clients know no other reasons than these two."""
    reason = "length" if ending.reason or choice["finish_reason"] == "length" else "stop"
    ours = {"edgellm": ending.as_field()} if ending.reason else {}
    counts = {
        "prompt_eval_count": int(merged.usage.get("prompt_tokens", 0)),
        "eval_count": int(merged.usage.get("completion_tokens", 0)),
    }
    return {"done_reason": reason, **ours, **counts}


def _calls(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls with their arguments as objects; one that a limit cut off is none."""
    whole = []
    for index, call in enumerate(calls):
        try:
            arguments = json.loads(call["function"]["arguments"] or "{}")
        except ValueError:
            continue
        function = {"index": index, "name": call["function"]["name"], "arguments": arguments}
        whole.append({"id": call["id"], "function": function})
    return whole


def chat_piece(text: str, thought: str, calls: list[dict[str, Any]]) -> dict[str, Any]:
    """As /api/chat has it."""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        message["thinking"] = thought
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def generate_piece(text: str, thought: str, _: list[dict[str, Any]]) -> dict[str, Any]:
    """As /api/generate has it."""
    return {"response": text, **({"thinking": thought} if thought else {})}


def about_answer(asked: Asked, model: ServedModel) -> dict[str, Any]:
    """What every piece begins with."""
    now = datetime.now(timezone.utc).isoformat().replace("+00:00", "Z")
    return {"model": asked.model or model.name, "created_at": now}
