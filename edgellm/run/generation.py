"""One answer: read the prompt into the context, then draw tokens until the model, the limit or the user ends it.

    for event in generate(model, context, prompt, Sampling(temperature=0), Limits(max_tokens=128)):
        match event:
            case Text(text): print(text, end="")

Works on any engine of `engine.base`. What the context already holds of the prompt is not computed again.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from edgellm.engine.base import Context, Model, Sampling
from edgellm.errors import PromptTooLong

FinishReason = Literal["stop", "length", "context", "interrupted"]


@dataclass(frozen=True, slots=True)
class Prefill:
    """The prompt is being read: `done` of `total` tokens are in the cache, `reused` of them were there before."""

    done: int
    total: int
    reused: int


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer; one for each token, empty while a character is incomplete."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The end: the model stopped, the token limit or the context's end was reached, or the user interrupted."""

    reason: FinishReason


Event = Prefill | Text | Finished


def never() -> bool:
    """Nobody wants to stop."""
    return False


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends at the latest.

    `max_tokens`: after so many tokens, -1 for as many as the context holds; `interrupted` is asked between decode
    calls, and true ends the answer with what there is.
    """

    max_tokens: int = -1
    interrupted: Callable[[], bool] = never


def generate(
    model: Model, context: Context, prompt: Sequence[int], sampling: Sampling, limits: Limits
) -> Iterator[Event]:
    """Yield the events of one answer.

    Args:
        prompt: token ids of everything up to the answer.
        limits: when to stop at the latest.

    Raises:
        PromptTooLong: prompt and one token do not fit into the context; nothing has been computed.
    """
    check_length(len(prompt), context.n_ctx)
    yield from _prefill(context, prompt, limits.interrupted)
    if len(context.tokens) < len(prompt):
        yield Finished("interrupted")
        return
    sampler = context.open_sampler(sampling, prompt)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    generated = 0
    reason: FinishReason = "length"
    try:
        while limits.max_tokens < 0 or generated < limits.max_tokens:
            token = sampler.sample()
            if model.is_end(token):
                reason = "stop"
                break
            generated += 1
            yield Text(decoder.decode(model.piece(token)))
            if limits.interrupted():
                reason = "interrupted"
                break
            if len(context.tokens) + 1 >= context.n_ctx:
                reason = "context"
                break
            context.decode([token])
    finally:
        sampler.close()
    if rest := decoder.decode(b"", final=True):
        yield Text(rest)
    yield Finished(reason)


def check_length(n_prompt: int, n_ctx: int) -> None:
    """Raise `PromptTooLong` unless the prompt leaves room for one token."""
    if n_prompt == 0:
        raise PromptTooLong("the prompt is empty", hint="give a prompt as an argument or on standard input")
    if n_prompt >= n_ctx:
        raise PromptTooLong(
            f"the prompt has {n_prompt:,} tokens, the context holds {n_ctx:,}, the answer included",
            why="edgellm never cuts a prompt silently",
            hint="a shorter prompt, or the same with a larger --ctx-size",
            prompt_tokens=n_prompt,
            n_ctx=n_ctx,
        )


def _prefill(context: Context, prompt: Sequence[int], interrupted: Callable[[], bool]) -> Iterator[Prefill]:
    """Bring the cache to exactly `prompt`; the last token is always computed, its logits are needed."""
    pairs = zip(context.tokens, prompt, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    reused = context.keep(min(common, len(prompt) - 1))
    yield Prefill(reused, len(prompt), reused)
    for start in range(reused, len(prompt), context.n_batch):
        if interrupted():
            return
        context.decode(prompt[start : start + context.n_batch])
        yield Prefill(len(context.tokens), len(prompt), reused)
