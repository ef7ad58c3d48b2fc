"""From a request to its answer inside one process: every protocol in front of a fake llama-server, and its faults."""

import asyncio
import itertools
import json
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from edgellm.models.fit.memory import RunPlan
from edgellm.serve.answer.grammar_trial import GrammarTrial
from edgellm.serve.answer.truncation import LEFT_FOR_ANSWER
from edgellm.serve.app import application
from edgellm.serve.http.current import Handled
from edgellm.serve.metrics import Metrics
from edgellm.serve.options import ServeOptions
from edgellm.serve.scoring.pool import ScoringPool
from edgellm.serve.service import Service
from edgellm.serve.workers.catalog import Catalog, ServedModel
from edgellm.serve.workers.pool import Pool
from edgellm.serve.workers.worker import CONTROL, Worker
from tests.serve.fake_worker import FakeModel
from tests.serve.recordings import chunks, events, folded, refusal_of

SECONDS = 30.0
MESSAGES = {"messages": [{"role": "user", "content": "Hello"}]}
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
# The paths of the protocols, each with a request.
PROTOCOLS: dict[str, dict[str, Any]] = {
    CHAT: MESSAGES,
    COMPLETIONS: {"prompt": "Once"},
    "/v1/responses": {"input": "Hello"},
    "/v1/messages": {"model": "fake", "max_tokens": 64, **MESSAGES},
    "/api/chat": MESSAGES,
    "/api/generate": {"prompt": "Once", "raw": True},
}


@dataclass
class Answer:
    """What a client got; `is_whole` unless the connection was cut."""

    status: int = 0
    headers: dict[str, str] | None = None
    body: bytes = b""
    is_whole: bool = False

    def json(self) -> Any:
        return json.loads(self.body)


class House:
    """A service with one fake model, without a port."""

    def __init__(self, directory: Path, options: ServeOptions, **script: Any) -> None:
        self.fake = FakeModel(directory, **script)
        self.n_pieces = 0  # of the answer that came last
        self.handled: list[Handled] = []
        self.pool = Pool(Catalog([self.fake.model()]), options, self._start, n_threads=1)
        self.metrics = Metrics()
        scoring = ScoringPool(self.pool, options, directory, n_threads=1)
        trial = GrammarTrial(None)  # type: ignore[arg-type]  # no request here has a grammar to try
        self.service = Service(options, self.pool, scoring, trial, self.metrics)
        self.app: ASGIApp = application(self.service, on_request=self.handled.append)

    async def _start(self, model: ServedModel, plan: RunPlan) -> Worker:
        return await Worker.start(self.fake.program, model, plan, log=self.fake.path.with_suffix(".log"))

    @property
    def asked(self) -> list[dict[str, Any]]:
        """The bodies that llama-server got, without those that end an answer."""
        return [each["body"] for each in self.fake.requests if each["path"] != CONTROL]

    @property
    def n_ended(self) -> int:
        """How often an answer was ended by its id."""
        return sum(each["path"] == CONTROL and each["body"]["id"] != "none" for each in self.fake.requests)

    async def post(self, path: str, body: Any, *, leaves_after: int | None = None) -> Answer:
        """Ask; a client that leaves does so after so many pieces."""
        return await self.ask("POST", path, body, leaves_after=leaves_after)

    async def ask(
        self, method: str, path: str, body: Any, *, leaves_after: int | None = None, **headers: str
    ) -> Answer:
        """As `post`, with another method and further headers, whose names have `_` for `-`."""
        answer, gone, has_body = Answer(), asyncio.Event(), False
        self.n_pieces = 0

        async def receive() -> Message:
            nonlocal has_body
            if not has_body:
                has_body = True
                return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                return
            answer.body += message.get("body", b"")
            answer.is_whole = not message.get("more_body", False)
            self.n_pieces += 1
            if self.n_pieces == leaves_after:
                gone.set()

        pairs = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
                 "headers": pairs, "root_path": "", "scheme": "http", "http_version": "1.1"}  # fmt: skip
        await self.app(scope, receive, send)
        return answer


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: a socket's has at most 100 characters."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@asynccontextmanager
async def house(
    directory: Path, *, loop_guard: bool = True, options: ServeOptions | None = None, **script: Any
) -> AsyncIterator[House]:
    made = House(directory, options or ServeOptions(n_slots=2, n_ctx=512, loop_guard=loop_guard), **script)
    try:
        yield made
    finally:
        await made.pool.stop()


def within(work: Coroutine[Any, Any, None]) -> None:
    """Run it; a test that hangs fails."""
    asyncio.run(asyncio.wait_for(work, SECONDS))


def lines(answer: Answer) -> list[Any]:
    """The JSON in server-sent events, or in lines."""
    found = [line.removeprefix(b"data: ") for line in answer.body.splitlines()]
    return [json.loads(line) for line in found if line.startswith(b"{")]


def usage_of(answer: Any) -> tuple[int, int]:
    """The tokens of prompt and answer in the document, or in the last event, of any protocol."""
    inner = answer.get("response")
    usage = answer.get("usage") or (inner["usage"] if isinstance(inner, dict) else answer)
    names = (
        ("prompt_tokens", "completion_tokens"),
        ("input_tokens", "output_tokens"),
        ("prompt_eval_count", "eval_count"),
    )
    return next((usage[prompt], usage[answered]) for prompt, answered in names if prompt in usage)


def test_every_protocol_answers_whole_and_as_a_stream_with_its_counts(directory: Path) -> None:
    async def work() -> None:
        async with house(directory) as made:
            for path, body in PROTOCOLS.items():
                name = "completion" if path in (COMPLETIONS, "/api/generate") else "chat"
                n_tokens = folded(events(name)).tokens.completion
                whole = await made.post(path, {**body, "stream": False})
                assert whole.status == 200 and whole.is_whole and usage_of(whole.json())[1] == n_tokens
                stream = await made.post(path, {**body, "stream": True})
                assert stream.status == 200 and stream.is_whole and stream.headers is not None
                assert stream.headers["content-type"].startswith(("text/event-stream", "application/x-ndjson"))
                ends = [each for each in lines(stream) if "usage" in json.dumps(each) or each.get("done")]
                assert usage_of(ends[-1])[1] == n_tokens
                for got in made.asked:
                    assert got["stream"] is True and got["stream_options"] == {"include_usage": True}
                    assert got["model"] == "fake" and got["completion_id"].startswith("chatcmpl-")
                needs_prompt = path in ("/v1/responses", "/v1/messages")
                assert [bool(got.get("return_progress")) for got in made.asked[-2:]] == [False, needs_prompt]
                last = made.handled[-2:]
                assert [(each.endpoint, each.model, each.status) for each in last] == [(path, "fake", 200)] * 2
            assert len({got["completion_id"] for got in made.asked}) == len(made.asked) == 2 * len(PROTOCOLS)
            figures = made.metrics.models["fake"]
            assert figures.ended == {"itself": 12} and len(figures.ttfts) == 12 and made.n_ended == 0
            tokens = [folded(events(name)).tokens for name in ("chat", "completion")]
            assert figures.completion_tokens == 8 * tokens[0].completion + 4 * tokens[1].completion

    within(work())


def test_an_answer_that_does_not_match_its_schema_is_an_error_in_every_protocol(directory: Path) -> None:
    schema = {"type": "integer", "minimum": 5}
    wrapped = {"type": "json_schema", "name": "x", "schema": schema}
    form = {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    fields = {
        CHAT: form,
        "/v1/responses": {"text": {"format": wrapped}},
        "/v1/messages": {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        "/api/chat": {"format": schema},
    }

    async def work() -> None:
        async with house(directory, stream="chat_stop") as made:
            for path, more in fields.items():
                whole = await made.post(path, {**PROTOCOLS[path], **more, "stream": False})
                assert whole.status == 422 and "the answer is not whole JSON" in whole.body.decode(), path
                stream = await made.post(path, {**PROTOCOLS[path], **more, "stream": True})
                assert stream.status == 200 and stream.is_whole
                assert "error" in lines(stream)[-1] and "not whole JSON" in json.dumps(lines(stream)[-1])
                assert b"[DONE]" not in stream.body

    within(work())


def test_a_tool_that_cannot_be_honoured_is_told_with_the_answer(directory: Path) -> None:
    bad = {"name": "find", "parameters": {"$ref": "#/nowhere"}}

    async def work() -> None:
        async with house(directory) as made:
            asked = {**MESSAGES, "tools": [{"type": "function", "function": bad}]}
            for stream in (False, True):
                answer = await made.post(CHAT, {**asked, "stream": stream})
                ends = [each["edgellm"] for each in lines(answer) if "edgellm" in each]
                (warning,) = ends[-1]["warnings"]
                assert warning.startswith("tools.0 (find): ") and warning.endswith("are not constrained")

    within(work())


def test_an_openai_stream_is_llama_server_s_lines(directory: Path) -> None:
    async def work() -> None:
        async with house(directory) as made:
            stream = await made.post(CHAT, {**MESSAGES, "stream": True})
            n_passed = len(chunks("chat")) - 2
            passed = b"".join(chunk.raw + b"\n\n" for chunk in chunks("chat")[:n_passed])
            assert stream.body.startswith(passed) and stream.body.endswith(b"data: [DONE]\n\n")

    within(work())


def test_a_refusal_has_the_protocol_s_form(directory: Path) -> None:
    async def work() -> None:
        async with house(directory, refuses=refusal_of("too_long")) as made:
            for path, stream in itertools.product(PROTOCOLS, (False, True)):
                answer = await made.post(path, {**PROTOCOLS[path], "stream": stream})
                assert answer.status == 400 and answer.is_whole
                error = answer.json()["error"]
                message = error if isinstance(error, str) else error["message"]
                assert message.startswith(
                    "the prompt is too long: 1,010 tokens, which exceeds the available context size"
                )
                assert (
                    isinstance(error, str) or error.get("code", "context_length_exceeded") == "context_length_exceeded"
                )
                assert answer.headers is not None and answer.headers["cache-control"] == "no-store"

    within(work())


def test_one_of_several_prompts_that_is_refused_later_is_an_error_with_a_status(directory: Path) -> None:
    async def work() -> None:
        async with house(directory, stream="completion_refused") as made:
            answer = await made.post(COMPLETIONS, {"prompt": ["a", "b"], "stream": True})
            assert answer.status == 400 and answer.json()["error"]["code"] == "context_length_exceeded"

    within(work())


@pytest.mark.parametrize(("stream", "dies_after"), [(True, 0), (False, 4)])
def test_a_worker_that_dies_before_an_answer_has_begun_is_a_503(directory: Path, stream: bool, dies_after: int) -> None:
    async def work() -> None:
        async with house(directory, dies_after=dies_after) as made:
            answer = await made.post(CHAT, {**MESSAGES, "stream": stream})
            assert answer.status == 503 and answer.json()["error"]["code"] == "engine-failed"
            assert answer.headers is not None and answer.headers["retry-after"] == "2"
            assert answer.json()["error"]["message"].endswith("; try again in 2 seconds")

    within(work())


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat"])
def test_a_worker_that_dies_later_is_the_last_event(directory: Path, path: str) -> None:
    async def work() -> None:
        async with house(directory, until_stopped=True) as made:
            asking = asyncio.create_task(made.post(path, {**PROTOCOLS[path], "stream": True}))
            while not made.n_pieces:
                await asyncio.sleep(0.01)
            (state,) = made.pool.loaded
            assert state.worker is not None
            state.worker.kill()
            answer = await asking
            assert answer.status == 200 and answer.is_whole and b"[DONE]" not in answer.body
            error = lines(answer)[-1]["error"]
            assert "the worker ended while it answered" in (error if isinstance(error, str) else error["message"])

    within(work())


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_is_ended_and_said(directory: Path, stream: bool) -> None:
    async def work() -> None:
        async with house(directory, until_stopped=True) as made:
            answer = await made.post(CHAT, {**MESSAGES, "stream": stream})
            assert made.n_ended == 1
            found = lines(answer)[-1] if stream else answer.json()
            assert found["edgellm"]["finish_reason"] == "repetition"
            assert made.metrics.models["fake"].ended == {"repetition": 1}
            if not stream:
                text = found["choices"][0]["message"]["content"]
                assert text == folded(events("chat")).choice.text[: len(text)], "the loop is left out"

    within(work())


def test_who_wants_no_guard_gets_none(directory: Path) -> None:
    async def work() -> None:
        async with house(directory, until_stopped=True) as made:
            body = {**MESSAGES, "loop_guard": False, "max_time": 0.2, "stream": False}
            answer = await made.post(CHAT, body)
            assert answer.json()["edgellm"] == {"finish_reason": "time"} and made.n_ended == 1
            assert made.metrics.models["fake"].ended == {"time": 1}
        async with house(directory, loop_guard=False, until_stopped=True) as made:
            assert (await made.post(CHAT, {**MESSAGES, "max_time": 0.2})).json()["edgellm"] == {"finish_reason": "time"}

    within(work())


def test_several_answers_have_no_guard_because_one_cannot_be_ended_alone(directory: Path) -> None:
    async def work() -> None:
        async with house(directory, until_stopped=True) as made:
            answer = await made.post(CHAT, {**MESSAGES, "n": 2, "max_time": 0.5})
            assert answer.json()["edgellm"] == {"finish_reason": "time"}

    within(work())


def test_one_call_is_enough_where_one_was_asked_for(directory: Path) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}

    async def work() -> None:
        async with house(directory, stream="chat_call") as made:
            answer = await made.post(CHAT, {**MESSAGES, "tools": [tool], "parallel_tool_calls": False})
            (choice,) = answer.json()["choices"]
            assert choice["finish_reason"] == "tool_calls" and len(choice["message"]["tool_calls"]) == 1
            answer = await made.post(CHAT, {**MESSAGES, "tools": [tool]})
            assert len(answer.json()["choices"][0]["message"]["tool_calls"]) == 2

    within(work())


def test_a_client_that_leaves_ends_the_computation(directory: Path) -> None:
    async def work() -> None:
        async with house(directory, until_stopped=True) as made:
            answer = await made.post(CHAT, {**MESSAGES, "stream": True, "loop_guard": False}, leaves_after=3)
            assert answer.status == 200 and not answer.is_whole
            assert made.pool.n_in_flight == 0 and made.metrics.models["fake"].ended == {"cancelled": 1}

    within(work())


def test_a_prompt_that_is_too_long_is_shortened_if_that_was_asked_for(directory: Path) -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        *({"role": role, "content": f"{role} {number} " * 30} for number in range(4) for role in ("user", "assistant")),
        {"role": "user", "content": "And now?"},
    ]

    async def work() -> None:
        async with house(directory, refuses=refusal_of("too_long"), n_refusals=1) as made:
            answer = await made.post(CHAT, {"messages": messages, "truncate": True})
            assert answer.status == 200
            whole, shorter = (body["messages"] for body in made.asked)
            assert len(whole) == 10 and 2 <= len(shorter) < 10
            assert [shorter[0], shorter[-1]] == [messages[0], messages[-1]] and shorter[1]["role"] == "user"

    within(work())


@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages", "/api/chat"])
def test_a_server_may_shorten_every_prompt_for_clients_that_cannot_ask(directory: Path, path: str) -> None:
    turns = [{"role": role, "content": f"{role} " * 200} for role in ("user", "assistant", "user")]
    body = {**PROTOCOLS[path], ("input" if path.endswith("responses") else "messages"): turns}
    options = ServeOptions(n_slots=2, n_ctx=512, truncate=True)

    async def work() -> None:
        async with house(directory, options=options, refuses=refusal_of("too_long"), n_refusals=1) as made:
            assert (await made.post(path, {**body, "stream": False})).status == 200
            assert [len(asked["messages"]) for asked in made.asked] == [3, 1]
        async with house(directory, options=options, refuses=refusal_of("too_long")) as made:
            assert (await made.post(path, {**body, "truncate": False})).status == 400, "the request decides"

    within(work())


def test_what_cannot_be_shortened_says_what_stays(directory: Path) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}

    async def work() -> None:
        async with house(directory, refuses=refusal_of("too_long")) as made:
            whole = (await made.post(CHAT, {**MESSAGES, "tools": [tool] * 3})).json()["error"]
            assert "(it has 3 tools)" in whole["message"] and "--truncate or a larger --ctx-size" in whole["message"]
            error = (await made.post(CHAT, {**MESSAGES, "truncate": True})).json()["error"]
            assert "exceeds the available context size of 512; nothing of it can be dropped" in error["message"]
            assert (error["code"], error["n_prompt_tokens"], error["n_ctx"]) == ("context_length_exceeded", 1010, 512)
            text = (await made.post(COMPLETIONS, {"prompt": "Once"})).json()["error"]
            assert text["param"] == "prompt"

    within(work())


@pytest.mark.parametrize("stream", [False, True])
def test_a_model_that_cannot_be_loaded_is_no_503(directory: Path, stream: bool) -> None:
    says = ["0.00.01 E llama_model_load: error loading model: unknown model architecture: 'new'"]

    async def work() -> None:
        async with house(directory, dies_at_start=1, says=says) as made:
            for path, body in PROTOCOLS.items():
                answer = await made.post(path, {**body, "stream": stream})
                assert answer.status == 422 and answer.headers is not None and "retry-after" not in answer.headers
                assert "fake could not be loaded: unknown model architecture: 'new'" in answer.body.decode()

    within(work())


def test_a_text_that_is_too_long_keeps_its_end(directory: Path) -> None:
    tokens = list(range(700))

    async def work() -> None:
        replies = {"/tokenize": {"tokens": tokens}}
        async with house(directory, refuses=refusal_of("too_long"), n_refusals=1, replies=replies) as made:
            assert (await made.post(COMPLETIONS, {"prompt": "x " * 700, "truncate": True})).status == 200
            assert made.asked[-1]["prompt"] == tokens[-(512 - LEFT_FOR_ANSWER) :]
            several = await made.post(COMPLETIONS, {"prompt": ["a", "b"], "truncate": True})
            assert several.status == 200, "they were not too long"

    within(work())


def test_several_prompts_are_not_shortened(directory: Path) -> None:
    async def work() -> None:
        async with house(directory, refuses=refusal_of("too_long")) as made:
            several = await made.post(COMPLETIONS, {"prompt": ["a", "b"], "truncate": True})
            assert several.status == 400 and "exceeds the available context size" in several.json()["error"]["message"]
            alone = await made.post(CHAT, {**MESSAGES, "truncate": True})
            assert alone.status == 400 and alone.json()["error"]["code"] == "context_length_exceeded"

    within(work())
