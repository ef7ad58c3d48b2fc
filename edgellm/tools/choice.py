"""Which tools to offer for a question, and which one surely fits it: by signs in the question, meaning, or words.

chooser = by_meaning(embed)
chooser("Who painted Guernica?", tools, 5)      # the tools to offer a model that chooses itself
chooser.fitting("What is 17 * 23?", tools)      # the one to call for a model that cannot choose
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgellm.documents.words import terms
from edgellm.tools.tool import Risk, Tool

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# The vectors [len(texts), n_embd] of some texts, each of length 1.
Embed = Callable[[Sequence[str]], "npt.NDArray[np.float32]"]
# The least cosine of a question and an example of a tool that fits it (MiniLM; docs/explanation/tools.md).
LIKE = 0.22
# What no tool is for, so that a question is compared with something else as well.
TALK = (
    "Hi there!", "Thanks a lot.", "How is it going?", "Who are you?", "Tell me a funny story.",
    "Write a poem about the sea.",
    "Translate this text into French.", "Rewrite this paragraph.", "Write a letter to my landlord.", "Suggest a title.",
    "Explain it in simple words.", "What do you think about that?", "Give me some ideas for a party.", "Fix my code.",
)  # fmt: skip
FACTS = (
    "Who wrote Hamlet?", "What is the capital of Peru?", "When did the war end?", "What is an enzyme?",
    "Where do penguins live?", "Who was Isaac Newton?", "How does a battery work?", "Why is the sky blue?",
)  # fmt: skip
# Vectors that are kept.
MOST_KNOWN = 2_000
# Of a question, in characters: what is longer is pasted text.
MOST_QUESTION = 600


class ToolChooser:
    """Chooses by the cosines of a question and a tool's examples and description; without `embed` by words.

    What is said about a tool is embedded once. Several threads may use it.
    """

    def __init__(self, embed: Embed | None = None) -> None:
        self._embed = embed
        self._known: dict[str, npt.NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def __call__(self, question: str, tools: Sequence[Tool], most: int) -> list[Tool]:
        """The `most` tools that fit best, in their own order."""
        scores = self._scores(question, tools)
        chosen = sorted(range(len(tools)), key=lambda n: (not _has_signs(question, tools[n]), -scores[n]))[:most]
        return [tools[n] for n in sorted(chosen)]

    def fitting(self, question: str, tools: Sequence[Tool]) -> Tool | None:
        """The tool that fits a question, if one does: by its signs, else by an example that means nearly the same."""
        signed = [tool for tool in tools if _has_signs(question, tool)]
        if len(signed) == 1 or (signed and self._embed is None):
            return signed[0]
        if self._embed is None:
            return None
        among = signed or list(tools)
        scores = self._scores(question, among)
        best = max(range(len(among)), key=scores.__getitem__, default=None)
        if best is None or signed:
            return None if best is None else among[best]
        looks_up = any(tool.risk in (Risk.HERE, Risk.NETWORK) for tool in tools)
        other = max(self._likeness(question, TALK if looks_up else (*TALK, *FACTS)))
        return among[best] if scores[best] >= max(LIKE, other) else None

    def examples(self, question: str, tool: Tool, most: int) -> list[tuple[str, Mapping[str, Any]]]:
        """The examples of a tool that are most like a question, the nearest one last."""
        if self._embed is None or len(tool.examples) <= most:
            return list(tool.examples[:most])
        likeness = self._likeness(question, [asked for asked, _ in tool.examples])
        order = sorted(range(len(likeness)), key=likeness.__getitem__)
        return [tool.examples[n] for n in order[-most:]]

    def _scores(self, question: str, tools: Sequence[Tool]) -> list[float]:
        question = question[:MOST_QUESTION]
        if self._embed is None:
            asked = set(terms(question))
            return [float(len(asked & set(terms(" ".join(_about(tool)))))) for tool in tools]
        return [max(self._likeness(question, _about(tool))) for tool in tools]

    def _likeness(self, question: str, texts: Sequence[str]) -> list[float]:
        """The cosines of a question and some texts, whose vectors are kept."""
        if self._embed is None:
            return [0.0] * len(texts)
        with self._lock:
            return self._compared(self._embed, question[:MOST_QUESTION], texts)

    def _compared(self, embed: Embed, question: str, texts: Sequence[str]) -> list[float]:
        if new := [text for text in dict.fromkeys([*texts, question]) if text not in self._known]:
            self._known.update(zip(new, embed(new), strict=True))
        asked = self._known[question]
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
            self._known[question] = asked
            return self._compared(embed, question, texts)
        return [float(self._known[text] @ asked) for text in texts]


def by_meaning(embed: Embed) -> ToolChooser:
    """Chooses by what questions mean."""
    return ToolChooser(embed)


def _about(tool: Tool) -> list[str]:
    """What is compared with a question; descriptions of others may be long."""
    description = f"{tool.name.replace('_', ' ')}: {tool.description[:500]}"
    return [description, *(question for question, _ in tool.examples)]


def _has_signs(question: str, tool: Tool) -> bool:
    return bool(tool.signs) and re.search(tool.signs, question[:MOST_QUESTION]) is not None
