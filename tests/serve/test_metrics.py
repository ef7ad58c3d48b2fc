"""GET /metrics, read as Prometheus reads it, and the names that docs/reference/metrics.md lists."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgellm.commands import ps
from edgellm.run.events import Cut, End, Event, Text
from edgellm.serve.http.current import Handled
from edgellm.serve.metrics import Metrics
from edgellm.serve.watch.prometheus import text
from edgellm.serve.watch.status import Status
from edgellm.units import size
from tests.serve.server import Server

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference" / "metrics.md"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
SMOLLM2 = frozenset({("model", "smollm2")})
EMPTY = Status("1.0", 1, 0.0, 60.0, 5, 6, 7, 8, 0, 0, 2, ())


def samples(page: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_counts_and_buckets_add_up() -> None:
    metrics = Metrics()
    for seconds in (0.01, 0.05, 0.3, 500):
        metrics.models["m"].first_token(seconds)
    for predicted in (11, 21, 31):
        timings = {"prompt_n": 4, "prompt_ms": 8, "cache_n": 6, "predicted_n": predicted, "predicted_ms": 1000}
        asyncio.run(_drain(metrics, [End("stop", timings=timings)]))
    metrics.request(Handled(endpoint="/v1/models", model='a"b\\c\n', status=200))
    metrics.request(Handled(endpoint="other"))
    found = samples(text(EMPTY, metrics))
    model = ("model", "m")
    bucket = "edgellm_time_to_first_token_seconds_bucket"
    assert found[bucket, frozenset({model, ("le", "0.05")})] == 2
    assert found[bucket, frozenset({model, ("le", "0.5")})] == 3
    assert found[bucket, frozenset({model, ("le", "+Inf")})] == 4
    assert found["edgellm_time_to_first_token_seconds_sum", frozenset({model})] == pytest.approx(500.36)
    assert found["edgellm_prompt_tokens_total", frozenset({model})] == 30
    assert found["edgellm_cached_tokens_total", frozenset({model})] == 18
    assert found["edgellm_completion_tokens_total", frozenset({model})] == 63
    assert found["edgellm_decode_seconds_total", frozenset({model})] == 3
    labels = frozenset({("endpoint", "/v1/models"), ("model", 'a"b\\c\n'), ("status", "200")})
    assert found["edgellm_requests_total", labels] == 1
    assert found["edgellm_requests_total", frozenset({("endpoint", "other"), ("model", ""), ("status", "gone")})] == 1


async def _drain(metrics: Metrics, events: list[Event], *, leave_early: bool = False) -> None:
    async def answer() -> AsyncIterator[Event]:
        for event in events:
            yield event

    async with aclosing(metrics.watch("m", answer(), time.perf_counter())) as watched:
        async for _ in watched:
            if leave_early:
                return


def test_answers_are_counted_by_how_they_ended() -> None:
    metrics = Metrics()
    asyncio.run(_drain(metrics, [Text("a"), End("stop")], leave_early=True))
    asyncio.run(_drain(metrics, [Text("a"), End("stop", cut=Cut("repetition", "a", 40, 1))]))
    asyncio.run(_drain(metrics, [Text(""), Text("a"), End("length")]))
    assert metrics.models["m"].ended == {"cancelled": 1, "repetition": 1, "itself": 1}
    assert len(metrics.models["m"].ttfts) == 3
    with pytest.raises(KeyboardInterrupt), metrics.scoring("m"):
        raise KeyboardInterrupt
    with metrics.scoring("m"):
        pass
    assert metrics.models["m"].ended == {"cancelled": 2, "repetition": 1, "itself": 2}


@pytest.mark.engine
@pytest.mark.model
def test_a_server_counts_what_it_does(server: Server) -> None:
    before = samples(server.get("/metrics").body.decode())
    loop = {"model": "smollm2", "prompt": "Yes, I am good. " * 12, "temperature": 0, "max_tokens": 1500}
    answer = server.post("/v1/completions", loop).json()
    server.get("/no/such/path")
    server.get("/v1/models/smollm2")
    server.post("/v1/embeddings", {"model": "bert", "input": "the cat"})
    reply = server.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    after = samples(reply.body.decode())

    def grown(name: str, **labels: str) -> float:
        key = (f"edgellm_{name}", frozenset(labels.items()))
        return after[key] - before.get(key, 0)

    assert grown("requests_total", endpoint="/v1/completions", model="smollm2", status="200") == 1
    assert grown("requests_total", endpoint="/v1/models/{name:path}", model="", status="200") == 1
    assert grown("requests_total", endpoint="/v1/embeddings", model="bert", status="200") == 1
    assert grown("requests_total", endpoint="other", model="", status="404") == 1
    assert grown("completion_tokens_total", model="smollm2") == answer["usage"]["completion_tokens"]
    assert grown("prompt_tokens_total", model="smollm2") == answer["usage"]["prompt_tokens"]
    assert grown("prompt_tokens_total", model="bert") > 0
    assert grown("loops_stopped_total", model="smollm2") == 1
    assert grown("time_to_first_token_seconds_count", model="smollm2") == 1
    assert after["edgellm_model_loaded", SMOLLM2] == 1 and after["edgellm_slots", SMOLLM2] == 2
    assert after["edgellm_worker_resident_bytes", SMOLLM2] > 90_000_000
    assert after["edgellm_worker_restarts_total", frozenset()] == 0
    assert after["edgellm_requests_in_flight", SMOLLM2] == 0
    # Every family is documented, and nothing else is.
    families = set(re.findall(r"^# TYPE (\S+)", reply.body.decode(), re.MULTILINE))
    assert families == set(re.findall(r"^\| `(edgellm_\w+)", REFERENCE.read_text(), re.MULTILINE))


@pytest.mark.engine
@pytest.mark.model
def test_the_process_that_scores_is_told_of_too(server: Server) -> None:
    asked = {"model": "smollm2", "prompt": "The sky is blue", "echo": True, "logprobs": 1, "max_tokens": 0}
    assert server.post("/v1/completions", asked).status == 200
    (model,) = [each for each in server.get("/status.json").json()["models"] if each["name"] == "smollm2"]
    assert model["scoring_resident_bytes"] > 90_000_000 and model["scoring_in_flight"] == 0
    assert psutil.Process(model["scoring_pid"]).is_running() and model["scoring_pid"] != model["pid"]
    memory = samples(server.get("/metrics").body.decode())["edgellm_scoring_resident_bytes", SMOLLM2]
    assert memory == pytest.approx(model["scoring_resident_bytes"], rel=0.1)
    row = model | {"resident_bytes": None, "state": "not loaded", "idle_seconds": None, "in_flight": 0}
    assert ps.described(row)[1] == "scoring, idle" and ps.described(row)[3] == size(model["scoring_resident_bytes"])
