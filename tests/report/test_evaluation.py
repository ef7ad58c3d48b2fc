from dataclasses import replace
from pathlib import Path

from edgellm.evaluation.compare import Comparison, compare
from edgellm.evaluation.log import read_log, write_log
from edgellm.evaluation.score import suite_scores
from edgellm.measure.quality import MeasuredModel, Quality
from edgellm.measure.statistics import Divergence, Perplexity
from edgellm.report.evaluation import evaluation_page
from edgellm.report.items import MOST_CHANGED, MOST_ITEMS, common_limit
from edgellm.report.page import ReportPage, html_file
from tests.report.evaluations import evaluation, header, item

ITEMS = [item(n) for n in range(12)]


def section(page: ReportPage, anchor: str) -> str:
    found = next(each for each in page.sections if each.anchor == anchor)
    return str(found.more or "")


def against(**changes: object) -> Comparison:
    """The twelve items against a base whose first answer was right, and whose second was wrong."""
    base = [item(0, score=1.0, answer="It was right."), item(1, score=0.0, answer="It was wrong."), *ITEMS[2:]]
    found = compare(evaluation(ITEMS), evaluation(base, "smollm2 F16"))
    assert found is not None
    return replace(found, **changes)  # type: ignore[arg-type]


def test_a_chart_a_suite_with_intervals() -> None:
    page = evaluation_page(evaluation(ITEMS))
    assert [chart.title for chart in page.charts] == ["kinds", "json"]
    kinds = page.charts[0]
    assert kinds.summary.startswith("all: 67 % (30 to 90 %); logic: 67 %")
    assert "en: 75 %" in kinds.summary and "zh: 50 %" in kinds.summary
    rows = page.sections[0].tables[0].rows
    assert list(rows[0][:6]) == ["kinds", "all", "66.7 %", "30.0 to 90.3 %", "6", "4"]
    assert [row[1] for row in rows] == ["all", "logic", "knowledge", "en", "zh"] * 2


def test_every_item_with_what_was_asked_answered_seen_and_why() -> None:
    found = section(evaluation_page(evaluation(ITEMS)), "items")
    assert found.count('<details class="item"') == 12
    for word in (
        "Be short.",
        "What is 3 * 3?",
        "It is 9.",
        "seen: 9",
        "why: expected 3",
        "ended: by itself",
        "8 written",
    ):
        assert word in found, word
    assert 'check: {"kind": "number", "value": 9}' in found
    assert '<option value="knowledge">' in found and '<option value="wrong">' in found
    assert 'id="filter-ending"' not in found  # all ended alike


def test_verdicts_in_words() -> None:
    items = [item(1), item(2, score=0.5), item(3, score=0.0), item(4, score=0.0, finish_reason="error", answer="")]
    page = evaluation_page(evaluation(items))
    assert [
        section(page, "items").count(f'data-verdict="{word}"') for word in ("right", "partly", "wrong", "failed")
    ] == [1] * 4
    assert page.remarks == ["not answered, and counted as wrong: 1"]


def test_a_log_is_enough(tmp_path: Path) -> None:
    write_log(tmp_path / "log.jsonl", header(), ITEMS)
    again, items = read_log(tmp_path / "log.jsonl")
    read = evaluation(list(items))
    assert again == read.header and suite_scores(items) == read.suites
    assert html_file(evaluation_page(read)) == html_file(evaluation_page(evaluation(ITEMS)))


def test_a_comparison() -> None:
    page = evaluation_page(evaluation(ITEMS), against())
    assert [each.anchor for each in page.sections] == ["scores", "against", "changed", "items"]
    chart = next(each for each in page.charts if each.title == "difference to smollm2 F16")
    parts = [part.split(" (")[0] for part in chart.summary.split("; ")]
    assert parts == ["all: +0.0", "kinds: -16.7", "json: +16.7"]
    changed = section(page, "changed")
    assert changed.count('<details class="item"') == 2 and "gained" in changed and "lost" in changed
    assert "It was right." in changed and "It was wrong." in changed and "base: smollm2 F16" in changed
    assert "now: smollm2 Q4_1" in changed and "0 → 1" in changed and "1 → 0" in changed


def test_quality_beside_the_comparison() -> None:
    models = [MeasuredModel(Path(f"/models/{name}"), name, Perplexity(12.3, 0.2)) for name in ("Q4_1", "F16")]
    spread = Divergence(0.02, 0.01, 0.2, 1.3, 0.93, 0.034, 0.004)
    quality = Quality(models[0], models[1], spread, "sample", 100_000, 512, 4096, 2040, 33.0, True)
    text = html_file(evaluation_page(evaluation(ITEMS), against(quality=quality)))
    for word in ("12.3 ± 0.2", "+3.4 % ± 0.4 %", "KL divergence", "93.0 %", "2,040 predicted tokens"):
        assert word in text, word
    assert "/models/" not in text


def test_a_common_limit_uses_what_short_texts_leave() -> None:
    assert common_limit([], 100) == 0
    assert common_limit([10, 20, 30], 100) == 30
    assert common_limit([10, 1000, 1000], 110) == 50
    assert common_limit([1000] * 10, 100) == 10


def test_long_answers_are_cut_and_huge_logs_stay_small() -> None:
    found = section(evaluation_page(evaluation([item(n, answer="x" * 1_000_000) for n in range(3)])), "items")
    assert "show all: " in found and " more characters are only in the log" in found and len(found) < 2_100_000
    items = [item(1, item=f"n{n}") for n in range(MOST_ITEMS + 5)]
    found = section(evaluation_page(evaluation(items)), "items")
    assert "5 more items are only in the log." in found and found.count('<details class="item"') == MOST_ITEMS
    assert len(found) < 12_000_000


def test_names_and_numbers_of_a_strange_log_stay_small() -> None:
    long = "x" * 100_000
    items = [item(n, suite=f"suite {n % 50}", category=f"{n // 50}{long}") for n in range(100)]
    page = evaluation_page(evaluation(items, long), compare(evaluation(items), evaluation(items, long)))
    assert len(page.charts) == 41 and len(html_file(page)) < 1_000_000


def test_of_many_changed_items_the_largest_changes_are_shown() -> None:
    now = [item(n, score=1.0 if n % 2 else 0.5) for n in range(2 * MOST_CHANGED)]
    base = [item(n, score=0.0) for n in range(2 * MOST_CHANGED)]
    comparison = compare(evaluation(now), evaluation(base))
    changed = section(evaluation_page(evaluation(now), comparison), "changed")
    assert changed.count("0 → 1<") == MOST_CHANGED and "0 → 0.5" not in changed
    assert f"{MOST_CHANGED} more items are only in the log." in changed
