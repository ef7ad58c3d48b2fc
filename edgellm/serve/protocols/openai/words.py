"""How OpenAI's chat and completions APIs write an answer.

words = CompletionWords(is_chat=True)
words.write(event)  ->  b"data: {...}\\n\\n"

llama-server speaks this protocol, so its lines are passed on as they are. Only the last chunk of an answer is written
anew: usage and timings belong on the chunk with the finish reason, where AnythingLLM stops reading.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from edgellm.run.events import Begin, Call, End, Event, Returned, Text, Thought
from edgellm.serve.answer.ran import cited, described
from edgellm.serve.answer.whole import AnswerChoice, Whole
from edgellm.serve.answer.words import cut_field
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import EVENTS
from edgellm.wire import logprobs
from edgellm.wire.encoding import encoded
from edgellm.wire.openai_answers import CHAT_COMPLETION, TEXT_COMPLETION, chat_choice, text_choice, tool_call, usage

DONE = b"data: [DONE]\n\n"


class CompletionWords:
    """`n` answers to each prompt; `n_top` alternatives of each token, None for no log-probabilities.

    `wants_usage`: a chunk of its own for it at the end; `wants_usage_on_chunks`: on all of them. `has_tools`: the model
    may call tools of the server; clients see each call in the field `edgellm.tools` of a chunk, when it has returned.
    """

    media_type = EVENTS
    counts_first = False

    def __init__(
        self, *, is_chat: bool, n: int = 1, n_top: int | None = None, wants_usage: bool = False,
        wants_usage_on_chunks: bool = False, wants_timings: bool = False, has_tools: bool = False,
    ) -> None:  # fmt: skip
        self._is_chat, self._n_top, self._wants_usage = is_chat, n_top, wants_usage
        self._counts_chunks, self._wants_timings = wants_usage_on_chunks, wants_timings
        self._has_tools = has_tools
        self._counts = Whole(n)
        self._about: Mapping[str, Any] = {}
        self._n_chars: Counter[int] = Counter()

    def write(self, event: Event) -> bytes:
        """A chunk."""
        if self._has_tools and not isinstance(event, End):
            self._counts.add(event)  # what its pages bear is known at the end
        match event:
            case Text() | Thought() if event.logprobs and self._n_top is not None:
                return _chunk(self._counted(self._with_logprobs(event, self._n_top)))
            case Text() | Thought() | Call() if event.raw and self._counts_chunks:
                return _chunk(self._counted(_data(event.raw)))
            case Begin():
                kind = f"{CHAT_COMPLETION}.chunk" if self._is_chat else TEXT_COMPLETION
                self._about = {**event.about, "object": kind}
            case Returned():
                choice = {"index": 0, "delta": {}, "finish_reason": None}
                return _chunk({"choices": [choice], **self._about, **cut_field(None, ran=[described(event)])})
            case End():
                return self._end(event)
        raw = getattr(event, "raw", b"")
        return raw + b"\n\n" if raw else b""

    def finish(self) -> bytes:
        """The usage, if the client wants it separately, and the end."""
        if not self._wants_usage:
            return DONE
        return _chunk({**self._about, "choices": [], "usage": _usage(self._counts)}) + DONE

    def whole(self, answer: Whole) -> dict[str, Any]:
        """A `chat.completion` or a `text_completion`."""
        write = self._chat_choice if self._is_chat else self._text_choice
        return {
            **answer.about,
            "object": CHAT_COMPLETION if self._is_chat else TEXT_COMPLETION,
            "choices": [write(index, choice) for index, choice in sorted(answer.choices.items())],
            "usage": _usage(answer),
            "timings": dict(answer.timings),
            **cut_field(
                answer.cut,
                answer.warnings,
                documents=answer.documents,
                cache=answer.cache,
                ran=[described(block.returned) for block in answer.choice.runs if block.returned],
            ),
        }

    def _end(self, end: End) -> bytes:
        self._counts.add(end)
        annotations = _annotations(self._counts.choice) if self._has_tools else {}
        empty: dict[str, Any] = {"delta": annotations} if self._is_chat else {"text": "", "logprobs": None}
        choice = {"finish_reason": end.reason, "index": end.index, **empty}
        timings = {"timings": dict(end.timings)} if end.timings else {}
        counts = {"usage": _usage(self._counts), **timings}
        about = cut_field(end.cut, end.warnings, documents=end.documents, cache=end.cache)
        return _chunk({"choices": [choice], **self._about, **counts, **about})

    def _counted(self, data: dict[str, Any]) -> dict[str, Any]:
        """A chunk with the usage so far, from the timings that llama-server gives with each token."""
        if self._counts_chunks and (timings := data.get("timings")):
            n_cached = timings.get("cache_n", 0)
            data["usage"] = usage(timings["prompt_n"] + n_cached, timings["predicted_n"], n_cached)
            if not self._wants_timings:
                del data["timings"]
        return data

    def _with_logprobs(self, event: Text | Thought, n_top: int) -> dict[str, Any]:
        """llama-server's chunk with its log-probabilities in OpenAI's form."""
        data = _data(event.raw)
        (choice,) = data["choices"]
        if self._is_chat:
            choice["logprobs"] = {"content": logprobs.as_chat(event.logprobs, n_top), "refusal": None}
        else:
            choice["logprobs"] = logprobs.as_completion(event.logprobs, n_top, self._n_chars[event.index])
            self._n_chars[event.index] += len(event.text)
        return data

    def _chat_choice(self, index: int, choice: AnswerChoice) -> dict[str, Any]:
        entries = None if self._n_top is None else logprobs.as_chat(choice.logprobs, self._n_top)
        calls = [tool_call(call.call_id, call.name, call.text) for call in choice.calls]
        whole = chat_choice(
            index, choice.text, choice.finish_reason, thoughts=choice.thoughts, calls=calls, logprobs=entries
        )
        whole["message"] |= _annotations(choice)
        return whole

    def _text_choice(self, index: int, choice: AnswerChoice) -> dict[str, Any]:
        entries = None if self._n_top is None else logprobs.as_completion(choice.logprobs, self._n_top)
        return text_choice(index, choice.text, choice.finish_reason, entries)


def error(problem: Problem) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code", ...}}`."""
    about = {"message": problem.message, "type": problem.kind, "param": problem.field, "code": problem.code}
    return {"error": {**about, **problem.facts}}


def error_event(problem: Problem) -> bytes:
    """The last chunk of a stream that failed."""
    return _chunk(error(problem))


def _annotations(choice: AnswerChoice) -> dict[str, Any]:
    """The field `annotations` of a message that rests on pages."""
    pages = [
        {"type": "url_citation", "url_citation": {"url": source.place, "title": source.title, **_span(begin, end)}}
        for source, begin, end in cited(choice.text, choice.runs)
    ]
    return {"annotations": pages} if pages else {}


def _span(begin: int, end: int) -> dict[str, int]:
    return {"start_index": begin, "end_index": end}


def _usage(answer: Whole) -> dict[str, Any]:
    return usage(answer.tokens.prompt, answer.tokens.completion, answer.tokens.cached)


def _data(raw: bytes) -> dict[str, Any]:
    """The JSON of llama-server's line."""
    data: dict[str, Any] = json.loads(raw.removeprefix(b"data:"))
    return data


def _chunk(data: Mapping[str, Any]) -> bytes:
    return b"data: " + encoded(data) + b"\n\n"
