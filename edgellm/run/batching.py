"""Continuous batching: several answers at once, each in its slot, and every decode call works for all of them.

    batcher = Batcher(model, model.open_sequences(n_seq=8, ...))
    batcher.admit(Job(key=0, prompt=tokens, sampling=Sampling()))
    for result in batcher.step(): result.text

A call computes one token of each answer that is being written and, in what is left of it, the prompts of those that
wait. A slot that becomes free takes the next job at once. What a prompt has in common with what some slot holds, or is
about to compute, is copied instead of computed.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgellm.engine.base import Model, Sampler, Sampling, Sequences
from edgellm.errors import EdgellmError
from edgellm.run.generation import penalised
from edgellm.run.loops import LoopGuard

# Copying moves a whole cache: for less it is quicker to compute.
LEAST_SHARED = 32


@dataclass(frozen=True, slots=True)
class Job:
    """An answer that is wanted. `key` is the caller's; `retry`: go on once from before a loop, with penalties."""

    key: int
    prompt: list[int]
    sampling: Sampling
    max_tokens: int = -1
    stop: tuple[str, ...] = ()
    loop_guard: bool = True
    retry: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """An answer, or with `error` what became of it. `reused_tokens` of the prompt were not computed for it."""

    key: int
    text: str
    finish_reason: str
    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int
    prefill_seconds: float
    decode_seconds: float
    error: EdgellmError | None = None


class _Slot:
    """A job in progress in a sequence."""

    def __init__(self, seq: int, job: Job, sampler: Sampler, now: float) -> None:
        self.seq, self.job, self.sampler = seq, job, sampler
        self.pending: list[int] = []
        self.source: _Slot | None = None
        self.reused = 0
        self.answer: list[int] = []
        self.text = ""
        self.retry = job.retry
        self.finish_reason = ""
        self.began, self.first, self.last = now, now, now
        self.restart()

    def restart(self) -> None:
        """Begin to read the answer's tokens as text; those that are there already are read again."""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.guard = LoopGuard() if self.job.loop_guard else None
        self.guarded_from = len(self.answer)


class Batcher:
    """The slots of a model."""

    def __init__(self, model: Model, sequences: Sequences, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._model, self._sequences, self._clock = model, sequences, clock
        self._slots: dict[int, _Slot] = {}

    @property
    def n_slots(self) -> int:
        """How many jobs there can be at once."""
        return self._sequences.n_seq

    @property
    def busy(self) -> int:
        """How many there are."""
        return len(self._slots)

    def admit(self, job: Job) -> None:
        """Begin a job in a free slot, the one that already holds most of its prompt.

        Raises:
            UsageError: its grammar is wrong.
        """
        held = self._held(job.prompt)
        seq = max((seq for seq in range(self.n_slots) if seq not in self._slots), key=lambda seq: held[seq])
        slot = _Slot(seq, job, self._sequences.open_sampler(seq, job.sampling, job.prompt), self._clock())
        coming = {other.seq: _common(other.job.prompt, job.prompt) for other in self._slots.values()}
        promised = max(coming, key=lambda other: coming[other], default=seq)
        if coming.get(promised, 0) >= max(held) + LEAST_SHARED:
            slot.source = self._slots[promised]
        else:
            self._begin(slot)
        self._slots[seq] = slot

    def _held(self, prompt: Sequence[int]) -> list[int]:
        """How much of a prompt each sequence holds already."""
        return [_common(tokens, prompt) for tokens in self._sequences.tokens]

    def _begin(self, slot: _Slot) -> None:
        """Bring the best beginning of the prompt that there is into the slot's sequence."""
        held = self._held(slot.job.prompt)
        # The last token is always computed: its logits are needed.
        most = len(slot.job.prompt) - 1
        best = max(range(self.n_slots), key=lambda seq: held[seq])
        if held[best] >= held[slot.seq] + LEAST_SHARED:
            slot.reused = self._sequences.copy(best, slot.seq, min(held[best], most))
        else:
            slot.reused = self._sequences.keep(slot.seq, min(held[slot.seq], most))
        slot.source = None
        slot.pending = slot.job.prompt[slot.reused :]

    def step(self) -> list[Result]:
        """One decode call; returns what is finished by it."""
        self._end_waiting()
        tokens = self._next_tokens()
        self._sequences.decode(tokens)
        finished: list[Result] = []
        for seq, added in tokens.items():
            slot = self._slots[seq]
            del slot.pending[: len(added)]
            if not slot.pending:
                finished += self._draw(slot)
        return finished

    def _end_waiting(self) -> None:
        """Let go on who waited for another slot's prompt, once what is common is there or will not come any more."""
        for slot in self._slots.values():
            source = slot.source
            if source is None:
                continue
            coming = self._slots.get(source.seq) is source
            common = _common(source.job.prompt, slot.job.prompt)
            if not coming or (source.source is None and len(self._sequences.tokens[source.seq]) >= common):
                self._begin(slot)

    def _next_tokens(self) -> dict[int, list[int]]:
        """What the next call computes: answers first, then prompts, the oldest first."""
        ready = [slot for slot in self._slots.values() if slot.source is None]
        tokens = {slot.seq: slot.pending for slot in ready if len(slot.pending) == 1}
        left = self._sequences.n_batch - len(tokens)
        for slot in ready:
            if len(slot.pending) > 1 and left > 0:
                tokens[slot.seq] = slot.pending[:left]
                left -= len(tokens[slot.seq])
        return tokens

    def _draw(self, slot: _Slot) -> list[Result]:
        """The next token of an answer."""
        slot.last = self._clock()
        if not slot.answer:
            slot.first = slot.last
        if slot.job.max_tokens == len(slot.answer):
            return [self._finish(slot, "length")]
        try:
            token = slot.sampler.sample()
        except EdgellmError as error:
            return [self._finish(slot, "error", error)]
        if self._model.is_end(token):
            return [self._finish(slot, "stop")]
        slot.answer.append(token)
        piece = slot.decoder.decode(self._model.piece(token))
        slot.text += piece
        if (cut := first_stop(slot.text, slot.job.stop, len(piece))) is not None:
            slot.text = slot.text[:cut]
            return [self._finish(slot, "stop", cut=True)]
        if slot.guard and (loop := slot.guard.feed(token, piece)):
            return self._loop(slot, loop.kept_tokens)
        if (
            len(slot.answer) == slot.job.max_tokens
            or len(self._sequences.tokens[slot.seq]) + 1 >= self._sequences.n_ctx
        ):
            return [self._finish(slot, "length")]
        slot.pending = [token]
        return []

    def _loop(self, slot: _Slot, kept: int) -> list[Result]:
        """End an answer that repeats itself, or go on once from before that."""
        retry = slot.retry
        # The place in a grammar is not known half-way: such an answer begins anew.
        kept = 0 if retry and slot.job.sampling.grammar else slot.guarded_from + kept
        del slot.answer[kept:]
        slot.restart()
        slot.text = "".join(slot.decoder.decode(self._model.piece(token)) for token in slot.answer)
        if not retry:
            return [self._finish(slot, "repetition", cut=True)]
        slot.retry = False
        before = [*slot.job.prompt, *slot.answer]
        slot.sampler.close()
        slot.sampler = self._sequences.open_sampler(slot.seq, penalised(slot.job.sampling), before)
        slot.pending = before[self._sequences.keep(slot.seq, len(before) - 1) :]
        return []

    def _finish(self, slot: _Slot, reason: str, error: EdgellmError | None = None, *, cut: bool = False) -> Result:
        slot.sampler.close()
        del self._slots[slot.seq]
        if not cut:
            slot.text += slot.decoder.decode(b"", final=True)
        return Result(
            key=slot.job.key,
            text=slot.text,
            finish_reason=reason,
            prompt_tokens=len(slot.job.prompt),
            reused_tokens=slot.reused,
            completion_tokens=len(slot.answer),
            prefill_seconds=slot.first - slot.began,
            decode_seconds=slot.last - slot.first,
            error=error,
        )


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences have in common at their beginning."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def first_stop(text: str, stops: tuple[str, ...], n_new: int) -> int | None:
    """Where the first of the stop texts begins that ends within the last `n_new` characters."""
    places = [text.find(stop, max(0, len(text) - n_new - len(stop) + 1)) for stop in stops]
    return min((place for place in places if place >= 0), default=None)
