"""Log-probabilities of every token of a prompt, and of the tokens generated after it, on one context of an engine.

    scorer = Scorer(model, context)
    for scored in scorer.prompt(tokens, n_top=1, unwanted=never):
        scored.scores[0].logprob

A prompt is computed in cells of 64 tokens that begin at multiples of 64. With quantized weights the size of a batch
changes the rounding (a log-probability of SmolLM2 by up to 0.3, measured), so only whole cells that are the same as in
the prompt before are taken from the cache, and a prompt's numbers are the same, to the last bit, whatever came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.engine.base import Context, Model
from edgellm.engine.sampling import Sampling
from edgellm.errors import EngineError
from edgellm.machine import memory
from edgellm.machine.cpu import usable_cores
from edgellm.models.fit.memory import MemoryNeed, RunPlan, estimate, require_fit
from edgellm.models.fit.verdict import choose_plan, read_outline
from edgellm.run.loops import LoopGuard
from edgellm.run.scores import Score, score_rows
from edgellm.run.stops import first_stop
from edgellm.serve.scoring.speller import Speller

CELL = 64
# Rows of float32 logits alive at once: the engine's result, its output buffer, our copy of a cell and temporaries.
N_OUTPUTS = 4 * CELL


class Unwanted(Exception):
    """The client of an answer is gone."""


@dataclass(frozen=True, slots=True)
class Scored:
    """Tokens of a prompt with their scores, from position `start` on; the first token of a prompt has no score."""

    start: int
    tokens: tuple[int, ...]
    scores: tuple[Score | None, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the model generated: `tokens` include an end token, and begin at `offsets` in the text.

    Tokens and text are cut where a stop text or a repetition begins; `n_drawn` were drawn. `reason` is stop, length or
    repetition.
    """

    tokens: tuple[int, ...]
    scores: tuple[Score, ...]
    offsets: tuple[int, ...]
    text: str
    reason: str
    n_drawn: int


@dataclass(frozen=True, slots=True)
class Draw:
    """How to continue a prompt: at most `max_tokens` tokens (at least one), until one of the stop texts."""

    max_tokens: int
    sampling: Sampling
    stop: tuple[str, ...] = ()
    loop_guard: bool = True


class Scorer:
    """Scores one prompt after another; `reused` tokens of the last one were in the cache."""

    def __init__(self, model: Model, context: Context) -> None:
        self._model = model
        self._context = context
        # The tokens of the last prompt with their scores: one more than the context has computed, or as many.
        self._known: list[tuple[int, Score | None]] = []
        self._n_top = 0
        self.reused = 0

    def prompt(self, tokens: Sequence[int], *, n_top: int, unwanted: Callable[[], bool]) -> Iterator[Scored]:
        """The scores of a prompt that fits into the context, cell by cell.

        Raises:
            Unwanted: the question was answered with yes.
        """
        known, done = self._known, self._return_to(tokens, n_top)
        self.reused = done
        yield self._scored(0, n_top)
        while done < len(tokens):
            cell = tokens[done : done + CELL]
            rows = self._compute(cell, unwanted)
            first, done = len(known), done + len(cell)
            targets = tokens[first : done + 1]
            known.extend(zip(targets, score_rows(rows, targets, self._n_top), strict=True))
            yield self._scored(first, n_top)

    def draw(
        self, draw: Draw, speller: Speller, prompt: Sequence[int], *, n_top: int, unwanted: Callable[[], bool]
    ) -> Drawn:
        """Generate after the prompt that was just scored and written by `speller`.

        Raises:
            Unwanted: the question, asked after each token, was answered with yes.
        """
        model, context = self._model, self._context
        tokens: list[int] = []
        scores: list[Score] = []
        offsets: list[int] = []
        text, cut, reason = "", None, "length"
        guard = LoopGuard() if draw.loop_guard else None
        sampler = context.open_sampler(draw.sampling, prompt)
        try:
            while True:
                row, token = context.logits(), sampler.sample()
                tokens.append(token)
                scores += score_rows(row[np.newaxis], [token], n_top)
                offsets.append(len(text))
                if model.is_end(token):
                    reason = "stop"
                    break
                text += (piece := speller.write(token, control=False))
                if (cut := first_stop(text, draw.stop, len(piece))) is not None:
                    reason = "stop"
                    break
                if guard and (loop := guard.feed(token, piece)):
                    reason, cut = "repetition", [*offsets, len(text)][loop.kept_tokens]
                    break
                if len(tokens) == draw.max_tokens or len(context.tokens) >= context.n_ctx:
                    break
                if unwanted():
                    raise Unwanted
                context.decode([token])
        finally:
            sampler.close()
        text = text + speller.finish() if cut is None else text[:cut]
        kept = len(tokens) if cut is None else sum(offset < cut for offset in offsets)
        return Drawn(tuple(tokens[:kept]), tuple(scores[:kept]), tuple(offsets[:kept]), text, reason, len(tokens))

    def _compute(self, cell: Sequence[int], unwanted: Callable[[], bool]) -> npt.NDArray[np.float32]:
        """The logits of some tokens; a cell can take seconds on a slow machine."""
        if unwanted():
            raise Unwanted
        self._context.abort_when(unwanted)
        try:
            return self._context.score(cell)
        except EngineError:
            if unwanted():
                raise Unwanted from None
            raise
        finally:
            self._context.abort_when(None)

    def _return_to(self, tokens: Sequence[int], n_top: int) -> int:
        """Cut the cache to the cells that the prompt begins with; returns their number of tokens.

        The token after them must be known too: its score came from the last of their rows.
        """
        pairs = zip(self._known, tokens, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0][0] == pair[1], pairs)) if n_top <= self._n_top else 0
        kept = self._context.keep(max(common - 1, 0) // CELL * CELL)
        if not kept:
            self._known[:] = [(tokens[0], None)]
            self._n_top = n_top
        del self._known[kept + 1 :]
        return kept

    def _scored(self, start: int, n_top: int) -> Scored:
        """The known scores from a token on, with as many alternatives as requested."""
        tokens, scores = zip(*self._known[start:], strict=True) if self._known[start:] else ((), ())
        asked = tuple(score and replace(score, top=score.top[:n_top]) for score in scores)
        return Scored(start, tokens, asked)


@dataclass(frozen=True, slots=True)
class ScoringOptions:
    """How to open a model for scoring; None stands for the default."""

    n_ctx: int | None = None
    n_threads: int | None = None
    kv_type: str | None = None
    max_memory: int | None = None
    force: bool = False


def plan_scoring(path: Path, options: ScoringOptions) -> tuple[RunPlan, MemoryNeed]:
    """The plan to score with a model, and its memory, from the header alone.

    Raises:
        CorruptFile, UnsupportedModel: the file is no GGUF, damaged, or nothing the engine knows.
        ContextTooLarge: more context than the model was trained with.
        DoesNotFit: too little memory (unless `options.force`).
    """
    outline, room = read_outline(path), memory.room()
    if options.max_memory is not None:
        room = replace(room, available=min(room.available, options.max_memory))
    plan = choose_plan(
        outline, room, n_ctx=options.n_ctx, kv_type=options.kv_type, n_threads=options.n_threads or usable_cores(),
        max_memory=options.max_memory, force=options.force,
    )  # fmt: skip
    plan = replace(plan, n_batch=CELL, n_outputs=N_OUTPUTS)
    need = estimate(outline, plan)
    if not options.force:
        require_fit(need, room, name=outline.name, plan=plan)
    return plan, need
