"""Whether a stored answer is the answer to a question, and why; pure, so that pairs of questions can be tested.

    decide("How do I delete my account?", "Steps to remove my account", 0.89).hit   ->  True

`similarity` is the cosine of an embedding model for English, and for Chinese how many characters and pairs of them are
the same (`alike`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgellm.cache.facts import facts
from edgellm.cache.guards import alike, difference
from edgellm.cache.question_facts import CHINESE, ENGLISH, normalised
from edgellm.cache.threshold import Observation, Threshold

DEFAULT_ERROR = 0.03
# The model whose cosines the thresholds were measured with.
EMBEDDER = "minilm"
# Similarities from which on an answer is given before anything is known of its entry: measured on pairs of questions.
COSINE = Threshold(start=0.70)
# Where two English questions have all their words in common, the vectors only confirm it.
SAME_WORDS = Threshold(start=0.50)
ALIKE = Threshold(start=0.50)


@dataclass(frozen=True, slots=True)
class CacheDecision:
    """Whether to give the stored answer; `reason` says why or why not.

    `similarity` is from 0 to 1, null if nothing could measure it. `chance_to_ask` is how often the model is asked all
    the same, to learn whether this entry's answers are right. `comparable`: nothing but the similarity speaks against.
    """

    hit: bool
    similarity: float | None
    reason: str
    chance_to_ask: float = 1.0
    comparable: bool = False


def decide(
    question: str,
    stored: str,
    similarity: float | None,
    observations: Sequence[Observation] = (),
    *,
    error: float = DEFAULT_ERROR,
    draw: float = 0.5,
) -> CacheDecision:
    """Decide for one question and one stored question.

    Args:
        similarity: the cosine of their vectors, None if there is no embedding model; not used for Chinese.
        observations: what is known of the entry: similarities and whether the stored answer was right.
        error: the part of all answers that may be wrong.
        draw: a number from 0 to 1, drawn for each question; the model is asked if it is below `chance_to_ask`.
    """
    if normalised(question) == normalised(stored):
        return CacheDecision(True, 1.0, "the same question", 0.0, True)
    if found := difference(question, stored):
        return CacheDecision(False, similarity, found)
    asked, known = facts(question), facts(stored)
    threshold = COSINE
    if asked.language == CHINESE:
        similarity, threshold = alike(asked, known), ALIKE
    elif set(asked.content) == set(known.content):
        threshold = SAME_WORDS
    if similarity is None:
        return CacheDecision(False, None, "there is no embedding model to compare them")
    similarity = min(1.0, similarity)
    chance = threshold.chance_to_ask(similarity, observations, error)
    if draw < chance:
        return CacheDecision(False, similarity, "not near enough, or not yet known to be right", chance, True)
    return CacheDecision(True, similarity, "nothing differs, and near enough", chance, True)


def wants_vector(question: str) -> bool:
    """Whether similar questions can be found by vectors: in English."""
    return facts(question).language == ENGLISH
