"""Errors as clients get them: edgellm's own, and llama-server's refusals."""

import json
import re
from typing import Any

import pytest

from edgellm import errors
from edgellm.errors import EdgellmError
from edgellm.machine.child import ChildFailed
from edgellm.serve.http.problems import Problem, problem_of, uncached
from edgellm.serve.workers.upstream import UpstreamRefused, refusal
from edgellm.wire.body import FieldError, MalformedBody, MissingField, UnknownField, UnsupportedField
from tests.serve.recordings import refusal_of


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.ModelNotFound("there is no model 'x' here", why="did you mean y?"), 404, "model_not_found"),
        (errors.DoesNotFit("x needs 3 GB", why="1 GB is available"), 422, "does-not-fit"),
        (errors.UnsupportedModel("x could not be loaded", why="/home/me/x.gguf is strange"), 422, "unsupported-model"),
        (errors.EngineError("the engine's library does not load", why="/opt/a/b.so: too old"), 422, "engine-failed"),
        (errors.EngineMissing("no engine is built"), 422, "engine-missing"),
        (ChildFailed("the worker ended", why="see '/var/log/x.log'"), 503, "engine-failed"),
        (errors.UsageError("that cannot be", why="so"), 400, "usage"),
        (errors.PromptTooLong("the prompt is empty"), 400, "bad-request"),
        (errors.BadRequest("the request cannot be honoured"), 400, "bad-request"),
        (errors.CorruptFile("x is corrupt"), 422, "corrupt-file"),
        (errors.DiskFull("no room"), 500, "disk-full"),
        (errors.CollectionNotFound("there are no documents named x"), 404, "documents-not-found"),
        (EdgellmError("it failed"), 500, "failed"),
    ],
)
def test_an_error_of_ours_is_a_problem(error: EdgellmError, status: int, code: str) -> None:
    problem = problem_of(error)
    assert (problem.status, problem.code) == (status, code)
    assert problem.retry_after == (2 if status == 503 else None)
    assert problem.headers == ({"Retry-After": "2"} if problem.retry_after else {})
    assert problem.message.endswith("; try again in 2 seconds") == (status == 503), "people do not see the header"
    assert problem.message.startswith(error.what) and error.why.rpartition("/")[2] in problem.message, "the reason"
    assert not re.search(r"/(home|opt|var)", problem.message), "where files lie is nobody's business"


def test_the_time_to_wait_is_said_in_words() -> None:
    assert Problem(429, "full", code="x", retry_after=1).message == "full; try again in 1 second"


def test_a_prompt_too_long_for_the_scorer_has_the_words_that_clients_know() -> None:
    problem = problem_of(errors.PromptTooLong("the prompt has 20 tokens", prompt_tokens=20, n_ctx=16))
    assert problem.message.startswith(
        "the prompt is too long: 20 tokens, which exceeds the available context size of 16"
    )
    assert (problem.code, problem.facts) == ("context_length_exceeded", {"n_prompt_tokens": 20, "n_ctx": 16})


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (FieldError, "bad-field"), (UnknownField, "unknown-field"), (MissingField, "missing-field"),
        (UnsupportedField, "unsupported-field"), (MalformedBody, "bad-json"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named(kind: type[FieldError], code: str) -> None:
    problem = problem_of(kind("messages.0 is missing", field="messages.0"))
    assert (problem.status, problem.code, problem.field, problem.facts) == (400, code, "messages.0", {})
    assert problem.message == "messages.0 is missing"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"),
        (404, "not_found_error"), (408, "invalid_request_error"), (413, "request_too_large"),
        (429, "rate_limit_error"), (500, "api_error"), (502, "api_error"), (503, "overloaded_error"),
    ],
)  # fmt: skip
def test_each_status_has_a_kind(status: int, kind: str) -> None:
    assert Problem(status, "no", code="x").kind == kind


def test_facts_that_are_not_known_are_left_out() -> None:
    assert Problem(400, "no", code="x", n_ctx=None, n_prompt_tokens=3).facts == {"n_prompt_tokens": 3}


def test_no_error_is_cached() -> None:
    assert uncached({"Retry-After": "2"}) == {"Cache-Control": "no-store", "Retry-After": "2"}


def refused(name: str) -> UpstreamRefused:
    return refusal(*refusal_of(name))


def test_a_prompt_that_is_too_long_has_both_counts() -> None:
    problem = refused("too_long")
    assert (problem.status, problem.code, problem.field) == (400, "context_length_exceeded", "messages")
    assert problem.facts == {"n_prompt_tokens": 1010, "n_ctx": 512}
    assert problem.message == (
        "the prompt is too long: 1,010 tokens, which exceeds the available context size of 512; shorten it, "
        'send "truncate": true to drop its oldest part, or start the server with --truncate or a larger --ctx-size'
    )
    assert problem.error["type"] == "exceed_context_size_error"


@pytest.mark.parametrize(
    ("name", "status", "code", "message"),
    [
        ("bad_grammar", 400, "bad-request", "Failed to initialize samplers: failed to parse grammar"),
        ("bad_role", 400, "bad-request", "Failed to parse messages: [json.exception.type_error.302] type must be "),
        ("no_messages", 400, "bad-request", "'messages' is required"),
        ("no_prompt", 400, "bad-request", "[json.exception.out_of_range.403] key 'prompt' not found"),
        ("no_embeddings", 500, "not_supported_error", "This server does not support embeddings."),
        ("no_route", 404, "not_found_error", "File Not Found"),
    ],
)
def test_recorded_refusals(name: str, status: int, code: str, message: str) -> None:
    problem = refused(name)
    assert (problem.status, problem.code) == (status, code) and problem.message.startswith(message)
    assert problem_is_itself(problem)


def problem_is_itself(problem: UpstreamRefused) -> bool:
    return isinstance(problem, Problem) and str(problem) == problem.message


def said(message: str, kind: str = "server_error", status: int = 500) -> UpstreamRefused:
    return refusal(status, {"error": {"message": message, "type": kind, "code": status}})


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("Compute error.", 500), ("got exception: {}", 500), ("failed to decode", 500),
        ("context shift is disabled", 500), ("Unable to generate parser for this template", 400),
        ("JSON schema conversion failed: unknown type", 400),
    ],
)  # fmt: skip
def test_a_500_is_the_client_s_fault_unless_it_is_llama_server_s(message: str, status: int) -> None:
    problem = said(message)
    assert (problem.status, problem.code, problem.message) == (status, "bad-request", message)


def test_a_text_to_embed_that_is_too_large_has_both_counts() -> None:
    problem = said(
        "input (700 tokens) is too large to process. increase the physical batch size (current batch size: 512)"
    )
    assert (problem.status, problem.field) == (400, "input") and problem.facts == {"n_prompt_tokens": 700, "n_ctx": 512}
    assert (
        problem.message
        == "the input is too long: 700 tokens, which exceeds the available context size of 512; shorten it"
    )


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        ("Error: Jinja Exception: no system message", "no system message"),
        ("Error: Unknown (built-in) filter 'x' for type Array", "Unknown (built-in) filter 'x' for type Array"),
        ("Error: failed to join", "failed to join"),
    ],
)
def test_a_template_that_refuses_a_conversation_gives_its_reason(end: str, reason: str) -> None:
    problem = said(
        f"\n------------\nWhile executing CallExpression at line 1, column 2 in source:\n...{{{{ x }}}}\n  ^\n{end}"
    )
    assert problem.status == 400
    assert problem.message == f"the model's chat template refuses this conversation: {reason}"


def test_a_long_message_is_one_bounded_line() -> None:
    problem = said("no\n\tsuch   thing " * 200, status=400)
    assert problem.message.startswith("no such thing no such") and len(problem.message) == 500


@pytest.mark.parametrize("body", [None, [], "no", {}, {"error": None}, {"error": "broken"}, {"error": {}}, 3])
@pytest.mark.parametrize("status", [400, 404, 500, 502, 503])
def test_any_answer_is_an_error_in_order(status: int, body: Any) -> None:
    problem = refusal(status, body)
    assert problem.message == "the worker refused the request" and problem.code == "worker-failed"
    assert problem.status == (status if status in (400, 404) else 500) and problem.error == {}
    json.dumps(problem.facts)
