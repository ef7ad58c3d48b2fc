"""The error bound of the rule, on simulated entries whose true curves are known."""

import math
import random

import pytest

from edgellm.cache.decision import ALIKE, COSINE
from edgellm.cache.threshold import Observation, Threshold


def chance_right(similarity: float, threshold: float, slope: float) -> float:
    return 1 / (1 + math.exp(-slope * (similarity - threshold)))


def simulate(rule: Threshold, threshold: float, slope: float, error: float, seed: int, n: int = 150) -> tuple[int, int]:
    """Questions to one entry: how many got a wrong answer, and how many a stored one."""
    draw, known, wrong, hits = random.Random(seed), list[Observation](), 0, 0
    for _ in range(n):
        similarity = draw.uniform(0.5, 1.0)
        right = draw.random() < chance_right(similarity, threshold, slope)
        if draw.random() < rule.chance_to_ask(similarity, known[-50:], error):
            known.append((similarity, right))
        else:
            hits, wrong = hits + 1, wrong + (not right)
    return wrong, hits


@pytest.mark.parametrize(("threshold", "error"), [(0.55, 0.1), (0.7, 0.02), (0.85, 0.05), (0.95, 0.05)])
def test_the_bound_holds_wherever_the_threshold_lies(threshold: float, error: float) -> None:
    runs = [simulate(Threshold(), threshold, 64, error, seed) for seed in range(4)]
    n = 4 * 150
    assert sum(wrong for wrong, _ in runs) / n <= error + 2 * math.sqrt(error * (1 - error) / n)


def test_it_learns_to_give_answers() -> None:
    n_hits = [simulate(Threshold(), 0.6, 64, 0.05, seed)[1] for seed in range(4)]
    assert min(n_hits) > 50


def test_with_measured_knowledge_it_begins_at_once_and_the_bound_holds() -> None:
    places = random.Random(1)
    runs = [simulate(COSINE, places.gauss(0.6, 0.02), 64, 0.03, seed) for seed in range(4)]
    assert sum(wrong for wrong, _ in runs) / (4 * 150) <= 0.03
    assert min(hits for _, hits in runs) > 70


def test_an_entry_that_the_knowledge_is_wrong_about_is_asked_again() -> None:
    assert COSINE.chance_to_ask(0.8, (), 0.03) == 0
    assert COSINE.chance_to_ask(0.8, [(0.8, False)], 0.03) > 0.9
    assert COSINE.chance_to_ask(0.85, [(0.8, False)], 0.03) > 0.9


def test_right_answers_lower_the_threshold() -> None:
    before = COSINE.chance_to_ask(0.66, (), 0.03)
    assert COSINE.chance_to_ask(0.66, [(0.66, True)] * 20, 0.03) < before


@pytest.mark.parametrize(("rule", "start"), [(COSINE, 0.7), (ALIKE, 0.5)])
def test_what_was_measured_is_given_at_three_per_cent_and_less_at_one(rule: Threshold, start: float) -> None:
    assert rule.chance_to_ask(start, (), 0.03) < 0.5 < rule.chance_to_ask(start, (), 0.005)
    assert rule.chance_to_ask(start - 0.1, (), 0.03) > 0.9


def test_no_error_allowed_means_always_asked() -> None:
    assert COSINE.chance_to_ask(0.99, [(0.9, True)] * 50, 0.0) > 0.99
