"""What a request becomes before llama-server gets it: the recipe's part, what is refused, and what is added."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgellm.models.fit.memory import RunPlan
from edgellm.serve.answer.grammar_trial import GrammarTrial
from edgellm.serve.answer.prepare import CHAT, COMPLETIONS, Question, check_tokens, has_one_answer, prepare
from edgellm.serve.http.problems import Problem
from edgellm.serve.workers.catalog import ServedModel
from edgellm.wire.body import parse
from edgellm.wire.openai_requests import ChatRequest
from tests.serve.fake_worker import FakeModel

USER = {"role": "user", "content": "Hello"}
BEGUN = {"role": "assistant", "content": "Once"}
ASKED = parse(ChatRequest, {"messages": [USER]})


@pytest.fixture
def model(tmp_path: Path) -> ServedModel:
    return FakeModel(tmp_path).model(system="Be kind.", sampling={"temperature": 0.2, "top_k": 40})


def prepared(model: ServedModel, *, path: str = CHAT, n_ctx: int = 512, **body: Any) -> dict[str, Any]:
    """The body for llama-server. None of these needs a grammar to be tried, so there is no engine."""
    worker: Any = SimpleNamespace(model=model, plan=RunPlan(n_ctx))
    trial = GrammarTrial(None)  # type: ignore[arg-type]
    return asyncio.run(prepare(Question(path, body, ASKED), worker, trial))


def test_the_recipe_says_what_the_request_does_not(model: ServedModel) -> None:
    body = prepared(model, messages=[USER], temperature=0.9)
    assert body == {
        "model": "fake",
        "temperature": 0.9,
        "top_k": 40,
        "messages": [{"role": "system", "content": "Be kind."}, USER],
    }
    own = [{"role": "system", "content": "Be short."}, USER]
    assert prepared(model, messages=own)["messages"] == own
    assert prepared(model, path=COMPLETIONS, prompt="Once")["prompt"] == "Once"


def test_penalties_look_no_further_back_than_the_context(model: ServedModel) -> None:
    body = prepared(model, prompt="a", repeat_last_n=-1, dry_penalty_last_n=9999)
    assert (body["repeat_last_n"], body["dry_penalty_last_n"]) == (512, 512)
    assert prepared(model, prompt="a", repeat_last_n=0)["repeat_last_n"] == 0
    assert "repeat_last_n" not in prepared(model, prompt="a")


def refused(model: ServedModel, **body: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        prepared(model, **body)
    return caught.value


def test_what_llama_server_would_ignore_is_refused(model: ServedModel) -> None:
    bias = refused(model, prompt="a", logit_bias={"1000": 5.0})
    assert bias.field == "logit_bias" and bias.message == "logit_bias: fake has no token 1000, only 0 to 999"
    token = refused(model, prompt=[[1, 2], [3, 1000]])
    assert token.field == "prompt" and token.message == "prompt: fake has no token 1000, only 0 to 999"
    no_tools = prepared(model, messages=[USER], tools=[], response_format={"type": "json_object"})
    assert no_tools["response_format"]["json_schema"]["schema"]["type"] == "object"
    deep: Any = {}
    for _ in range(5000):
        deep = {"items": deep}
    form = {"type": "json_schema", "json_schema": {"schema": deep}}
    assert "nested" in refused(model, messages=[USER], response_format=form).message


def test_a_pattern_that_cannot_be_honoured_names_its_field(model: ServedModel) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a{3,1}$"}}}
    problem = refused(
        model, messages=[USER], response_format={"type": "json_schema", "json_schema": {"schema": schema}}
    )
    assert problem.field == "response_format" and problem.message.startswith("response_format: ")


def test_tokens_of_a_text_are_not_looked_at(model: ServedModel) -> None:
    check_tokens("a", model, "input")
    check_tokens([0, 999], model, "input")
    with pytest.raises(Problem) as caught:
        check_tokens([[1], [1000]], model, "input")
    assert caught.value.field == "input"


def test_an_answer_that_was_begun_goes_on(model: ServedModel) -> None:
    body = prepared(model, messages=[USER, BEGUN])
    assert body["continue_final_message"] == "content" and body["add_generation_prompt"] is False
    kept = prepared(model, messages=[USER, BEGUN], continue_final_message=False)
    assert kept["continue_final_message"] is False and "add_generation_prompt" not in kept
    assert "continue_final_message" not in prepared(model, messages=[USER])
    calls = {**BEGUN, "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
    assert "continue_final_message" not in prepared(model, messages=[USER, calls])


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        ({"prompt": "a"}, True), ({"prompt": ["a"]}, True), ({"prompt": [1, 2, 3]}, True), ({"prompt": [[1, 2]]}, True),
        ({"prompt": ["a", "b"]}, False), ({"prompt": [[1], [2]]}, False), ({"messages": [USER]}, True),
        ({"messages": [USER], "n": 2}, False), ({"prompt": "a", "n": 1}, True),
    ],
)  # fmt: skip
def test_only_one_answer_can_be_stopped(body: dict[str, Any], is_one: bool) -> None:
    assert has_one_answer(body) is is_one
