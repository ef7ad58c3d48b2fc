"""A server drafts tokens, and its answers are those of one that does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]

STORY = "The keeper counted the ships twice. The ships were late, and the lamp was low. The keeper polished the lamp."
PERSON = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
          "required": ["name", "age"], "additionalProperties": False}  # fmt: skip
PEOPLE = {"type": "array", "items": PERSON, "minItems": 2, "maxItems": 3}
FORM = {"type": "json_schema", "json_schema": {"name": "people", "schema": PEOPLE}}


def ask(content: str, **more: Any) -> dict[str, Any]:
    return {"model": "smollm2", "messages": [{"role": "user", "content": content}], "max_tokens": 40, **more}


REQUESTS = [
    ask(f"Repeat this text word by word:\n{STORY}", temperature=0),
    ask(f"Repeat this text word by word:\n{STORY}", temperature=0.7, seed=4),
    ask("Invent two people.", temperature=0.7, seed=5, response_format=FORM),
    ask(f"Repeat this text word by word:\n{STORY}", temperature=0, stop=["lamp"]),
    ask("Write a story about a lamp.", temperature=0.9, seed=6, frequency_penalty=0.5, max_tokens=17),
]


@pytest.fixture(scope="module")
def drafting(start: Callable[..., Server]) -> Iterator[Server]:
    with start("smollm2", "--slots", "2", "--ctx-size", "1024") as server:
        yield server


@pytest.fixture(scope="module")
def plain(start: Callable[..., Server]) -> Iterator[Server]:
    with start("smollm2", "--slots", "2", "--ctx-size", "1024", "--draft", "off") as server:
        yield server


def answer(server: Server, request: dict[str, Any]) -> dict[str, Any]:
    return server.post("/v1/chat/completions", request).json()  # type: ignore[no-any-return]


def said(whole: dict[str, Any]) -> tuple[str, str, int]:
    (choice,) = whole["choices"]
    return choice["message"]["content"], choice["finish_reason"], whole["usage"]["completion_tokens"]


def test_answers_are_the_same_with_drafts_and_are_counted(drafting: Server, plain: Server) -> None:
    drafted, expected = ([answer(server, each) for each in REQUESTS] for server in (drafting, plain))
    assert [said(each) for each in drafted] == [said(each) for each in expected]
    assert not any("draft_n" in each["timings"] for each in expected)
    counts = [(each["timings"].get("draft_n", 0), each["timings"].get("draft_n_accepted", 0)) for each in drafted]
    n_drafted, n_accepted = map(sum, zip(*counts, strict=True))
    assert 0 < n_accepted <= n_drafted and counts[0][1] > 5
    page = drafting.request("GET", "/metrics").body.decode()
    found = {sample.name: sample.value for family in text_string_to_metric_families(page) for sample in family.samples}
    assert found["edgellm_drafted_tokens_total"] == n_drafted
    assert found["edgellm_accepted_tokens_total"] == n_accepted


def test_a_stream_has_every_token_of_a_burst(drafting: Server) -> None:
    whole = answer(drafting, REQUESTS[0])
    events = drafting.post("/v1/chat/completions", {**REQUESTS[0], "stream": True}).events()
    pieces = [text for event in events if (text := event["choices"][0]["delta"].get("content"))]
    assert "".join(pieces) == said(whole)[0] and len(pieces) >= said(whole)[2] - 2
    assert events[-1]["timings"]["draft_n_accepted"] > 5


def test_log_probabilities_come_for_every_token(drafting: Server, plain: Server) -> None:
    asked = {**REQUESTS[0], "logprobs": True, "top_logprobs": 2}
    drafted, expected = answer(drafting, asked), answer(plain, asked)
    assert drafted["choices"][0]["logprobs"] == expected["choices"][0]["logprobs"]
    assert len(expected["choices"][0]["logprobs"]["content"]) >= 20 and "draft_n" not in drafted["timings"]
