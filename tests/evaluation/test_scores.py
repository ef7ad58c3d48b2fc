"""Scores, intervals and paired comparisons against known values, and logs that are damaged."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgellm.errors import CorruptFile, FileAccessError
from edgellm.evaluation.compare import bootstrap, compare, mcnemar
from edgellm.evaluation.evaluation import Evaluation
from edgellm.evaluation.log import read_log, write_log
from edgellm.evaluation.score import find_loop, group_score, suite_scores, wilson
from tests.evaluation.scripted import HEADER, logged


def evaluation(*scores: float) -> Evaluation:
    items = tuple(logged(f"i{n}", score, answer=f"answer {score}") for n, score in enumerate(scores))
    return Evaluation(HEADER, suite_scores(items), items)


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe, Two-sided confidence intervals for the single proportion (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_intervals(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [(0, 0, 1.0), (5, 5, 1.0), (6, 1, 0.125), (1, 6, 0.125), (0, 10, 2 / 1024), (2, 12, 0.012939)],
)
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == pytest.approx(p, abs=1e-6)


def test_mcnemar_of_many_changes_goes_over_into_the_normal_distribution() -> None:
    assert mcnemar(1050, 949) == pytest.approx(mcnemar(1051, 950), abs=2e-4)
    assert mcnemar(10**6, 0) == 0.0 and mcnemar(10**6, 10**6) == 1.0


def test_the_bootstrap_has_the_width_of_the_normal_interval_and_repeats() -> None:
    differences = np.array([1.0] * 30 + [-1.0] * 10 + [0.0] * 60)
    low, high = bootstrap(differences)
    half = 1.96 * differences.std() / 10
    assert (low, high) == pytest.approx((0.2 - half, 0.2 + half), abs=0.02) and bootstrap(differences) == (low, high)
    assert bootstrap(np.zeros(5)) == (0.0, 0.0)


def test_items_are_paired_by_their_name_and_question() -> None:
    base, now = evaluation(1, 1, 0, 0, 0), evaluation(1, 0, 1, 1, 0)
    changed = [*now.items[:4], replace(now.items[4], messages=({"role": "user", "content": "another"},))]
    found = compare(replace(now, items=tuple(changed)), base)
    assert found is not None and found.n_unpaired == 2
    total = found.total
    assert (total.n_items, total.score, total.base, total.difference) == (4, 0.75, 0.5, 0.25)
    assert (total.n_gained, total.n_lost, total.p_value) == (2, 1, 1.0)
    assert [(each.now.item, each.change) for each in found.changed] == [("i1", -1), ("i2", 1), ("i3", 1)]
    assert found.changed[0].base.answer == "answer 1" and found.changed[0].now.answer == "answer 0"
    assert compare(now, Evaluation(HEADER, (), ())) is None


def test_a_group_says_how_its_answers_were_written() -> None:
    items = [logged("a", 1), replace(logged("b", 0.5), decode_seconds=1.0, prefill_seconds=0.1, finish_reason="length")]
    group = group_score("both", items)
    assert (group.score, group.n_right, group.n_cut, group.n_loops) == (0.75, 1, 1, 0)
    assert group.rate == pytest.approx(7.5) and group.ttft == pytest.approx(0.3) and group.completion_tokens == 22
    failed = replace(logged("c", 0), finish_reason="error", completion_tokens=0, prefill_seconds=0.0)
    assert group_score("failed", [failed]).rate is None and group_score("failed", [failed]).n_failed == 1


def test_a_finished_text_is_searched_for_loops() -> None:
    assert find_loop("Yes, I am good. " * 60) and find_loop("今天天气很好。" * 60)
    assert not find_loop("The quick brown fox jumps over the lazy dog, and then it sleeps. " * 2)


def test_a_log_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = evaluation(1, 0.25, 0)
    write_log(tmp_path / "log.jsonl", HEADER, found.items)
    assert read_log(tmp_path / "log.jsonl") == (HEADER, found.items)
    first, second = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    assert json.loads(first)["edgellm_eval"] == 1 and "pass" in json.loads(second)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda text: text[:-9], "cut off"),
        (lambda text: text.replace('"score": 1', '"score": "1"'), "score"),
        (lambda text: text.replace('"score": 1', '"score": 7'), "score"),
        (lambda text: text.replace('"score": 1', '"score": NaN'), "score"),
        (lambda text: text.replace('"decode_seconds": 2.0', '"decode_seconds": 1e999'), "decode_seconds"),
        (lambda text: text.replace('"prompt_tokens": 5', '"prompt_tokens": ' + "9" * 400), "prompt_tokens"),
        (lambda text: text.replace('"seen": ""', '"seen": "\\ud800"'), "surrogates"),
        (lambda text: text.replace('"answer"', '"reply"'), "answer is absent"),
        (lambda text: text + text.splitlines()[1] + "\n", "twice"),
        (lambda text: text.replace('"edgellm_eval": 1', '"edgellm_eval": 9'), "version"),
        (lambda text: text.replace('"role"', '"rule"'), "messages"),
        (lambda text: text + "[1]\n", "no JSON object"),
        (lambda text: text + "[" * 100_000 + "\n", "recursion"),
        (lambda text: '{"prompt": "x"}\n', "edgellm_eval"),
        (lambda text: "", "empty"),
        (lambda text: "\x00\xff\n", "decode"),
    ],
)
def test_a_damaged_log_is_one_clear_error(tmp_path: Path, spoil: object, why: str) -> None:
    path = tmp_path / "log.jsonl"
    write_log(path, HEADER, evaluation(1, 0).items)
    path.write_text(spoil(path.read_text(encoding="utf-8")), encoding="latin-1")  # type: ignore[operator]
    with pytest.raises(CorruptFile) as wrong:
        read_log(path)
    assert why in wrong.value.why and str(path) in wrong.value.what
    with pytest.raises(FileAccessError):
        read_log(tmp_path)
