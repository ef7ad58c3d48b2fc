"""The answer cache in front of a worker: which requests may be answered from it, and stored answers as events.

    looked = await answers.look(worker.model, question)     # None: this request is not for the cache
    for event in replay(looked, worker.model.name): ...
    answers.keep(looked, whole, worker.model.name)

An answer is kept only if it is all text, the model or max_tokens ended it, and nothing random went into it. Whatever
the cache fails at, the model is asked.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from edgellm.cache.answer_cache import AnswerCache, Looked, key
from edgellm.errors import EdgellmError
from edgellm.files import identity
from edgellm.run.events import Begin, End, Event, Prefill, Text, Thought, TokenCounts
from edgellm.serve.answer.prepare import CHAT, Question
from edgellm.serve.answer.whole import Whole
from edgellm.serve.http.current import current
from edgellm.serve.http.problems import Problem
from edgellm.serve.workers.catalog import ServedModel
from edgellm.wire.encoding import encoded
from edgellm.wire.openai_answers import CHAT_COMPLETION

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

HEADER = "X-Edgellm-Cache"
# Fields that do not change an answer at temperature 0; the last message is the question.
_NEUTRAL = frozenset({"messages", "model", "stream", "stream_options", "user", "metadata", "cache_prompt", "seed",
                      "timings_per_token", "return_progress", "n", "logprobs"})  # fmt: skip
# Requests with these are never answered from the cache.
_NEVER = ("tools", "logprobs", "top_logprobs", "n_probs", "logit_bias", "continue_final_message")
# An embedding model that is slow to load must not hold an answer up.
EMBED_SECONDS = 5.0
_PIECE = re.compile(r"\s*\S+|\s+$")

log = logging.getLogger("edgellm.serve")


class CachedAnswers:
    """The cache of a server; `embed` makes vectors of questions, and `sampled` keeps answers above temperature 0."""

    def __init__(
        self,
        cache: AnswerCache,
        *,
        embed: Callable[[str], Awaitable[npt.NDArray[np.float32] | None]],
        sampled: bool = False,
    ) -> None:
        self._cache, self._embed, self._sampled = cache, embed, sampled

    async def look(self, model: ServedModel, question: Question) -> Looked | None:
        """Look a request up; None if it is not for the cache."""
        text = self._question(model, question)
        if text is None:
            return None
        scope = _scope(model, question)
        looked = self._cache.exact(scope, text)
        if looked.entry is not None or not self._cache.compares(text):
            return looked
        vector = await self._vector(text) if self._cache.needs_vector(text) else None
        return self._cache.near(scope, text, vector)

    async def keeping(self, looked: Looked, events: AsyncIterator[Event], model: str) -> AsyncIterator[Event]:
        """Pass the events of an answer on, and keep it when it is whole."""
        whole = Whole()
        async for event in events:
            whole.add(event)
            yield event
        self.keep(looked, whole, model)

    def keep(self, looked: Looked, whole: Whole, model: str) -> None:
        """Keep an answer that the model or max_tokens ended, and that is nothing but text."""
        end, choice = whole.choice.end, whole.choice
        if end is None or end.reason not in ("stop", "length") or end.cut or end.warnings or choice.calls:
            return
        tokens = whole.tokens
        answer = {
            "text": choice.text, "thoughts": choice.thoughts, "prompt": tokens.prompt, "completion": tokens.completion,
            "reason": end.reason, "stop_text": end.stop_text,
        }  # fmt: skip
        self._cache.keep(looked, answer, text=choice.text, model=model)

    def close(self) -> None:
        """Close the file."""
        self._cache.store.close()

    def _question(self, model: ServedModel, question: Question) -> str | None:
        """The last message of a request that may be answered from the cache."""
        body = question.body
        if (
            current().no_cache
            or question.path != CHAT
            or question.documents
            or question.n != 1
            or any(body.get(name) for name in _NEVER)
        ):
            return None
        temperature = {**model.sampling, **body}.get("temperature")
        if temperature != 0 and not self._sampled:
            return None
        messages = body["messages"]
        if any(message["role"] == "tool" or message.get("tool_calls") for message in messages):
            return None
        last = messages[-1]
        return last["content"] if last["role"] == "user" and isinstance(last["content"], str) else None

    async def _vector(self, text: str) -> npt.NDArray[np.float32] | None:
        """The vector of a question, None if there is none in time."""
        handled = current()
        asked = handled.model
        try:
            return await asyncio.wait_for(self._embed(text), EMBED_SECONDS)
        except (EdgellmError, Problem, asyncio.TimeoutError) as error:
            log.warning("the answer cache has no vector of a question: %s", error or "it took too long")
            return None
        finally:
            handled.model = asked  # the request is for the model that answers


def _scope(model: ServedModel, question: Question) -> str:
    """What an answer depends on besides the question."""
    body = {**model.sampling, **question.body}
    before = model.with_system(body["messages"])[:-1]
    asked = {name: value for name, value in body.items() if name not in _NEUTRAL and value is not None}
    return key(what="serve", model=identity(model.path), before=before, asked=asked)


async def replay(looked: Looked, model: str) -> AsyncIterator[Event]:
    """A stored answer as events, as if it were computed; its whole prompt counts as cached."""
    answer: Mapping[str, Any] = looked.answer or {}
    n_prompt, n_completion = int(answer["prompt"]), int(answer["completion"])
    about = {
        "id": f"chatcmpl-{secrets.token_urlsafe(18)}", "created": int(time.time()), "model": model,
        "system_fingerprint": "answer-cache",
    }  # fmt: skip

    def line(delta: dict[str, Any]) -> bytes:
        choice = {"finish_reason": None, "index": 0, "delta": delta}
        return b"data: " + encoded({"choices": [choice], **about, "object": f"{CHAT_COMPLETION}.chunk"})

    yield Prefill(n_prompt, n_prompt, n_prompt)
    yield Begin(about, line({"role": "assistant", "content": None}))
    for piece in _PIECE.findall(str(answer["thoughts"])):
        yield Thought(piece, raw=line({"reasoning_content": piece}))
    for piece in _PIECE.findall(str(answer["text"])):
        yield Text(piece, raw=line({"content": piece}))
    origin = looked.origin.as_field() if looked.origin else {}
    origin.pop("question", None)  # another client may have asked it
    counts = TokenCounts(n_prompt, n_completion, n_prompt)
    yield End(str(answer["reason"]), tokens=counts, stop_text=str(answer["stop_text"]), cache=origin)
