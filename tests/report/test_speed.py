from dataclasses import replace

from edgellm.measure.bench.history import History, records
from edgellm.measure.bench.result import Benchmark
from edgellm.report.page import ReportPage, html_file
from edgellm.report.speed import benchmark_page, history_page
from tests.report.benchmarks import benchmark, contestant, measured, two_models

NOTHING = History((), 0)


def titles(page: ReportPage) -> list[str]:
    return [chart.title for chart in page.charts]


def earlier(result: Benchmark, date: str, engine: str, *, depth: int = 0, cpu: str = "A CPU") -> History:
    """The records of the same result with another date and engine."""
    setting = replace(result.setting, date=date, engine=engine, stamp=f"stamp of {engine}", cpu=cpu)
    return History(tuple(records(replace(result, setting=setting, depth=depth))), 0)


def test_two_models_at_two_thread_counts() -> None:
    page = benchmark_page(two_models(), NOTHING)
    assert titles(page) == [
        "prefill 64, over threads", "decode 16, over threads", "decode 16 x 4, over threads",
        "decode over sequences, 1 thread", "decode over sequences, 2 threads", "ours over base",
        "read by decoding, of the memory's speed", "speed against memory, decode",
    ]  # fmt: skip
    decode = page.charts[1]
    assert "ours: 40.4 tok/s at 1 threads, 80.8 tok/s at 2 threads; base: 20.2 tok/s" in decode.summary
    assert "Noisy" in page.charts[2].note and "base at 1, base at 2" in page.charts[2].note
    assert "ours: 80.8 tok/s at 0.2 GB peak memory" in page.charts[-1].summary
    assert "decode 16, 1 thread: 2.05× (2.00 to 2.10×)" in page.charts[5].summary
    assert any(remark.startswith("noisy: 2 of 12 figures") for remark in page.remarks)


def test_a_model_alone_gets_bars_and_no_comparison() -> None:
    result = benchmark([measured("ours", "decode", (40.0, 50.0, 60.0))], contestant("ours"))
    page = benchmark_page(result, NOTHING)
    assert titles(page) == ["decode 16, tok/s", "read by decoding, of the memory's speed"]
    assert (
        page.charts[0].summary == "ours: 50.0 (40.0 to 60.0)" and ">50.0 (40.0 to 60.0)  noisy<" in page.charts[0].body
    )
    rows = page.sections[0].tables[0].rows
    assert rows == [["decode 16", "1", "ours", "50.0", "40.0 to 60.0", "52 %", "", "", "noisy (±20 %)"]]


def test_what_was_measured_how_is_on_the_page() -> None:
    result = two_models()
    text = html_file(benchmark_page(replace(result, complete=False, together=False), NOTHING))
    for word in ("A CPU", "0.3.36 e4687ea5483e", "cc 12.2", "1 thread read 10.5 GB/s", "2 rounds, interleaved", "1, 2"):
        assert word in text, word
    assert "stopped early" in text and "do not fit into memory together" in text and "ours.gguf" in text
    assert "/models/" not in text  # a report may be shown to others


def test_history_over_engines() -> None:
    result = two_models()
    before = earlier(result, "2026-01-01T00:00:00+00:00", "0.1")
    page = benchmark_page(result, before)
    charts = next(section for section in page.sections if section.anchor == "history").charts
    assert [chart.title for chart in charts][:2] == ["prefill 64, 1 thread", "decode 16, 1 thread"]
    assert "ours: 40.4 tok/s at 0.1 stamp of, 40.4 tok/s at 0.3.36 e4687ea5" in charts[1].summary
    assert any("+0 % since 2026-01-01" in remark for remark in page.remarks)


def test_history_of_another_machine_or_test_is_left_out() -> None:
    result = two_models()
    elsewhere = earlier(result, "2026-01-01T00:00:00+00:00", "0.1", cpu="another CPU")
    assert "history" not in {section.anchor for section in benchmark_page(result, elsewhere).sections}


def test_several_runs_on_an_engine_are_one_point() -> None:
    ours = contestant("ours")
    runs = [benchmark([measured("ours", "decode", (rate, rate + 2))], ours) for rate in (10.0, 20.0, 60.0)]
    dates = ("2026-01-01", "2026-01-02", "2026-01-03")
    found = [*earlier(runs[0], dates[0], "0.1").records, *earlier(runs[1], dates[1], "0.1").records]
    page = history_page(History((*found, *earlier(runs[2], dates[2], "0.2").records), 1))
    (chart,) = page.charts
    assert chart.summary == "ours: 16 tok/s at 0.1 stamp of, 61 tok/s at 0.2 stamp of"
    assert len(page.sections[0].tables[0].rows) == 3 and page.sections[0].tables[0].rows[0][0] == "2026-01-03"
    assert page.remarks == ["1 files of earlier benchmarks cannot be read, and are left out"]


def test_the_depth_of_the_context() -> None:
    result = benchmark([measured("ours", "decode", (40.0,))], contestant("ours"))
    found = [
        record
        for depth in (0, 512, 2048)
        for record in earlier(result, f"2026-01-0{1 + depth // 1024}", "0.1", depth=depth).records
    ]
    (chart,) = next(
        section for section in history_page(History(tuple(found), 0)).sections if section.anchor == "depth"
    ).charts
    assert chart.summary == "ours: 40 tok/s at 0 tokens in the context, 40 tok/s at 512 tokens in the context, " \
        "40 tok/s at 2,048 tokens in the context"  # fmt: skip


def test_a_history_without_records() -> None:
    page = history_page(NOTHING)
    assert page.title == "Nothing was measured yet" and not page.charts and "<h1>" in html_file(page)
