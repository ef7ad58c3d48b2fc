"""A front over upstreams that answer, refuse, die, lie or flood."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.serve.server import Reply, Server, free_port
from tests.serve.test_metrics import samples
from tests.serve.upstreams.conftest import log_of, until
from tests.serve.upstreams.scripted import MODEL, Answer, Script, Scripted, status

Pair = tuple[Server, Scripted, Scripted]
CHAT, RESPONSES, MESSAGES, OLLAMA = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"
KEY = {"Authorization": "Bearer mine"}
BODY = {"model": "smollm2", "messages": [{"role": "user", "content": "Hi"}]}


def ask(front: Server, path: str = CHAT, body: Any = BODY, **headers: str) -> Reply:
    return front.post(path, body, headers={**KEY, **headers})


def plays(pair: Pair, script: Script, path: str = CHAT) -> None:
    """Let both upstreams answer alike."""
    for upstream in pair[1:]:
        upstream.scripts[path] = script
        upstream.seen.clear()


def n_asked(pair: Pair, path: str = CHAT) -> int:
    return sum(len(upstream.asked(path)) for upstream in pair[1:])


@pytest.fixture(autouse=True)
def all_up(pair: Pair) -> None:
    """No test begins with an upstream that counts as away because of the one before."""
    until(lambda: all(each["problem"] is None for each in get(pair, "/status.json").json()["upstreams"]))


def get(pair: Pair, path: str) -> Reply:
    return pair[0].get(path, headers=KEY)


def test_a_whole_answer_comes_as_it_is(pair: Pair) -> None:
    plays(
        pair, lambda answer: answer.json({"choices": [1, "ü"]}, Retry_After="7", Set_Cookie="no", X_Edgellm_Cache="hit")
    )
    raw = b'{"model" : "smollm2",  "messages":[{"role":"user","content":"Hi"}]}'
    reply = ask(pair[0], body=raw)
    assert (reply.status, reply.json()) == (200, {"choices": [1, "ü"]})
    assert reply.headers["X-Edgellm-Cache"] == "hit" and "Set-Cookie" not in reply.headers
    (seen,) = [each for upstream in pair[1:] for each in upstream.asked(CHAT)]
    assert seen.body == raw


def test_the_key_of_the_client_is_checked_and_the_upstreams_get_theirs(pair: Pair, front_home: dict[str, str]) -> None:
    plays(pair, lambda answer: answer.json({}))
    assert pair[0].post(CHAT, BODY).status == 401 and n_asked(pair) == 0
    assert ask(pair[0], Origin="http://evil.example").status == 403 and n_asked(pair) == 0
    assert pair[0].post(CHAT, BODY, headers={"X-Api-Key": "mine", "Cookie": "private"}).status == 200
    (seen,) = [each for upstream in pair[1:] for each in upstream.asked(CHAT)]
    assert seen.headers["Authorization"] == "Bearer theirs" and "Cookie" not in seen.headers
    assert "mine" not in str(seen.headers) and seen.headers["Via"].startswith("1.1 edgellm-")
    assert all(each.headers["Authorization"] == "Bearer theirs" for each in pair[1].asked("/status.json"))
    assert "theirs" not in log_of(front_home)


def test_paths_and_queries_are_passed_on(pair: Pair) -> None:
    path = "/v1/models/smollm2%2Fx"
    plays(pair, lambda answer: answer.json({"id": "smollm2"}), path)
    for upstream in pair[1:]:
        upstream.status = status(models=[MODEL, {**MODEL, "name": "smollm2/x"}])
    until(lambda: "smollm2/x" in str(get(pair, "/status.json").json()["models"]))
    assert get(pair, f"{path}?a=b%20c").json() == {"id": "smollm2"}
    (seen,) = [each for upstream in pair[1:] for each in upstream.asked(path)]
    assert seen.path == f"{path}?a=b%20c"
    for upstream in pair[1:]:
        upstream.status = status()


@pytest.mark.parametrize("dots", ["../../chats/1", "%2e%2e/%2e%2e/chats/1", f"{'a' * 300}/../../../chats/1", "./x"])
def test_a_path_leads_nowhere_else(pair: Pair, dots: str) -> None:
    assert get(pair, f"/v1/models/{dots}").status == 404
    assert not [each for upstream in pair[1:] for each in upstream.asked("/chats/1")]


def test_a_stream_comes_as_it_is(pair: Pair) -> None:
    pieces = [b'data: {"a"', b": 1}\n", b"\ndata: {}\n\n: ping\n\n", b"data: [DONE]\n\n"]

    def stream(answer: Answer) -> None:
        answer.stream()
        for piece in pieces:
            answer.chunk(piece)
            answer.wait(0.02)
        answer.end()

    plays(pair, stream)
    reply = ask(pair[0], body={**BODY, "stream": True})
    assert reply.body == b"".join(pieces) and reply.headers["Content-Type"].startswith("text/event-stream")


def test_what_had_not_begun_to_answer_is_asked_elsewhere(pair: Pair) -> None:
    deaths: list[int] = []

    def dies(how: int) -> Script:
        def script(answer: Answer) -> None:
            if deaths:
                answer.json({"choices": [how]})
                return
            deaths.append(how)
            if how == 1:  # a part of a whole answer
                answer.head(200, "application/json", Content_Length="100")
                answer.write(b'{"choices":')
            elif how == 2:  # a stream without a whole event
                answer.stream()
                answer.chunk(b'data: {"half":')
                answer.wait(0.1)
            answer.die()

        return script

    before = get(pair, "/status.json").json()["retries"]
    for how in (0, 1, 2):
        deaths.clear()
        plays(pair, dies(how))
        reply = ask(pair[0])
        assert (reply.status, reply.json(), n_asked(pair)) == (200, {"choices": [how]}, 2)
    assert get(pair, "/status.json").json()["retries"] == before + 3


@pytest.mark.parametrize(
    ("path", "begun", "half", "last"),
    [
        (CHAT, b'data: {"a": 1}\n\n', b'data: {"ha', b'data: {"error":'),
        (RESPONSES, b'event: a\ndata: {"a": 1}\n\n', b"event: b\n", b'event: error\ndata: {"type":"error"'),
        (MESSAGES, b'event: a\ndata: {"a": 1}\n\n', b"event: b\n", b'event: error\ndata: {"type":"error"'),
        (OLLAMA, b'{"message": {}}\n', b'{"mess', b'{"error":'),
    ],
)
def test_a_stream_that_breaks_off_says_so_in_its_own_words(
    pair: Pair, path: str, begun: bytes, half: bytes, last: bytes
) -> None:
    def breaks(answer: Answer) -> None:
        answer.stream("application/x-ndjson" if path == OLLAMA else "text/event-stream")
        answer.chunk(begun)
        answer.chunk(half)
        answer.wait(0.2)
        answer.die()

    plays(pair, breaks, path)
    reply = ask(pair[0], path)
    assert reply.status == 200 and n_asked(pair, path) == 1
    assert reply.body.startswith(begun + last), reply.body
    assert b"went away in the middle" in reply.body and json.loads(
        reply.body.rstrip().splitlines()[-1].removeprefix(b"data: ")
    )


def test_full_servers_are_429_with_the_shortest_wait(pair: Pair) -> None:
    front, one, other = pair
    plays(pair, lambda answer: answer.json({}, 429, Retry_After="9"))
    one.scripts[CHAT] = lambda answer: answer.json({}, 429, Retry_After="3")
    reply = ask(front)
    assert (reply.status, reply.headers["Retry-After"], n_asked(pair)) == (429, "3", 2)
    assert reply.json()["error"]["type"] == "rate_limit_error" and "2 of 2" in reply.json()["error"]["message"]
    other.scripts[CHAT] = lambda answer: answer.json({"done": True})
    assert ask(front).json() == {"done": True}


def test_servers_that_restart_are_503(pair: Pair) -> None:
    plays(pair, lambda answer: answer.json({}, 503, Retry_After="once more"))
    reply = ask(pair[0])
    assert (reply.status, reply.headers["Retry-After"], n_asked(pair)) == (503, "2", 2)


def test_errors_of_the_request_are_the_clients(pair: Pair) -> None:
    for code in (400, 404, 413, 422, 500):
        plays(pair, lambda answer, code=code: answer.json({"error": {"code": code}}, code))  # type: ignore[misc]
        reply = ask(pair[0])
        assert (reply.status, reply.json(), n_asked(pair)) == (code, {"error": {"code": code}}, 1)


def _flood(answer: Answer) -> None:
    answer.stream()
    with_no_end = b"x" * (1 << 20)
    for _ in range(40):
        answer.chunk(with_no_end)


def _endless_json(answer: Answer) -> None:
    answer.stream("application/json")
    for _ in range(100):
        answer.chunk(b" " * (1 << 20))


def _empty(answer: Answer) -> None:
    answer.stream()
    answer.end()


def _web_page(answer: Answer) -> None:
    answer.head(200, "text/html", Content_Length="6")
    answer.write(b"<html>")


HOSTILE: dict[str, Script] = {
    "a page": _web_page,
    "redirect": lambda answer: answer.json({}, 302, Location="http://127.0.0.1:9/"),
    "packed": lambda answer: answer.json({}, 200, Content_Encoding="gzip"),
    "not HTTP": lambda answer: answer.write(b"SSH-2.0-OpenSSH\r\n"),
    "a large head": lambda answer: answer.json({}, 200, X_Large="x" * 100_000),
    "wrong key": lambda answer: answer.json({}, 401),
    "a loop": lambda answer: answer.json({}, 508),
    "gateway": lambda answer: answer.json({}, 502),
    "an event without an end": _flood,
    "JSON without an end": _endless_json,
    "an empty stream": _empty,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_answer_that_is_none_is_asked_elsewhere_and_then_503(pair: Pair, name: str) -> None:
    front, _, other = pair
    plays(pair, HOSTILE[name])
    reply = ask(front)
    assert (reply.status, n_asked(pair)) == (503, 2), reply.body[:300]
    assert reply.headers["Retry-After"] and reply.json()["error"]["code"] == "no-upstream"
    other.scripts[CHAT] = lambda answer: answer.json({"right": True})
    assert ask(front).json() == {"right": True}


@pytest.mark.parametrize(
    "script",
    [
        lambda answer: answer.json([1]),
        lambda answer: answer.json({}, 500),
        lambda answer: (answer.stream("application/json"), [answer.chunk(b" " * (1 << 20)) for _ in range(20)])[0],
        lambda answer: answer.write(b"nonsense\r\n\r\n"),
        lambda answer: answer.json(status(models=[{"name": "x" * 10**6}] * 8)),
    ],
)
def test_a_status_that_is_none_takes_a_server_out(pair: Pair, script: Script) -> None:
    front, one, other = pair
    honest = one.scripts["/status.json"]
    plays(pair, lambda answer: answer.json({}))
    one.scripts["/status.json"] = script
    try:
        until(lambda: get(pair, "/status.json").json()["upstreams"][0]["problem"] or _has_no_model(pair))
        assert all(ask(front).status == 200 for _ in range(4))
        assert not one.asked(CHAT) and len(other.asked(CHAT)) == 4
    finally:
        one.scripts["/status.json"] = honest


def _has_no_model(pair: Pair) -> bool:
    return not get(pair, "/status.json").json()["upstreams"][0]["models"]


def test_lists_are_merged_with_the_shortest_context(pair: Pair) -> None:
    _, one, other = pair
    path = "/v1/models"
    entry = {"id": "smollm2", "max_model_len": 4096, "meta": {"n_ctx": 4096, "loaded": False}}
    shorter = {"id": "smollm2", "max_model_len": 2048, "meta": {"n_ctx": 2048, "loaded": True}}
    one.scripts[path] = lambda answer: answer.json({"object": "list", "data": [entry, {"id": "bert"}, 7]})
    other.scripts[path] = lambda answer: answer.json({"object": "list", "data": [shorter, {"id": ["no"]}]})
    data = get(pair, path).json()
    assert data["data"] == [shorter, {"id": "bert"}] and data["object"] == "list"
    other.scripts[path] = lambda answer: answer.write(b"nonsense")
    assert get(pair, path).json()["data"] == [entry, {"id": "bert"}]


def test_files_stay_where_they_are(pair: Pair) -> None:
    for path in ("/v1/files", "/v1/vector_stores/x/search"):
        reply = ask(pair[0], path, {})
        assert reply.status in (404, 405) and "error" in reply.json()
    assert get(pair, "/v1/files").json()["error"]["code"] == "not-here"
    assert get(pair, "/no/such").status == 404 and get(pair, "/v1/model").json()["error"]["message"].endswith(
        "/v1/models?"
    )


def test_a_model_that_nobody_has_is_404_in_the_words_of_each_protocol(pair: Pair) -> None:
    for path in (CHAT, RESPONSES, MESSAGES, OLLAMA):
        reply = ask(pair[0], path, {**BODY, "model": "smollm3"})
        assert reply.status == 404 and "did you mean smollm2" in reply.body.decode()
    assert ask(pair[0], OLLAMA, {"model": "x"}).json().keys() == {"error"}


def test_a_client_that_leaves_ends_its_answer(pair: Pair) -> None:
    ended: list[float] = []

    def endless(answer: Answer) -> None:
        answer.stream()
        try:
            for _ in range(600):
                answer.chunk(b"data: {}\n\n" * 50)
                answer.wait(0.05)
        finally:
            ended.append(time.monotonic())

    plays(pair, endless)
    request = urllib.request.Request(pair[0].url + CHAT, json.dumps(BODY).encode(), KEY)
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert reply.read(10)
    until(lambda: ended, 20)
    until(lambda: get(pair, "/status.json").json()["in_flight"] == 0)


def test_the_front_counts_what_it_does(pair: Pair) -> None:
    for upstream in pair[1:]:
        upstream.scripts["/metrics"] = lambda answer: _page(answer)
    reply = get(pair, "/metrics")
    found = samples(reply.body.decode())
    assert found["edgellm_requests_total", frozenset({("endpoint", "x")})] == 10
    url = ("upstream", pair[1].url)
    assert found["edgellm_upstream_up", frozenset({url})] == 1
    assert found["edgellm_upstream_answered_total", frozenset({url})] > 0
    assert found["edgellm_upstreams_retries_total", frozenset()] > 0


def _page(answer: Answer) -> None:
    body = b'# TYPE edgellm_requests_total counter\nedgellm_requests_total{endpoint="x"} 5\n'
    answer.head(200, "text/plain", Content_Length=str(len(body)))
    answer.write(body)


def test_fronts_that_lead_to_each_other_are_found_out(starts_front: Callable[..., Server]) -> None:
    ports = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    with Scripted({CHAT: lambda answer: answer.json({"right": True})}) as honest:
        one = starts_front([urls[1], honest.url], port=ports[0])
        other = starts_front([urls[0]], port=ports[1])
        until(lambda: "it leads back to this front" in _problems(one) | _problems(other))
        assert one.post(CHAT, BODY).json() == {"right": True}
        assert one.get("/metrics").status == 200
        statuses = {one.post(CHAT, BODY, headers={"Via": f"1.1 {each}"}).status for each in _fronts(one)}
        assert 508 in statuses <= {200, 508}


def _problems(front: Server) -> set[str]:
    return {each["problem"] for each in front.get("/status.json").json()["upstreams"] if each["problem"]}


def _fronts(front: Server) -> list[str]:
    fronts: list[str] = front.get("/status.json").json()["fronts"]
    return fronts


def test_without_any_server_it_says_so(starts_front: Callable[..., Server]) -> None:
    front = starts_front([f"http://127.0.0.1:{free_port()}"])
    for path in (CHAT, MESSAGES, "/v1/models"):
        reply = front.get(path) if path == "/v1/models" else front.post(path, BODY)
        assert (
            reply.status == 503 and reply.headers["Retry-After"] and "1 of 1 servers do not answer" in str(reply.json())
        )
    assert front.get("/health").status == 503 and front.get("/status.json").json()["models"] == []
    assert front.get("/").body == b"Ollama is running"
