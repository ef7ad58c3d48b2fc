from edgellm.evaluation.harness.published import AGREES, DIFFERS, PublishedComparison
from edgellm.evaluation.harness.result import TaskResult, TaskScore
from edgellm.report.page import html_file
from edgellm.report.task_scores import task_page
from tests.report.benchmarks import SETTING

ARC = TaskScore("arc_easy", "acc_norm", 0.51, 0.02, 5, 200, PublishedComparison(50.0, "a paper", AGREES, ()))
WINO = TaskScore("winogrande", "acc", 0.6, 0.01, 0, 100, PublishedComparison(70.0, "a paper", DIFFERS, ("Q4_1 here",)))
PERPLEXITY = TaskScore("wikitext", "word_perplexity,none", 31.4, None, 0, 62)
RESULT = TaskResult("bonsai", "Q1_0", "0.4.13", 2048, False, 200, (ARC, WINO, PERPLEXITY), 900, 0, 3, 50_000, 120.0)


def test_scores_stand_beside_the_published_ones() -> None:
    page = task_page(RESULT, SETTING)
    (chart,) = page.charts  # a perplexity is no share
    assert chart.summary == (
        "acc_norm: 51.0 % (47.1 to 54.9 %); published: 50.0 %; acc: 60.0 % (58.0 to 62.0 %); published: 70.0 %"
    )
    rows = [list(row) for row in page.sections[0].tables[0].rows]
    assert rows[0] == ["arc_easy", "5", "200", "acc_norm", "51.00 %", "± 2.00", "50.00 %", "agrees"]
    assert rows[2] == ["wikitext", "0", "62", "word_perplexity,none", "31.4", "", "", ""]
    assert page.remarks == [
        "winogrande may differ because: Q4_1 here", "3 prompts were longer than 2,048 tokens and lost their beginning",
    ]  # fmt: skip


def test_how_they_were_computed() -> None:
    text = html_file(task_page(RESULT, SETTING))
    for word in (
        "lm-eval 0.4.13",
        "A CPU",
        "0.3.36 e4687ea5483e",
        "only the first 200 of each task",
        "a paper",
        DIFFERS,
    ):
        assert word in text, word
