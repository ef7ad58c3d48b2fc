"""OpenAI's endpoints, against a real server."""

import pytest

from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


def test_an_answer_streamed_and_whole_is_the_same(server: Server) -> None:
    body = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "max_tokens": 12}
    whole = server.post("/v1/chat/completions", body).json()
    assert "Paris" in whole["choices"][0]["message"]["content"] and whole["usage"]["completion_tokens"] > 3
    events = server.post("/v1/chat/completions", {**body, "stream": True}).events()
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert text == whole["choices"][0]["message"]["content"]
    # Where a client stops reading it has all the numbers.
    last = events[-1]
    assert last["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]
    assert last["usage"]["completion_tokens"] == last["timings"]["predicted_n"] == whole["usage"]["completion_tokens"]


def test_vectors_in_both_encodings(server: Server) -> None:
    reply = server.post("/v1/embeddings", {"model": "bert", "input": "the cat", "dimensions": None})
    assert len(reply.json()["data"][0]["embedding"]) == 384


def test_a_loop_is_ended(server: Server) -> None:
    prompt = "Yes, I am good. " * 12
    body = {"model": "smollm2", "prompt": prompt, "temperature": 0, "max_tokens": 1500}
    reply = server.post("/v1/completions", body).json()
    assert reply["choices"][0]["finish_reason"] == "length"
    assert reply["edgellm"]["finish_reason"] == "repetition" and "good" in reply["edgellm"]["repeated"]
    assert reply["usage"]["completion_tokens"] < 400
    assert reply["choices"][0]["text"].count("I am good") <= 1


def test_what_is_not_known_is_refused_by_name(server: Server) -> None:
    reply = server.post("/v1/chat/completions", {"messages": QUESTION, "max_tokns": 3})
    assert reply.status == 400 and reply.json()["error"]["param"] == "max_tokns"
    assert "max_tokens" in reply.json()["error"]["message"]
