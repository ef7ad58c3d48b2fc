"""What a front costs: its CPU time for a request, and for an event of a stream that comes alone.

python -m tests.serve.upstreams.pass_cost
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading

import psutil

from tests.serve.server import Server
from tests.serve.upstreams.scripted import Answer, Scripted

CHAT = "/v1/chat/completions"
EVENT = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": " word"}}]}).encode() + b"\n\n"
N_STREAMS, N_EVENTS, N_REQUESTS = 16, 400, 400
BODY = {"model": "smollm2", "messages": [{"role": "user", "content": "Hello. " * 500}]}


def stream(answer: Answer) -> None:
    answer.stream()
    for _ in range(N_EVENTS):
        answer.chunk(EVENT)
        answer.wait(0.005)
    answer.end()


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def main() -> None:
    with tempfile.TemporaryDirectory() as home, Scripted() as upstream:
        upstream.scripts[CHAT] = lambda answer: answer.json({"choices": []})
        with Server.start("--upstreams", upstream.url, env={"HOME": home, "EDGELLM_HOME": home}) as front:
            process = psutil.Process(front.process.pid)
            front.post(CHAT, BODY)
            before = cpu_seconds(process)
            for _ in range(N_REQUESTS):
                front.post(CHAT, BODY)
            middle = cpu_seconds(process)
            upstream.scripts[CHAT] = stream
            threads = [threading.Thread(target=front.post, args=(CHAT, BODY)) for _ in range(N_STREAMS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            after = cpu_seconds(process)
            memory = process.memory_info().rss
    per_request = (middle - before) / N_REQUESTS
    per_event = (after - middle - per_request * N_STREAMS) / (N_STREAMS * N_EVENTS)
    sys.stdout.write(
        f"{per_request * 1e3:.2f} ms a request, {per_event * 1e6:.0f} us an event, {memory / 1e6:.0f} MB\n"
    )


if __name__ == "__main__":
    main()
