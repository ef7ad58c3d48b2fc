"""One answer: read the prompt into the context, then draw tokens until the model, a limit or the user ends it.

    for event in generate(model, context, prompt, Sampling(temperature=0), Limits(max_tokens=128)):
        match event:
            case Text(text): print(text, end="")

Works on any engine of `engine.base`. Tokens of the prompt that the context already holds are not computed again.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from edgellm.engine.base import Context, Model
from edgellm.engine.sampling import Sampling
from edgellm.errors import PromptTooLong
from edgellm.run.drafts import MOST_DRAFT
from edgellm.run.events import NO_TOKEN, Drafted, End, Event, FinishReason, Looped, Prefill, Text
from edgellm.run.loops import LoopGuard
from edgellm.run.speculation import DraftingContext, Speculation
from edgellm.run.stops import until_stop


def never() -> bool:
    """The default of `Limits.interrupted`: do not stop."""
    return False


@dataclass(frozen=True, slots=True)
class Limits:
    """When to end an answer.

    `max_tokens` is the most tokens to generate, -1 for as many as the context holds. `max_seconds` includes reading the
    prompt. `interrupted` is called between decode calls; true ends the answer as it stands. `loop_guard` ends an answer
    that repeats itself without end, or with `retry` lets it continue once from before the loop. `stop` are texts before
    which the answer ends.
    """

    max_tokens: int = -1
    interrupted: Callable[[], bool] = never
    max_seconds: float | None = None
    loop_guard: bool = True
    retry: bool = False
    stop: tuple[str, ...] = ()

    def halt(self, began: float) -> FinishReason | None:
        """The reason to stop now, or None."""
        if self.interrupted():
            return "interrupted"
        return "time" if self.max_seconds is not None and time.monotonic() - began >= self.max_seconds else None


def penalised(sampling: Sampling) -> Sampling:
    """The same sampling with penalties on repetition, for an answer that looped."""
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
    speculation: Speculation | None = None,
) -> Generator[Event, None, None]:
    """Yield the events of one answer.

    Args:
        prompt: token ids of everything up to the answer.
        limits: when to stop.
        begun: tokens that the answer already has; generation continues after them.
        speculation: draft tokens, which changes no answer; None computes them one by one.

    Raises:
        PromptTooLong: prompt and one token do not fit into the context; nothing has been computed.
    """
    events = _answer(model, context, prompt, sampling, limits, begun, speculation)
    yield from until_stop(events, limits.stop) if limits.stop else events


def _answer(
    model: Model,
    context: Context,
    prompt: Sequence[int],
    sampling: Sampling,
    limits: Limits,
    begun: Sequence[int],
    speculation: Speculation | None,
) -> Iterator[Event]:
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
        yield End(halted)
        return
    answer: list[int] = []
    guard = LoopGuard() if limits.loop_guard else None
    guarded_from = 0
    retry = limits.retry
    sampler = context.open_sampler(sampling, before)
    passes = DraftingContext(context, before, speculation)
    decoder = _decoder(model, begun)
    reason: FinishReason = "length"
    counts = passes.counts
    try:
        while limits.max_tokens < 0 or len(answer) < limits.max_tokens:
            token = sampler.sample(passes.row)
            if model.is_end(token):
                reason = "stop"
                break
            answer.append(token)
            text = decoder.decode(model.piece(token))
            loop = guard.feed(token, text) if guard else None
            yield Text(text, token, guard.repetitions if guard else 1)
            if loop:
                # A grammar's state in the middle of an answer is unknown, so such an answer starts again.
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
                passes.restart([*before, *answer])
                sampler.close()
                sampler = context.open_sampler(penalised(sampling), [*before, *answer])
                continue
            if stopped := limits.halt(began):
                reason = stopped
                break
            if passes.n_tokens + 1 >= context.n_ctx:
                reason = "context"
                break
            passes.advance(token, limits.max_tokens - len(answer) - 1 if limits.max_tokens >= 0 else MOST_DRAFT)
            if passes.counts != counts:
                counts = passes.counts
                yield Drafted(*counts)
    finally:
        passes.cut()
        sampler.close()
    if reason != "repetition" and (rest := decoder.decode(b"", final=True)):
        yield Text(rest, NO_TOKEN)
    yield End(reason)


def _decoder(model: Model, tokens: Sequence[int]) -> codecs.IncrementalDecoder:
    """A decoder that has read these tokens; the last one may have ended within a character."""
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
    """Make the cache hold exactly `prompt`; the last token is always computed, because its logits are needed."""
    pairs = zip(context.tokens, prompt, strict=False)
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    reused = context.keep(min(common, len(prompt) - 1))
    yield Prefill(reused, len(prompt), reused)
    for start in range(reused, len(prompt), context.n_batch):
        if interrupted():
            return
        context.decode(prompt[start : start + context.n_batch])
        yield Prefill(len(context.tokens), len(prompt), reused)
