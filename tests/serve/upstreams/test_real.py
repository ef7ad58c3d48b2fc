"""A front over real servers with the embedded model: caches that are hit, servers that are killed and stopped."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.commands.cli import edgellm
from tests.serve.server import Server
from tests.serve.test_metrics import samples
from tests.serve.upstreams.conftest import until

pytestmark = [pytest.mark.engine, pytest.mark.model]
CHAT = "/v1/chat/completions"
OPTIONS = ("smollm2", "--slots", "2", "--ctx-size", "1024", "--prompt-cache", "off")


@pytest.fixture(scope="module")
def servers(start: Callable[..., Server]) -> Iterator[list[Server]]:
    found = [start(*OPTIONS), start(*OPTIONS)]
    yield found
    for server in found:
        server.stop()


@pytest.fixture(scope="module")
def front(starts_front: Callable[..., Server], servers: list[Server]) -> Server:
    front = starts_front([server.url for server in servers])
    for server in servers:  # load the models now
        assert server.post("/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200
    return front


def test_conversations_stay_where_they_are_cached(front: Server) -> None:
    conversations: list[list[dict[str, str]]] = [[], []]
    usages = []
    for turn in range(3):
        for n, messages in enumerate(conversations):  # in turns: each has a slot, on whichever server
            question = f"Conversation {n}, turn {turn}. " + "Tell me about the sea and its ships. " * 3
            messages.append({"role": "user", "content": question})
            reply = front.post(CHAT, {"model": "smollm2", "messages": messages, "max_tokens": 6, "temperature": 0})
            assert reply.status == 200, reply.body
            messages.append(reply.json()["choices"][0]["message"])
            usages.append(reply.json()["usage"])
    shares = [usage["prompt_tokens_details"]["cached_tokens"] / usage["prompt_tokens"] for usage in usages[2:]]
    assert len(shares) == 4 and min(shares) > 0.4
    assert sum(each["cache_hits"] for each in front.get("/status.json").json()["upstreams"]) >= 4


def test_metrics_and_status_are_those_of_all(front: Server, servers: list[Server]) -> None:
    pages = [samples(server.get("/metrics").body.decode()) for server in servers]
    found = samples(front.get("/metrics").body.decode())
    key = ("edgellm_completion_tokens_total", frozenset({("model", "smollm2")}))
    assert found[key] == sum(page[key] for page in pages) > 0
    model = until(lambda: _loaded(front))  # what the front knows may be a second old
    assert model["n_slots"] == 4 and model["n_ctx"] == 1024
    (listed,) = front.get("/v1/models").json()["data"]
    assert listed["id"] == "smollm2" and listed["max_model_len"] == 1024


def _loaded(front: Server) -> dict[str, Any] | None:
    (model,) = front.get("/status.json").json()["models"]
    return model if model["state"] == "loaded" else None


def test_verbs_use_a_front_as_a_server(front: Server, front_home: dict[str, str]) -> None:
    listed = edgellm("ps", "--json", env=front_home)
    assert front.url in [each["url"] for each in json.loads(listed.stdout)["data"]]
    answer = edgellm("run", "smollm2", "Hello", "-n", "4", "--server", front.url, env=front_home)
    assert answer.returncode == 0 and answer.stdout.strip()


def stream(front: Server, body: dict[str, Any], begun: threading.Event) -> bytes:
    request = urllib.request.Request(front.url + CHAT, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        data: bytes = reply.read(60)
        begun.set()
        rest: bytes = reply.read()
        return data + rest


def test_a_killed_server_is_told_of_and_comes_back(
    start: Callable[..., Server], starts_front: Callable[..., Server], serve_home: dict[str, str]
) -> None:
    victim = start(*OPTIONS)
    front = starts_front([victim.url])
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 900, "stream": True}
    body["ignore_eos"] = True
    begun, found = threading.Event(), []
    asking = threading.Thread(target=lambda: found.append(stream(front, body, begun)))
    asking.start()
    assert begun.wait(60)
    victim.process.kill()
    asking.join(60)
    victim.stop()
    last = found[0].decode().strip().splitlines()[-1]
    assert "went away in the middle" in json.loads(last.removeprefix("data: "))["error"]["message"]
    refused = front.post(CHAT, {**body, "stream": False})
    assert refused.status == 503 and refused.headers["Retry-After"]
    with Server.start(*OPTIONS, env=serve_home, port=victim.port):
        until(lambda: front.get("/health").status == 200)
        reply = front.post(CHAT, {**body, "stream": False, "max_tokens": 2})
        assert reply.status == 200, reply.body


@pytest.mark.soak
def test_a_server_that_hangs_loses_what_it_has(
    start: Callable[..., Server], starts_front: Callable[..., Server]
) -> None:
    victim = start(*OPTIONS)
    front = starts_front([victim.url])
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "Count."}], "max_tokens": 900, "stream": True}
    begun, found = threading.Event(), []
    asking = threading.Thread(target=lambda: found.append(stream(front, {**body, "ignore_eos": True}, begun)))
    asking.start()
    assert begun.wait(60)
    os.kill(victim.process.pid, signal.SIGSTOP)
    asking.join(60)
    os.kill(victim.process.pid, signal.SIGCONT)
    assert b"went away in the middle" in found[0]
    until(lambda: front.get("/health").status == 200)
    victim.stop()
