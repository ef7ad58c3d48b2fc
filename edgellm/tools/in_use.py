"""The tools of a chat or a batch with what belongs to them: permission, choice, budget, and how they are closed.

use = ToolsInUse(Toolbox(tools, Consent()), chooser)
rounds = use.rounds("What is 17 * 23?", count)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from edgellm.tools.budget import ToolBudget
from edgellm.tools.choice import ToolChooser
from edgellm.tools.rounds import USUAL_BUDGET, ToolRounds
from edgellm.tools.toolbox import Toolbox


@dataclass(frozen=True, slots=True)
class ToolsInUse:
    """What a model may call; `close` gives back what the tools have opened."""

    toolbox: Toolbox
    chooser: ToolChooser = field(default_factory=ToolChooser)
    budget: ToolBudget = USUAL_BUDGET
    close: Callable[[], None] = lambda: None

    def rounds(self, question: str, count: Callable[[str], int]) -> ToolRounds:
        """The calls of one question; `count` counts the tokens of a text."""
        return ToolRounds(self.toolbox, question, count=count, choose=self.chooser, budget=self.budget)
