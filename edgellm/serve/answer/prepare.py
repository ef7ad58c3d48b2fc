"""Prepares a request for llama-server: refuses what it would silently ignore, and adds what edgellm promises.

body = await prepare(question, worker, trial)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgellm.serve.answer.grammar_trial import GrammarTrial
from edgellm.serve.answer.tools_and_schema import settled
from edgellm.serve.documents.store import DocumentScope
from edgellm.serve.http.problems import Problem
from edgellm.serve.tools.served import AskedTools
from edgellm.serve.workers.catalog import ServedModel
from edgellm.serve.workers.worker import Worker
from edgellm.wire.sampling import RequestSampling

# The two ways to ask llama-server for text. Its own Responses and Messages APIs are not used: they lose what chat has
# (samplers, schemas, a chosen tool).
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
COUNT_TOKENS = f"{CHAT}/input_tokens"
# How many past tokens a penalty looks at. llama-server reserves memory for all of them, and no context has more.
WINDOWS = frozenset({"repeat_last_n", "dry_penalty_last_n"})


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks: `body` goes to llama-server at `path`; `request` has edgellm's own fields.

    `warnings` is filled while it is prepared: what cannot be honoured, and does not prevent an answer. `documents` is
    what to search before it is answered, `tools` are those of the server that the model may call.
    """

    path: str
    body: dict[str, Any]
    request: RequestSampling
    stream: bool = False
    n: int = 1
    warnings: list[str] = field(default_factory=list)
    documents: DocumentScope | None = None
    tools: AskedTools | None = None


async def prepare(question: Question, worker: Worker, trial: GrammarTrial) -> dict[str, Any]:
    """The body for llama-server; the request's fields replace what the model's recipe recommends.

    Raises:
        Problem: a token, pattern or combination that cannot be honoured.
        GrammarTooComplex: a grammar that may never finish a step.
    """
    model = worker.model
    body = {"model": model.name, **model.sampling, **question.body}
    if "messages" in body:
        body["messages"] = model.with_system(body["messages"])
    for window in WINDOWS & body.keys():
        n_ctx = worker.plan.n_ctx
        body[window] = min(body[window], n_ctx) if body[window] >= 0 else n_ctx
    _check(body, model)
    check_context(question.request, model, worker.plan.n_ctx)
    formed = await trial.admit(model, settled(body))
    body = formed.body
    question.warnings.extend(formed.warnings)
    if question.request.private or body.get("cache_prompt") is False:
        body = {**body, "private": True}  # it leaves nothing on disk
    return _continued(body)


def has_one_answer(body: Mapping[str, Any]) -> bool:
    """Whether a request has one answer; llama-server cannot stop just one of several."""
    prompt = body.get("prompt")
    several_prompts = isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)
    return body.get("n", 1) == 1 and not several_prompts


def check_tokens(prompts: Any, model: ServedModel, field: str) -> None:
    """Refuse numbers that are no tokens of the model's vocabulary, in one or several prompts."""
    for each in prompts if isinstance(prompts, list) else ():
        if isinstance(each, list):
            check_tokens(each, model, field)
        elif isinstance(each, int) and each >= model.outline.n_vocab:
            message = f"{field}: {model.name} has no token {each}, only 0 to {model.outline.n_vocab - 1}"
            raise Problem(400, message, code="bad-field", field=field)


def check_context(request: RequestSampling, model: ServedModel, n_ctx: int) -> None:
    """Refuse a larger context than the served one; a smaller one is harmless."""
    wanted = request.num_ctx or 0
    if wanted > n_ctx:
        most, field = model.outline.n_ctx_train, f"{request.within}num_ctx"
        serve = f"edgellm serve {model.name} --ctx-size {min(wanted, most)}"
        trained = f" (it was trained with {most:,})" if wanted > most else ""
        message = (
            f"{field}: {wanted:,} is more than the {n_ctx:,} tokens that {model.name} is served with{trained}; "
            f"send at most {n_ctx}" + (f", or start the server with: {serve}" if n_ctx < most else "")
        )
        raise Problem(400, message, code="context-too-large", field=field)


def _check(body: Mapping[str, Any], model: ServedModel) -> None:
    """Refuse what llama-server would silently ignore."""
    for token in body.get("logit_bias") or ():
        if int(token) >= model.outline.n_vocab:
            message = f"logit_bias: {model.name} has no token {token}, only 0 to {model.outline.n_vocab - 1}"
            raise Problem(400, message, code="bad-field", field="logit_bias")
    check_tokens(body.get("prompt"), model, "prompt")
    for each in body.get("lora") or ():
        if each["id"] >= len(model.adapters):
            known = f"only 0 to {len(model.adapters) - 1}" if model.adapters else "it is served without any"
            message = f"lora: {model.name} has no adapter {each['id']}; {known}"
            raise Problem(400, message, code="bad-field", field="lora")


def begun_answer(body: Mapping[str, Any]) -> str:
    """The part of an answer that a chat ends with; only the rest of it is generated."""
    last = (body.get("messages") or [{}])[-1]
    is_begun = last.get("role") == "assistant" and not last.get("tool_calls")
    return str(last.get("content") or "") if is_begun and body.get("continue_final_message") is not False else ""


def _continued(body: dict[str, Any]) -> dict[str, Any]:
    """Make a chat that ends with part of an answer return only the rest; llama-server would repeat that part."""
    last = (body.get("messages") or [{}])[-1]
    if last.get("role") != "assistant" or last.get("tool_calls") or "continue_final_message" in body:
        return body
    return {**body, "continue_final_message": "content", "add_generation_prompt": False}
