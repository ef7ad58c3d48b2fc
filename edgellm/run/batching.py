"""Continuous batching: several answers at once, each in its slot, and every decode call works for all of them.

    batcher = Batcher(model, model.open_sequences(n_seq=8, ...))
    batcher.admit(Job(key=0, prompt=tokens, sampling=Sampling()))
    for result in batcher.step(): result.text

A call computes one token of each answer under way and fills up with prompts that are waiting. A slot that becomes free
takes the next job at once. The beginning of a prompt that some slot holds, or is about to compute, is copied instead of
computed. With few slots busy and no prompt waiting, a call may also compute drafted tokens (`run.speculation`).
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgellm.engine.base import Model, Sampler, Sequences, common_length
from edgellm.engine.sampling import Sampling
from edgellm.errors import EdgellmError
from edgellm.run.draft_costs import DraftCosts
from edgellm.run.draft_lengths import MOST_SLOTS, draft_lengths
from edgellm.run.drafts import MOST_DRAFT, Drafter
from edgellm.run.generation import penalised
from edgellm.run.loops import LoopGuard
from edgellm.run.prompt_cache import SharedPrompt
from edgellm.run.speculation import DraftedRows, observing
from edgellm.run.stops import first_stop

# Copying moves a whole cache; computing fewer tokens than this is faster.
LEAST_SHARED = 32


@dataclass(frozen=True, slots=True)
class Job:
    """A request for one answer. `key` is the caller's; `retry`: after a loop, continue once, with penalties.

    `hint` are tokens that the answer may have, for its drafts.
    """

    key: int
    prompt: list[int]
    sampling: Sampling
    max_tokens: int = -1
    stop: tuple[str, ...] = ()
    loop_guard: bool = True
    retry: bool = False
    hint: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """An answer, or the `error` that ended it. `reused_tokens` of the prompt were copied instead of computed.

    `accepted_tokens` of the `drafted_tokens` are in the answer; they needed no pass of their own.
    """

    key: int
    text: str
    finish_reason: str
    prompt_tokens: int
    reused_tokens: int
    completion_tokens: int
    prefill_seconds: float
    decode_seconds: float
    error: EdgellmError | None = None
    drafted_tokens: int = 0
    accepted_tokens: int = 0


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
        self.rows: DraftedRows | None = None
        self.restart()

    def restart(self) -> None:
        """Decode the answer's tokens to text from the beginning."""
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.guard = LoopGuard() if self.job.loop_guard else None
        self.guarded_from = len(self.answer)
        if self.rows:
            self.draft()

    def draft(self) -> None:
        """Draft from the prompt and the answer so far."""
        counts = (self.rows.n_drafted, self.rows.n_accepted) if self.rows else (0, 0)
        self.rows = DraftedRows(Drafter([*self.job.hint, *self.job.prompt, *self.answer]), *counts)


class Batcher:
    """The slots of a model."""

    def __init__(
        self,
        model: Model,
        sequences: Sequences,
        *,
        costs: DraftCosts | None = None,
        shared: SharedPrompt | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`costs` are those of drafts; None drafts nothing. `shared` takes the beginnings of prompts from disk."""
        self._model, self._sequences, self._shared, self._clock = model, sequences, shared, clock
        self._costs = costs if sequences.can_truncate else None
        self._slots: dict[int, _Slot] = {}

    @property
    def n_slots(self) -> int:
        """The most jobs at once."""
        return self._sequences.n_seq

    @property
    def busy(self) -> int:
        """Jobs under way."""
        return len(self._slots)

    def admit(self, job: Job) -> None:
        """Begin a job in the free slot that already holds most of its prompt.

        Raises:
            UsageError: its grammar is wrong.
        """
        held = self._held(job.prompt)
        seq = max((seq for seq in range(self.n_slots) if seq not in self._slots), key=lambda seq: held[seq])
        slot = _Slot(seq, job, self._sequences.open_sampler(seq, job.sampling, job.prompt), self._clock())
        if self._costs:
            slot.draft()
        coming = {other.seq: common_length(other.job.prompt, job.prompt) for other in self._slots.values()}
        promised = max(coming, key=lambda other: coming[other], default=seq)
        if coming.get(promised, 0) >= max(held) + LEAST_SHARED:
            slot.source = self._slots[promised]
        else:
            self._begin(slot)
        self._slots[seq] = slot

    def _held(self, prompt: Sequence[int]) -> list[int]:
        """How many tokens of a prompt each sequence already holds."""
        return [common_length(tokens, prompt) for tokens in self._sequences.tokens]

    def _begin(self, slot: _Slot) -> None:
        """Take the longest beginning of the prompt from disk, or from whatever sequence holds it."""
        if self._shared:
            self._shared.take(slot.seq, slot.job.prompt, max(self._held(slot.job.prompt)))
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
        """Make one decode call; returns the jobs that it finished."""
        self._end_waiting()
        tokens = self._next_tokens()
        drafts = self._drafts(tokens)
        began = self._clock()
        if drafts:
            self._decode_drafts(tokens, drafts)
        else:
            self._sequences.decode(tokens)
        if self._shared:
            self._shared.measured(sum(map(len, tokens.values())), self._clock() - began)
        finished: list[Result] = []
        for seq, added in tokens.items():
            slot = self._slots[seq]
            del slot.pending[: len(added)]
            if slot.rows:
                slot.rows.begin(drafts.get(seq, ()))
            if not slot.pending:
                finished += self._draw(slot)
        return finished

    def _drafts(self, tokens: Mapping[int, Sequence[int]]) -> dict[int, list[int]]:
        """The drafted tokens of the next call, none beside prompts."""
        if not self._costs or len(self._slots) > MOST_SLOTS or any(map(_is_reading, self._slots.values())):
            return {}
        gains: dict[int, Sequence[float]] = {}
        for seq in tokens:
            slot, most = self._slots[seq], min(MOST_DRAFT, self._sequences.n_ctx - len(self._sequences.tokens[seq]) - 2)
            if slot.job.max_tokens >= 0:
                most = min(most, slot.job.max_tokens - len(slot.answer) - 1)
            gains[seq] = slot.rows.drafter.gains(most) if slot.rows else ()
        times = self._costs.times(self._n_context(tokens))
        lengths = draft_lengths(gains, times)
        drafters = {seq: slot.rows.drafter for seq, slot in self._slots.items() if slot.rows}
        return {seq: drafters[seq].draft(length) for seq, length in lengths.items() if seq in drafters}

    def _n_context(self, tokens: Iterable[int]) -> int:
        return max(len(self._sequences.tokens[seq]) for seq in tokens)

    def _decode_drafts(self, tokens: Mapping[int, Sequence[int]], drafts: Mapping[int, Sequence[int]]) -> None:
        """Make a decode call that may have drafted tokens; one of a single sequence shows what rows cost."""
        drafted = {seq: [*added, *drafts[seq]] for seq, added in tokens.items()}
        is_drafted = any(drafts.values())
        if self._costs and len(drafted) == 1:
            with observing(self._costs, sum(map(len, drafted.values())), self._n_context(drafted)):
                self._sequences.decode(drafted, every_logits=is_drafted)
        else:
            self._sequences.decode(drafted, every_logits=is_drafted)

    def _end_waiting(self) -> None:
        """Start the slots that waited for another slot's prompt, once it is computed or its job has ended."""
        for slot in self._slots.values():
            source = slot.source
            if source is None:
                continue
            coming = self._slots.get(source.seq) is source
            common = common_length(source.job.prompt, slot.job.prompt)
            if not coming or (source.source is None and len(self._sequences.tokens[source.seq]) >= common):
                self._begin(slot)

    def _next_tokens(self) -> dict[int, list[int]]:
        """The tokens of the next call: answers first, then prompts, the oldest first."""
        ready = [slot for slot in self._slots.values() if slot.source is None]
        tokens = {slot.seq: slot.pending for slot in ready if len(slot.pending) == 1}
        left = self._sequences.n_batch - len(tokens)
        for slot in ready:
            if len(slot.pending) > 1 and left > 0:
                tokens[slot.seq] = slot.pending[:left]
                left -= len(tokens[slot.seq])
        return tokens

    def _draw(self, slot: _Slot) -> list[Result]:
        """Draw the tokens of an answer for which the last call has rows, and forget the drafts that were wrong."""
        finished = self._draw_token(slot)
        while not (finished or slot.pending):
            finished = self._draw_token(slot)
        if slot.rows and slot.rows.n_left:
            self._sequences.keep(slot.seq, self._n_tokens(slot))
            slot.rows.begin(())
        return finished

    def _n_tokens(self, slot: _Slot) -> int:
        """The tokens in a slot's cache without drafts."""
        return len(self._sequences.tokens[slot.seq]) - (slot.rows.n_left if slot.rows else 0)

    def _draw_token(self, slot: _Slot) -> list[Result]:
        """Draw the next token of an answer, and compute it with the next call unless the last one did."""
        slot.last = self._clock()
        if not slot.answer:
            slot.first = slot.last
        if slot.job.max_tokens == len(slot.answer):
            return [self._finish(slot, "length")]
        try:
            token = slot.sampler.sample(slot.rows.row if slot.rows else -1)
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
        if len(slot.answer) == slot.job.max_tokens or self._n_tokens(slot) + 1 >= self._sequences.n_ctx:
            return [self._finish(slot, "length")]
        if not (slot.rows and slot.rows.confirm(token)):
            slot.pending = [token]
        return []

    def _loop(self, slot: _Slot, kept: int) -> list[Result]:
        """End an answer that repeats itself, or continue it once from before the loop."""
        retry = slot.retry
        # A grammar's state in the middle of an answer is unknown, so such an answer starts again.
        kept = 0 if retry and slot.job.sampling.grammar else slot.guarded_from + kept
        del slot.answer[kept:]
        slot.restart()
        slot.text = "".join(slot.decoder.decode(self._model.piece(token)) for token in slot.answer)
        if not retry:
            return [self._finish(slot, "repetition", cut=True)]
        slot.retry = False
        before = [*slot.job.prompt, *slot.answer]
        slot.sampler.close()
        try:
            slot.sampler = self._sequences.open_sampler(slot.seq, penalised(slot.job.sampling), before)
        except EdgellmError as error:  # the grammar cannot be opened again
            return [self._finish(slot, "error", error, cut=True)]
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
            drafted_tokens=slot.rows.n_drafted if slot.rows else 0,
            accepted_tokens=slot.rows.n_accepted if slot.rows else 0,
        )


def _is_reading(slot: _Slot) -> bool:
    """Whether more than one token of its prompt is not computed yet."""
    return slot.source is not None or len(slot.pending) != 1
