"""Whether two answers say the same: how an entry learns that its stored answer was right.

    agree("It is 24 months.", "The warranty is 24 months.")  ->  True

Both have the same numbers and the same negation, and the shorter one's words stand in the other.
"""

from __future__ import annotations

from edgellm.cache.facts import facts
from edgellm.cache.question_facts import normalised

# The part of the shorter answer's words that the longer one has.
ENOUGH = 0.6


def agree(one: str, other: str) -> bool:
    """Compare a fresh answer with a stored one."""
    if normalised(one) == normalised(other):
        return True
    a, b = facts(one), facts(other)
    if set(a.numbers) != set(b.numbers) or a.is_negated != b.is_negated:
        return False
    short, long = sorted((set(a.content), set(b.content)), key=len)
    return bool(short or a.numbers) and len(short & long) >= ENOUGH * len(short)
