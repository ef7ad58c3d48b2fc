"""Rows of a batch that the answer cache answers.

    rows = CachedRows(cache, model=identity(path), options=options)
    looked = rows.look(request)          # None where a row must be computed and not kept
    rows.keep(looked, result)

Only chats are kept, and by default only those drawn at temperature 0: another draw would be another answer.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from edgellm.batch.requests import TextRow
from edgellm.batch.scheduler import BatchOptions
from edgellm.cache.answer_cache import AnswerCache, Looked, key
from edgellm.run.batching import Result

# An answer that something else ended is not what the model says.
_WHOLE = ("stop", "length")


class CachedRows:
    """The cache as one batch uses it; `sampled`: also answers that are drawn at a temperature above 0."""

    def __init__(self, cache: AnswerCache, *, model: Any, options: BatchOptions, sampled: bool = False) -> None:
        self._cache, self._model, self._options, self._sampled = cache, model, options, sampled

    def look(self, request: TextRow) -> Looked | None:
        """Look the last message of a chat up; None if the row is none that may be kept."""
        options = self._options
        sampling = replace(options.sampling, **request.sampling)
        if not request.is_chat or request.messages[-1]["role"] != "user":
            return None
        if sampling.temperature > 0 and not self._sampled:
            return None
        if options.docs if request.docs is None else request.docs:
            return None  # documents may change, and the check belongs to their state
        if options.tools if request.tools is None else request.tools:
            return None  # what tools find changes
        scope = key(
            what="batch", model=self._model, before=request.messages[:-1], system=options.system,
            sampling={**asdict(sampling), "seed": None}, stop=request.stop, schema=request.schema,
            form=repr(options.structure), loop_guard=options.loop_guard, retries=options.retries,
            max_tokens=options.max_tokens if request.max_tokens is None else request.max_tokens,
        )  # fmt: skip
        return self._cache.look(scope, str(request.messages[-1]["content"]))

    def keep(self, looked: Looked, result: Result) -> None:
        """Keep a whole answer."""
        if result.error is None and result.finish_reason in _WHOLE:
            counts = {"prompt_tokens": result.prompt_tokens, "completion_tokens": result.completion_tokens}
            answer = {"text": result.text, "finish_reason": result.finish_reason, **counts}
            self._cache.keep(looked, answer, text=result.text, model=self._options.name)


def as_result(place: int, answer: dict[str, Any]) -> Result:
    """A stored answer as the result of a row; nothing was computed for it."""
    n_prompt, n_completion = int(answer["prompt_tokens"]), int(answer["completion_tokens"])
    return Result(place, answer["text"], answer["finish_reason"], n_prompt, n_prompt, n_completion, 0.0, 0.0)
