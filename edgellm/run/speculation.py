"""Speculative decoding without a second model: a pass computes drafted tokens too, and those that were right are kept.

    rows = DraftedRows(Drafter(prompt))
    token = sampler.sample(rows.row)
    if not rows.confirm(token):                     # otherwise the last pass has the row after it already
        context.keep(len(context.tokens) - rows.n_wrong)
        context.decode([token, *rows.plan(costs, len(context.tokens), most=8)], every_logits=True)

Equality with plain decoding is equality of rows: each row of a pass has the bits that it would have alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgellm.engine.base import Context
from edgellm.run.draft_costs import DraftCosts
from edgellm.run.draft_lengths import draft_lengths
from edgellm.run.drafts import MOST_DRAFT, Drafter


class DraftedRows:
    """The rows of one sequence in the last pass: that of its token, and those of the tokens drafted after it."""

    def __init__(self, drafter: Drafter, n_drafted: int = 0, n_accepted: int = 0) -> None:
        """The counts are those of an answer so far."""
        self.drafter = drafter
        self.n_drafted, self.n_accepted = n_drafted, n_accepted
        self._draft: Sequence[int] = ()
        self._accepted = 0

    @property
    def row(self) -> int:
        """The row that the next token is drawn from, counted from the end of the pass."""
        return -1 - self.n_left

    @property
    def n_left(self) -> int:
        """Drafted tokens that are not confirmed; all of them are wrong once one is."""
        return len(self._draft) - self._accepted

    def confirm(self, token: int) -> bool:
        """Note a token that was drawn; whether it is the next drafted one, after which there is a row already."""
        self.drafter.feed(token)
        if not self.n_left or self._draft[self._accepted] != token:
            return False
        self._accepted += 1
        self.n_accepted += 1
        return True

    def begin(self, draft: Sequence[int]) -> None:
        """A new pass has these drafted tokens."""
        self._draft, self._accepted = draft, 0
        self.n_drafted += len(draft)


@dataclass(slots=True)
class Speculation:
    """What the drafts of an open model share: what passes cost. `hint` are tokens that an answer may have, such as the
    skeleton of its JSON."""

    costs: DraftCosts
    hint: Sequence[int] = field(default=())


class DraftingContext:
    """A context whose passes may have drafted tokens; without `speculation` it computes one token at a time."""

    def __init__(self, context: Context, before: Iterable[int], speculation: Speculation | None) -> None:
        """`before` are the tokens of the prompt, which is in the context."""
        self._context = context
        self._costs = speculation.costs if speculation and context.can_truncate else None
        self._hint = speculation.hint if speculation else ()
        self._rows: DraftedRows | None = None
        self.restart(before)

    def restart(self, before: Iterable[int]) -> None:
        """The context holds these tokens now, and no draft."""
        counts = self.counts
        self._rows = DraftedRows(Drafter([*self._hint, *before]), *counts) if self._costs else None

    @property
    def row(self) -> int:
        """The row that the next token is drawn from."""
        return self._rows.row if self._rows else -1

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens drafted and accepted so far."""
        return (self._rows.n_drafted, self._rows.n_accepted) if self._rows else (0, 0)

    @property
    def n_tokens(self) -> int:
        """Tokens in the cache without drafts."""
        return len(self._context.tokens) - (self._rows.n_left if self._rows else 0)

    def advance(self, token: int, most: int) -> None:
        """Have a row after `token`, which was drawn; `most` tokens may be drafted after it."""
        rows, costs, context = self._rows, self._costs, self._context
        if rows is None or costs is None:
            context.decode([token])
            return
        if rows.confirm(token):
            return
        self.cut()
        n_context = len(context.tokens)
        most = min(most, MOST_DRAFT, context.n_batch - 1, context.n_ctx - n_context - 2)
        length = draft_lengths({0: rows.drafter.gains(most)}, costs.times(n_context))[0]
        draft = rows.drafter.draft(length)
        with observing(costs, 1 + length, n_context):
            context.decode([token, *draft], every_logits=length > 0)
        rows.begin(draft)

    def cut(self) -> None:
        """Take drafts that were not confirmed out of the cache."""
        if self._rows and self._rows.n_left:
            self._context.keep(self.n_tokens)
            self._rows.begin(())


@contextmanager
def observing(costs: DraftCosts, n_rows: int, n_context: int) -> Iterator[None]:
    """Let the costs learn how long a pass over so many rows of one sequence takes."""
    began = time.perf_counter()
    yield
    costs.observe(n_rows, n_context, time.perf_counter() - began)
