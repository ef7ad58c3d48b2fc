"""One answer: read the prompt into the context, then draw tokens until the model, a limit or the user ends it.

    for event in generate(model, context, prompt, Sampling(temperature=0), Limits(max_tokens=128)):
        match event:
            case Text(text): print(text, end="")

Works on any engine of `engine.base`. What the context already holds of the prompt is not computed again.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal

from edgellm.engine.base import Context, Model, Sampling
from edgellm.errors import PromptTooLong
from edgellm.run.loops import Loop, LoopGuard

FinishReason = Literal["stop", "length", "time", "context", "repetition", "interrupted"]
NO_TOKEN = -1


@dataclass(frozen=True, slots=True)
class Prefill:
    """The prompt is being read: `done` of `total` tokens are in the cache, `reused` of them were there before."""

    done: int
    total: int
    reused: int


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer; one for each token, empty while a character is incomplete.

    What is left of an incomplete character at the end comes with `NO_TOKEN`. `repeated` is how often the answer's
    present ending has come by now, 1 for ordinary text.
    """

    text: str
    token: int = 0
    repeated: int = 1


@dataclass(frozen=True, slots=True)
class Looped:
    """The answer repeats itself without end: only its first `kept_tokens` tokens count.

    `retrying`: it goes on from there, with penalties on repetition; else it has ended.
    """

    loop: Loop
    kept_tokens: int
    retrying: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """The end: the model stopped or repeated itself, a limit or the context's end was reached, the user interrupted."""

    reason: FinishReason


Event = Prefill | Text | Looped | Finished


def never() -> bool:
    """Nobody wants to stop."""
    return False


@dataclass(frozen=True, slots=True)
class Limits:
    """When an answer ends at the latest.

    `max_tokens`: after so many tokens, -1 for as many as the context holds; `max_seconds`: after this time, the
    reading of the prompt included; `interrupted` is asked between decode calls, and true ends the answer with what
    there is. `loop_guard`: end an answer that repeats itself without end, or with `retry` go on once from before that.
    """

    max_tokens: int = -1
    interrupted: Callable[[], bool] = never
    max_seconds: float | None = None
    loop_guard: bool = True
    retry: bool = False

    def halt(self, began: float) -> FinishReason | None:
        """Why to stop now, if there is a reason."""
        if self.interrupted():
            return "interrupted"
        return "time" if self.max_seconds is not None and time.monotonic() - began >= self.max_seconds else None


def penalised(sampling: Sampling) -> Sampling:
    """The same sampling, but what was said before becomes less likely: for an answer that went round in circles."""
    return replace(
        sampling,
        repeat_penalty=max(sampling.repeat_penalty, 1.1),
        repeat_last_n=max(sampling.repeat_last_n, 256),
        dry_multiplier=max(sampling.dry_multiplier, 0.8),
    )


def generate(
    model: Model,
    context: Context,
    prompt: Sequence[int],
    sampling: Sampling,
    limits: Limits,
    begun: Sequence[int] = (),
) -> Iterator[Event]:
    """Yield the events of one answer.

    Args:
        prompt: token ids of everything up to the answer.
        limits: when to stop at the latest.
        begun: tokens of the answer that are there already; it goes on after them.

    Raises:
        PromptTooLong: prompt and one token do not fit into the context; nothing has been computed.
    """
    began = time.monotonic()
    before = [*prompt, *begun]
    check_length(len(before), context.n_ctx)
    halted: FinishReason | None = None

    def halt() -> bool:
        nonlocal halted
        halted = limits.halt(began)
        return halted is not None

    yield from _prefill(context, before, halt)
    if halted:
        yield Finished(halted)
        return
    answer: list[int] = []
    guard = LoopGuard() if limits.loop_guard else None
    guarded_from = 0
    retry = limits.retry
    sampler = context.open_sampler(sampling, before)
    decoder = _decoder(model, begun)
    reason: FinishReason = "length"
    try:
        while limits.max_tokens < 0 or len(answer) < limits.max_tokens:
            token = sampler.sample()
            if model.is_end(token):
                reason = "stop"
                break
            answer.append(token)
            text = decoder.decode(model.piece(token))
            loop = guard.feed(token, text) if guard else None
            yield Text(text, token, guard.repetitions if guard else 1)
            if loop:
                # The place in a grammar is not known half-way: such an answer begins anew.
                kept = 0 if retry and sampling.grammar else guarded_from + loop.kept_tokens
                yield Looped(loop, kept, retry)
                del answer[kept:]
                if not retry:
                    reason = "repetition"
                    break
                retry, guard, guarded_from = False, LoopGuard(), kept
                decoder = _decoder(model, [*begun, *answer])
                for _ in _prefill(context, [*before, *answer], never):
                    pass
                sampler.close()
                sampler = context.open_sampler(penalised(sampling), [*before, *answer])
                continue
            if stopped := limits.halt(began):
                reason = stopped
                break
            if len(context.tokens) + 1 >= context.n_ctx:
                reason = "context"
                break
            context.decode([token])
    finally:
        sampler.close()
    if reason != "repetition" and (rest := decoder.decode(b"", final=True)):
        yield Text(rest, NO_TOKEN)
    yield Finished(reason)


def _decoder(model: Model, tokens: Sequence[int]) -> codecs.IncrementalDecoder:
    """A decoder that has read these tokens: the last may have ended within a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        decoder.decode(model.piece(token))
    return decoder


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
