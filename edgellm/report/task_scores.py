"""The report of benchmarks by lm-eval: each score with its error beside the published one.

ReportFile.at(path).write(task_page(result, current_setting(engine)))
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgellm.evaluation.harness.result import TaskResult, TaskScore, is_share, score_cells
from edgellm.measure.bench.result import Setting
from edgellm.report.charts.bars import Bar, BarGroup, bar_chart
from edgellm.report.charts.chart import ChartValue, with_range
from edgellm.report.page import DataTable, ReportPage, ReportSection
from edgellm.units import duration

HEADERS = ("Task", "Shots", "Questions", "Metric", "Score", "Error", "Published", "Verdict")
# A 95 % interval is so many standard errors wide on either side.
Z = 1.96
HERE, PUBLISHED = 0, 5


def task_page(found: TaskResult, setting: Setting) -> ReportPage:
    """The page of some tasks."""
    tasks = list(dict.fromkeys(score.task for score in found.scores))
    sources = dict.fromkeys(score.published.source for score in found.scores if score.published)
    return ReportPage(
        title=f"Benchmarks of {found.model} {found.quant}",
        subtitle=f"{len(tasks)} task{'s' * (len(tasks) != 1)} of lm-eval {found.lm_eval}; {setting.date[:10]}",
        sections=[_scores(found.scores)],
        facts=[
            ("model", f"{found.model} {found.quant}"),
            ("machine", setting.cpu),
            ("engine", f"{setting.engine} {setting.stamp}"),
            ("harness", f"lm-eval {found.lm_eval}"),
            ("context", f"{found.n_ctx:,} tokens"),
            ("prompts", "in the chat template" if found.chat else "as the tasks write them"),
            ("questions", f"only the first {found.limit:,} of each task" if found.limit else "all"),
            ("computed", f"{found.n_tokens:,} tokens for {found.n_requests:,} requests in {duration(found.seconds)}"),
            ("date", setting.date),
            *(("published in", source) for source in sources),
        ],
        remarks=list(_remarks(found)),
    )


def _remarks(found: TaskResult) -> Iterator[str]:
    for score in found.scores:
        if score.published and score.published.reasons:
            yield f"{score.task} may differ because: {'; '.join(score.published.reasons)}"
    if found.n_truncated:
        yield f"{found.n_truncated:,} prompts were longer than {found.n_ctx:,} tokens and lost their beginning"


def _scores(scores: Sequence[TaskScore]) -> ReportSection:
    shares = [score for score in scores if is_share(score)]
    groups = [
        BarGroup(task, [bar for score in shares if score.task == task for bar in _bars(score)])
        for task in dict.fromkeys(score.task for score in shares)
    ]
    note = "Whiskers are 95 % intervals from the harness's standard error; grey bars are the published scores."
    charts = [bar_chart("scores", groups, _percent, most=1.0, note=note)] if groups else []
    table = DataTable(HEADERS, [score_cells(score) for score in scores], right=(1, 2, 4, 5, 6))
    text = "A score agrees with the published one if they lie at most two standard errors apart."
    return ReportSection("scores", "Scores", text, charts, [table])


def _bars(score: TaskScore) -> Iterator[Bar]:
    half = None if score.error is None else Z * score.error
    low, high = (None, None) if half is None else (max(0.0, score.value - half), min(1.0, score.value + half))
    yield Bar(score.metric, ChartValue(score.value, low, high), HERE)
    if score.published:
        yield Bar("published", ChartValue(score.published.value / 100), PUBLISHED)


def _percent(value: ChartValue) -> str:
    return with_range(value, lambda share: f"{100 * share:.1f}", " %")
