"""GET /metrics: the counts of a server in Prometheus' text format.

text(status_of(service), service.metrics)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import accumulate

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from edgellm.serve.http.openapi import gives
from edgellm.serve.metrics import TTFT_BOUNDS, Figures, Metrics
from edgellm.serve.service import service_of
from edgellm.serve.watch.status import LOADED, Status, status_of

FORMAT = "text/plain; version=0.0.4; charset=utf-8"
Number = float | int | bool | None
Sample = tuple[dict[str, str], Number]


@gives("text/plain")
async def metrics(request: Request) -> Response:
    """GET /metrics."""
    service = service_of(request)
    return Response(text(status_of(service), service.metrics), media_type=FORMAT)


ROUTES = [Route("/metrics", metrics, methods=["GET"])]


def text(status: Status, counts: Metrics) -> str:
    """The whole page; the last line ends with a newline too."""
    return "".join(f"{line}\n" for line in (*_of_server(status, counts), *_of_models(status), *_of_answers(counts)))


def _of_server(status: Status, counts: Metrics) -> Iterator[str]:
    yield from _family("info", "gauge", "The version of edgellm.", [({"version": status.version}, 1)])
    yield from _family("uptime_seconds", "gauge", "Since the server began.", [({}, status.uptime_seconds)])
    requests = [
        ({"endpoint": endpoint, "model": model, "status": code}, count)
        for (endpoint, model, code), count in sorted(counts.requests.items())
    ]
    yield from _family("requests_total", "counter", "Requests that are over.", requests)
    restarts = "Workers that ended by themselves."
    yield from _family("worker_restarts_total", "counter", restarts, [({}, status.worker_restarts)])
    yield from _family("front_resident_bytes", "gauge", "Memory of the front.", [({}, status.resident_bytes)])
    peak = "The most memory that the front ever had."
    yield from _family("front_peak_resident_bytes", "gauge", peak, [({}, status.peak_resident_bytes)])
    yield from _family("memory_available_bytes", "gauge", "What may still be taken.", [({}, status.available_bytes)])


def _of_models(status: Status) -> Iterator[str]:
    def family(name: str, kind: str, help_text: str, values: Iterable[Number]) -> Iterator[str]:
        names = ({"model": model.name} for model in status.models)
        return _family(name, kind, help_text, zip(names, values, strict=True))

    models = status.models
    yield from family("model_loaded", "gauge", "Whether it is in memory.", [each.state == LOADED for each in models])
    yield from family("slots", "gauge", "Requests answered at once.", [each.n_slots for each in models])
    yield from family("context_tokens", "gauge", "Context of a request.", [each.n_ctx for each in models])
    yield from family("requests_in_flight", "gauge", "Answered or waiting.", [each.in_flight for each in models])
    yield from family("requests_waiting", "gauge", "Those without a slot.", [each.waiting for each in models])
    yield from family(
        "worker_resident_bytes", "gauge", "Memory of the worker.", [each.resident_bytes for each in models]
    )
    peak = "The most memory that the worker ever had."
    yield from family("worker_peak_resident_bytes", "gauge", peak, [each.peak_resident_bytes for each in models])
    cpu = "User and system time of the worker."
    yield from family("worker_cpu_seconds_total", "counter", cpu, [each.cpu_seconds for each in models])
    scoring = "Memory of the process that scores prompts."
    yield from family("scoring_resident_bytes", "gauge", scoring, [each.scoring_resident_bytes for each in models])
    recent = "tokens per second, median of the last answers."
    yield from family("prefill_tokens_per_second", "gauge", f"Prompt {recent}", [each.prefill_rate for each in models])
    yield from family("decode_tokens_per_second", "gauge", f"Answer {recent}", [each.decode_rate for each in models])


def _of_answers(counts: Metrics) -> Iterator[str]:
    def family(name: str, help_text: str, value: str) -> Iterator[str]:
        samples = [({"model": model}, getattr(figures, value)) for model, figures in sorted(counts.models.items())]
        return _family(name, "counter", help_text, samples)

    yield from family("prompt_tokens_total", "Tokens of prompts, cached ones included.", "prompt_tokens")
    yield from family("cached_tokens_total", "Tokens of prompts that were in the cache.", "cached_tokens")
    yield from family("restored_tokens_total", "Cached tokens that came from disk.", "restored_tokens")
    yield from family("completion_tokens_total", "Tokens of answers.", "completion_tokens")
    yield from family("drafted_tokens_total", "Tokens that were drafted for answers.", "drafted_tokens")
    yield from family("accepted_tokens_total", "Those that were right; they needed no pass.", "accepted_tokens")
    yield from family("prefill_seconds_total", "Time spent on prompts.", "prefill_seconds")
    yield from family("decode_seconds_total", "Time spent on answers.", "decode_seconds")
    looked = [({"model": model, "result": result}, count) for (model, result), count in sorted(counts.looked.items())]
    yield from _family("answer_cache_total", "counter", "Questions that the answer cache had, or had not.", looked)
    called = [({"tool": tool, "outcome": outcome}, count) for (tool, outcome), count in sorted(counts.called.items())]
    yield from _family("tool_calls_total", "counter", "Calls of tools that the server ran: done, failed.", called)
    ended = [
        ({"model": model, "reason": reason}, count)
        for model, figures in sorted(counts.models.items())
        for reason, count in sorted(figures.ended.items())
    ]
    why = "Answers by how they ended: itself, cancelled, repetition, time."
    yield from _family("answers_total", "counter", why, ended)
    loops = [({"model": model}, figures.ended["repetition"]) for model, figures in sorted(counts.models.items())]
    yield from _family("loops_stopped_total", "counter", "Answers ended for endless repetition.", loops)
    yield from _head("time_to_first_token_seconds", "histogram", "From the worker being asked to the first text.")
    for model, figures in sorted(counts.models.items()):
        yield from _histogram("time_to_first_token_seconds", model, figures)


def _histogram(name: str, model: str, figures: Figures) -> Iterator[str]:
    bounds = [*map(str, TTFT_BOUNDS), "+Inf"]
    for bound, count in zip(bounds, accumulate(figures.ttft_counts), strict=True):
        yield _line(f"{name}_bucket", {"model": model, "le": bound}, count)
    yield _line(f"{name}_sum", {"model": model}, figures.ttft_sum)
    yield _line(f"{name}_count", {"model": model}, sum(figures.ttft_counts))


def _family(name: str, kind: str, help_text: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield from _head(name, kind, help_text)
    for labels, value in samples:
        if value is not None:
            yield _line(name, labels, value)


def _head(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP edgellm_{name} {help_text}"
    yield f"# TYPE edgellm_{name} {kind}"


def _line(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"edgellm_{name}{f'{{{pairs}}}' if pairs else ''} {float(value):.12g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
