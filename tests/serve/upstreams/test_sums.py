"""Metrics of several servers as one page."""

from prometheus_client.parser import text_string_to_metric_families

from edgellm.run.events import End
from edgellm.serve.http.current import Handled
from edgellm.serve.metrics import Metrics
from edgellm.serve.upstreams.sums import MOST_FAMILIES, MetricSums
from edgellm.serve.watch.prometheus import text
from tests.serve.test_metrics import EMPTY, Samples, samples


def page(n_requests: int, *ttfts: float) -> str:
    """The page of a real server's counts."""
    metrics = Metrics()
    for _ in range(n_requests):
        metrics.request(Handled(endpoint="/v1/models", model='a"b\\c', status=200))
    for seconds in ttfts:
        metrics.models["m"].first_token(seconds)
    metrics._timings(metrics.models["m"], End("stop", timings={"predicted_n": 10, "predicted_ms": 500}).timings)
    return text(EMPTY, metrics)


def total(found: Samples, name: str, **labels: str) -> float:
    return found[f"edgellm_{name}", frozenset(labels.items())]


def test_counters_and_histograms_add_up() -> None:
    sums = MetricSums()
    sums.note("a", page(3, 0.01, 7.0))
    sums.note("b", page(4, 0.01))
    found = samples(sums.text())
    assert total(found, "requests_total", endpoint="/v1/models", model='a"b\\c', status="200") == 7
    assert total(found, "time_to_first_token_seconds_bucket", model="m", le="0.05") == 2
    assert total(found, "time_to_first_token_seconds_count", model="m") == 3
    assert total(found, "completion_tokens_total", model="m") == 20
    assert total(found, "uptime_seconds") == 60 and total(found, "front_resident_bytes") == 10
    assert list(text_string_to_metric_families(sums.text()))


def test_what_a_server_counted_before_it_was_started_again_stays() -> None:
    sums = MetricSums()
    sums.note("a", page(5))
    sums.away("a")
    found = samples(sums.text())
    assert total(found, "requests_total", endpoint="/v1/models", model='a"b\\c', status="200") == 5
    assert ("edgellm_front_resident_bytes", frozenset()) not in found
    sums.note("a", page(2))
    sums.note("a", page(3))
    found = samples(sums.text())
    assert total(found, "requests_total", endpoint="/v1/models", model='a"b\\c', status="200") == 8


def test_pages_that_are_none_change_nothing() -> None:
    sums = MetricSums()
    sums.note("a", page(1))
    before = sums.text()
    for wrong in ("", "<html>", "edgellm_requests_total nan", "edgellm_requests_total{x} 1", "edgellm_up{a=\"b\"} inf",
                  "# TYPE edgellm_x", "\x00", 'edgellm_requests_total{a="b\n"} 1', "edgellm_uptime_seconds -1",
                  "edgellm_requests_total{" + 'a="b",' * 9999 + "} 1", "edgellm_unknown 1"):  # fmt: skip
        sums.note("b", wrong)
        assert sums.text() == before, wrong
    for n in range(5000):
        name = "".join(chr(ord("a") + int(digit)) for digit in str(n))
        sums.note("b", f"# TYPE edgellm_{name} counter\nedgellm_{name} 1\n")
    assert sums.text().count("# TYPE") <= MOST_FAMILIES
