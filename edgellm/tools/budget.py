"""What the calls of one question may take.

ToolBudget(calls=3, seconds=60)
"""

from __future__ import annotations

from dataclasses import dataclass

# Tools that are offered at once: with more, small models call the wrong one.
MOST_OFFERED = 5


@dataclass(frozen=True, slots=True)
class ToolBudget:
    """The most `calls` of one question, `seconds` from its beginning to the last call, and `offered` tools.

    `tokens` is the most that one result may have; None for a third of the context.
    """

    calls: int = 6
    seconds: float = 120.0
    offered: int = MOST_OFFERED
    tokens: int | None = None
