"""Answers in the words of every protocol: which recording, asked how, and what comes out. For golden tests.

    python -m tests.serve.word_cases        (writes tests/serve/golden/ anew; read `git diff` before you commit it)

A case NAME gives `golden/NAME.stream`, the bytes of the stream, and `golden/NAME.json`, the document of an answer that
is not streamed. Ids, dates and durations of our own making are replaced, llama-server's are in the recording.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgellm.run.events import Cut, End, Event
from edgellm.serve.answer.words import Words
from edgellm.serve.protocols.anthropic.requests import MessageRequest
from edgellm.serve.protocols.anthropic.words import MessageWords
from edgellm.serve.protocols.ollama.requests import GenerateRequest, OllamaChatRequest
from edgellm.serve.protocols.ollama.words import Clock, OllamaWords, chat_piece, generate_piece
from edgellm.serve.protocols.openai.routes import _words
from edgellm.serve.protocols.responses.requests import ResponseRequest
from edgellm.serve.protocols.responses.words import ResponseWords
from edgellm.wire.body import parse
from edgellm.wire.encoding import encoded
from edgellm.wire.openai_requests import ChatRequest, CompletionRequest
from tests.serve.recordings import events, folded

GOLDEN = Path(__file__).parent / "golden"
MODEL = "smollm2"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
PROMPT: dict[str, Any] = {"prompt": "Once"}
USAGE = {"stream_options": {"include_usage": True}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
LOOP = Cut("repetition", "so glad", 9, 3)
TIME = Cut("time")


@dataclass(frozen=True)
class Case:
    """`asked` is the client's request; `cut` says that edgellm ended the answer."""

    protocol: str
    recording: str
    asked: dict[str, Any] = field(default_factory=dict)
    cut: Cut | None = None
    label: str = ""

    @property
    def name(self) -> str:
        """The name of its golden files."""
        return "-".join(part for part in (self.protocol, self.recording, self.label) if part)

    @property
    def events(self) -> list[Event]:
        """The events of the recording, with the cut."""
        found = events(self.recording)
        if self.cut is None:
            return found
        return [replace(event, cut=self.cut) if isinstance(event, End) else event for event in found]

    def words(self) -> Words:
        """New words for it."""
        return _MAKERS[self.protocol](self.asked)

    def streamed(self) -> bytes:
        """The bytes of the stream."""
        words = self.words()
        written = b"".join(words.write(event) for event in self.events)
        return normal(written + words.finish())

    def whole(self) -> bytes:
        """The document."""
        words = self.words()
        return normal(encoded(words.whole(folded(self.events, self.asked.get("n", 1)))) + b"\n")


_MAKERS: dict[str, Callable[[dict[str, Any]], Words]] = {
    "chat": lambda asked: _words(parse(ChatRequest, {**HELLO, **asked})),
    "completion": lambda asked: _words(parse(CompletionRequest, {**PROMPT, **asked})),
    "responses": lambda asked: ResponseWords(parse(ResponseRequest, {"input": "Hello", **asked}), MODEL),
    "anthropic": lambda asked: MessageWords(
        parse(MessageRequest, {"model": MODEL, "max_tokens": 64, **HELLO, **asked}), MODEL
    ),
    "ollama-chat": lambda asked: OllamaWords(parse(OllamaChatRequest, {**HELLO, **asked}), MODEL, chat_piece, Clock()),
    "ollama-generate": lambda asked: OllamaWords(
        parse(GenerateRequest, {"model": "smollm2:latest", **PROMPT, **asked}), MODEL, generate_piece, Clock()
    ),
}
TOOL = {"name": "weather", "description": "The weather", "parameters": SCHEMA}
CASES = [
    Case("chat", "chat"),
    Case("chat", "chat", USAGE, LOOP, "loop"),
    Case("chat", "chat", {}, TIME, "time"),
    Case("chat", "chat_progress", {"return_progress": True}),
    Case("chat", "chat_timings", {"timings_per_token": True}),
    Case("chat", "chat_logprobs", {"logprobs": True, "top_logprobs": 2}),
    Case("chat", "chat_logprobs", {"logprobs": True}, None, "no-top"),
    Case("chat", "chat_logprobs", {"logprobs": True, "top_logprobs": 2}, LOOP, "loop"),
    Case("chat", "chat_logprobs_characters", {"logprobs": True, "top_logprobs": 1}),
    Case("chat", "chat_n2", {"n": 2, **USAGE}),
    Case("chat", "chat_call"),
    Case("chat", "chat_calls", USAGE),
    Case("chat", "chat_call_cut"),
    Case("chat", "chat_thought"),
    Case("chat", "chat_characters"),
    Case("completion", "completion"),
    Case("completion", "completion", USAGE, LOOP, "loop"),
    Case("completion", "completion_progress", {"return_progress": True}),
    Case("completion", "completion_logprobs", {"logprobs": 2}),
    Case("completion", "completion_logprobs", {"logprobs": 0}, None, "no-top"),
    Case("completion", "completion_logprobs_stop", {"logprobs": 1}),
    Case("completion", "completion_n2", {"n": 2, **USAGE}),
    Case("completion", "completion_prompts", {"prompt": ["Once", "The sky is"], **USAGE}),
    Case("responses", "chat_progress", {"instructions": "Be kind.", "temperature": 0.5, "metadata": {"a": "b"}}),
    Case("responses", "chat_call", {"tools": [{"type": "function", **TOOL}], "parallel_tool_calls": False}),
    Case("responses", "chat_call_cut", {"tools": [{"type": "function", **TOOL}], "tool_choice": "required"}),
    Case("responses", "chat_thought", {"reasoning": {"effort": "low"}}),
    Case("responses", "chat_logprobs", {"include": ["message.output_text.logprobs"], "top_logprobs": 1}),
    Case("responses", "chat", {}, LOOP, "loop"),
    Case("anthropic", "chat_progress"),
    Case("anthropic", "chat_stop", {"stop_sequences": [" size"]}),
    Case("anthropic", "chat_stop", {"stop_sequences": [" sizes"]}, None, "other"),
    Case("anthropic", "chat_calls"),
    Case("anthropic", "chat_call_cut"),
    Case("anthropic", "chat_thought"),
    Case("anthropic", "chat", {}, LOOP, "loop"),
    Case("ollama-chat", "chat"),
    Case("ollama-chat", "chat", {}, LOOP, "loop"),
    Case("ollama-chat", "chat_calls"),
    Case("ollama-chat", "chat_call_cut"),
    Case("ollama-chat", "chat_thought", {"think": True}),
    Case("ollama-chat", "chat_logprobs", {"logprobs": True, "top_logprobs": 1}),
    Case("ollama-generate", "completion"),
    Case("ollama-generate", "completion", {}, TIME, "time"),
    Case("ollama-generate", "completion_logprobs", {"logprobs": True}),
    Case("ollama-generate", "chat_thought"),
]

# What differs from run to run, each with something that has the same form.
_VARIABLE = (
    (rb'"id":"msg_[0-9a-f]{24}"', b'"id":"msg_1"'),
    (rb"(resp|rs|msg|fc)_[0-9a-f]{32}", rb"\1_1x"),
    (rb'"(created_at|completed_at)":\d+', rb'"\1":1'),
    (rb'"created_at":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"', b'"created_at":"1970-01-01T00:00:00Z"'),
    (rb'"(total_duration|load_duration)":\d+', rb'"\1":1'),
)


def normal(data: bytes) -> bytes:
    """The same without what differs from run to run."""
    for pattern, replacement in _VARIABLE:
        data = re.sub(pattern, replacement, data)
    return data


def main() -> None:
    """Write the golden files anew."""
    GOLDEN.mkdir(exist_ok=True)
    for path in GOLDEN.iterdir():
        path.unlink()
    for case in CASES:
        (GOLDEN / f"{case.name}.stream").write_bytes(case.streamed())
        (GOLDEN / f"{case.name}.json").write_bytes(case.whole())


if __name__ == "__main__":
    main()
