"""The answer cache of a server: every protocol, in front of a fake llama-server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgellm.cache.answer_cache import AnswerCache
from edgellm.cache.store import AnswerStore
from edgellm.serve.answer.cached import CachedAnswers
from edgellm.serve.app import application
from edgellm.serve.options import ServeOptions
from tests.serve.test_service import CHAT, House, directory, house, lines, usage_of, within

__all__ = ["directory"]
COLD = {"temperature": 0, "messages": [{"role": "user", "content": "How do I delete my account?"}]}
ALIKE = {"temperature": 0, "messages": [{"role": "user", "content": "Tell me the steps to remove the account I have."}]}
CHATS: dict[str, dict[str, Any]] = {
    CHAT: COLD,
    "/v1/responses": {"temperature": 0, "input": "How do I delete my account?"},
    "/v1/messages": {"model": "fake", "max_tokens": 64, **COLD},
    "/api/chat": {"messages": COLD["messages"], "options": {"temperature": 0}},
}


@asynccontextmanager
async def cached_house(directory: Path, *, sampled: bool = False, broken: bool = False) -> AsyncIterator[House]:
    async def embed(question: str) -> Any:
        return np.array([1, 0] if "delete" in question else [0.8, 0.6], np.float32)

    store = AnswerStore.open(directory / "answers.sqlite3")
    if broken:
        store.close()
    cache = AnswerCache(store, embedder="e", draw=lambda: 0.5)
    async with house(directory, options=ServeOptions(n_slots=2, n_ctx=512)) as made:
        made.service = replace(made.service, answers=CachedAnswers(cache, embed=embed, sampled=sampled))
        made.app = application(made.service, on_request=made.handled.append)
        yield made


def test_every_protocol_gives_the_stored_answer_whole_and_as_a_stream(directory: Path) -> None:
    async def work() -> None:
        async with cached_house(directory) as made:
            for number, (path, asked) in enumerate(CHATS.items(), 1):
                body = json.loads(json.dumps(asked).replace("account", f"account {number}"))
                first = await made.post(path, {**body, "stream": False})
                assert first.status == 200 and first.headers and first.headers["x-edgellm-cache"] == "miss"
                n_asked = len(made.asked)
                again = await made.post(path, {**body, "stream": False})
                assert again.headers and again.headers["x-edgellm-cache"].startswith("hit; similarity=1.00; age=")
                fresh, known = first.json(), again.json()
                assert known["edgellm"]["cache"]["similarity"] == 1 and "edgellm" not in fresh
                assert usage_of(known)[1] == usage_of(fresh)[1]
                assert said(path, known) == said(path, fresh) != ""
                stream = await made.post(path, {**body, "stream": True})
                assert stream.is_whole and stream.headers and stream.headers["x-edgellm-cache"].startswith("hit")
                assert b'"cache"' in stream.body and streamed(path, lines(stream)) == said(path, fresh)
                assert len(made.asked) == n_asked, path
            assert made.metrics.looked == {("fake", "miss"): len(CHATS), ("fake", "hit"): 2 * len(CHATS)}
            page = await made.ask("GET", "/metrics", None)
            assert b'edgellm_answer_cache_total{model="fake",result="hit"} 8' in page.body
            status = (await made.ask("GET", "/status.json", None)).json()
            assert (status["models"][0]["cache_hits"], status["models"][0]["cache_misses"]) == (8, 4)

    within(work())


def said(path: str, answer: dict[str, Any]) -> str:
    """The text of a whole answer."""
    match path:
        case "/v1/responses":
            return "".join(part["text"] for item in answer["output"] if item["type"] == "message"
                           for part in item["content"])  # fmt: skip
        case "/v1/messages":
            return "".join(block["text"] for block in answer["content"] if block["type"] == "text")
        case "/api/chat":
            return str(answer["message"]["content"])
    return str(answer["choices"][0]["message"]["content"])


def streamed(path: str, events: list[Any]) -> str:
    """The text of a stream."""
    match path:
        case "/v1/responses":
            return "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")
        case "/v1/messages":
            return "".join(each["delta"].get("text", "") for each in events if each["type"] == "content_block_delta")
        case "/api/chat":
            return "".join(each["message"]["content"] for each in events)
    return "".join(each["choices"][0]["delta"].get("content") or "" for each in events if each["choices"])


def test_a_question_of_the_same_meaning_is_answered_and_a_near_miss_is_not(directory: Path) -> None:
    async def work() -> None:
        async with cached_house(directory) as made:
            await made.post(CHAT, COLD)
            alike = await made.post(CHAT, ALIKE)
            assert alike.headers and alike.headers["x-edgellm-cache"].startswith("hit; similarity=0.80")
            assert "question" not in alike.json()["edgellm"]["cache"]
            near = json.loads(json.dumps(COLD).replace("delete", "create"))
            assert (await made.post(CHAT, near)).headers["x-edgellm-cache"] == "miss"  # type: ignore[index]

    within(work())


def test_requests_that_are_not_for_the_cache(directory: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    begun = [*COLD["messages"], {"role": "assistant", "content": "You"}]
    called = [
        *COLD["messages"],
        {"role": "assistant", "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "user", "content": "And?"},
    ]
    others: list[dict[str, Any]] = [
        {"temperature": 0.7}, {"temperature": None}, {"tools": [tool]}, {"logprobs": True}, {"n": 2},
        {"messages": begun}, {"messages": called},
    ]  # fmt: skip

    async def work() -> None:
        async with cached_house(directory) as made:
            await made.post(CHAT, COLD)
            for other in others:
                answer = await made.post(CHAT, {**COLD, **other})
                assert answer.status == 200 and answer.headers and "x-edgellm-cache" not in answer.headers, other
            fresh = await made.ask("POST", CHAT, COLD, cache_control="no-cache")
            assert fresh.headers and "x-edgellm-cache" not in fresh.headers

    within(work())


def test_another_system_message_model_setting_or_history_is_another_scope(directory: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    earlier = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    others: list[dict[str, Any]] = [
        {"messages": [system, *COLD["messages"]]}, {"messages": [*earlier, *COLD["messages"]]}, {"max_tokens": 5},
        {"stop": ["."]},
    ]  # fmt: skip

    async def work() -> None:
        async with cached_house(directory) as made:
            await made.post(CHAT, COLD)
            for other in others:
                answer = await made.post(CHAT, {**COLD, **other})
                assert answer.headers and answer.headers["x-edgellm-cache"] == "miss", other

    within(work())


def test_sampled_answers_are_kept_where_that_is_asked_for(directory: Path) -> None:
    async def work() -> None:
        async with cached_house(directory, sampled=True) as made:
            for expected in ("miss", "hit"):
                answer = await made.post(CHAT, {**COLD, "temperature": 0.7})
                assert answer.headers and answer.headers["x-edgellm-cache"].startswith(expected)

    within(work())


def test_a_cache_that_cannot_be_used_costs_no_answer(directory: Path) -> None:
    async def work() -> None:
        async with cached_house(directory, broken=True) as made:
            for _ in range(2):
                answer = await made.post(CHAT, COLD)
                assert answer.status == 200 and answer.headers and answer.headers["x-edgellm-cache"] == "miss"

    within(work())


def test_an_answer_that_the_client_left_is_not_kept(directory: Path) -> None:
    async def work() -> None:
        async with cached_house(directory) as made:
            made.fake.play(until_stopped=True)
            await made.post(CHAT, {**COLD, "stream": True}, leaves_after=2)
            store = AnswerStore.open(directory / "answers.sqlite3")
            assert store.entries() == []
            store.close()

    within(work())
