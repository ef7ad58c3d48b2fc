"""POST /v1/completions with `echo`: the prompt comes back with what follows it, and with its log-probabilities.

await echo(service, model, asked, out)

llama-server cannot do it; the scoring process computes it (serve/scoring.py). The parts of an answer are turned into
JSON as they come, so that no long piece of work holds up other requests.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import fields
from typing import Any

from edgellm.engine.base import Sampling
from edgellm.errors import BadRequest, PromptTooLong
from edgellm.serve.answers import Ending
from edgellm.serve.catalog import Kind, ServedModel
from edgellm.serve.encoding import encoded
from edgellm.serve.openai_requests import CompletionRequest
from edgellm.serve.pool import wrong_kind
from edgellm.serve.problems import Problem
from edgellm.serve.responding import Output
from edgellm.serve.scoring import Done, Part, ScoreRequest, ScoringWorker
from edgellm.serve.service import Service

# OpenAI draws so many tokens where nothing is said; here -1 stands for as many as the context holds.
MAX_TOKENS, NO_LIMIT = 16, 2**31 - 1
MOST_PROMPTS, MOST_ANSWER = 2048, 256 << 20
SAMPLING = frozenset(field.name for field in fields(Sampling))
# Fields that are not about how tokens are drawn, or that ask for nothing here.
OTHERS = frozenset(
    {"model", "prompt", "echo", "logprobs", "max_tokens", "stop", "user", "best_of", "suffix", "loop_guard"}
)
NEUTRAL = {"n": 1, "stream": False, "truncate": False, "ignore_eos": False, "cache_prompt": True,
           "timings_per_token": False, "return_progress": False}  # fmt: skip
# What clients know of the reasons for an end.
REASONS = {"repetition": "length"}


async def echo(service: Service, model: ServedModel, asked: CompletionRequest, out: Output) -> None:
    """Answer a request that has `echo`.

    Raises:
        Problem: a field that does not go with `echo`, a prompt that is too long, or too large an answer (400).
        EdgellmError: the process cannot be started, or failed.
    """
    if model.kind is Kind.EMBEDDING:
        raise wrong_kind(model, (Kind.CHAT, Kind.COMPLETION))
    if len(asked.prompts) > MOST_PROMPTS:
        message = f"{len(asked.prompts):,} prompts are too many for one request, {MOST_PROMPTS:,} are allowed"
        raise Problem(400, message, code="bad-field", field="prompt")
    requests = list(_requests(service, model, asked))
    choices: list[bytes] = []
    ends: list[Done] = []
    with service.metrics.watching(model.name, ending := Ending(), time.perf_counter()):
        async with service.scoring.lease(model) as worker:
            for request in requests:
                choice, done = await _choice(service, worker, request, len(choices), asked.logprobs is not None)
                choices.append(choice)
                ends.append(done)
                _check_size(sum(map(len, choices)))
        if any(done.reason == "repetition" for done in ends):
            ending.reason = "repetition"
    about = {
        "id": f"cmpl-{secrets.token_urlsafe(18)}", "object": "text_completion", "created": int(time.time()),
        "model": model.name, "usage": _usage(ends), **({"edgellm": ending.as_field()} if ending.reason else {}),
    }  # fmt: skip
    out.open("application/json")
    out.write(encoded(about)[:-1] + b',"choices":[')
    for index, choice in enumerate(choices):
        out.write(b"," * (index > 0) + choice)
    out.write(b"]}")
    await out.close()


def _requests(service: Service, model: ServedModel, asked: CompletionRequest) -> Iterator[ScoreRequest]:
    """One for each prompt."""
    sent = asked.sampling()
    for name, value in asked.given().items():
        if name not in SAMPLING | OTHERS and NEUTRAL.get(name) != value:
            raise Problem(400, f"{name} cannot be honoured together with echo", code="unsupported-field", field=name)
    given = {**model.sampling, **sent}
    given["seed"] = sent["seed"] if sent.get("seed", -1) >= 0 else secrets.randbits(32)
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    max_tokens = MAX_TOKENS if asked.max_tokens is None else asked.max_tokens
    for prompt in asked.prompts:
        yield ScoreRequest(
            prompt,
            n_top=asked.logprobs or 0,
            max_tokens=NO_LIMIT if max_tokens < 0 else max_tokens,
            sampling=Sampling(**{name: value for name, value in given.items() if name in SAMPLING}),
            stop=tuple(stop),
            loop_guard=service.options.loop_guard if asked.loop_guard is None else asked.loop_guard,
        )


async def _choice(
    service: Service, worker: ScoringWorker, request: ScoreRequest, index: int, logprobs: bool
) -> tuple[bytes, Done]:
    """One element of `choices`, as JSON."""
    lists: dict[str, list[bytes]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    size = 0
    try:
        async with aclosing(service.scoring.score(worker, request)) as answers:
            async for answer in answers:
                if isinstance(answer, Done):
                    return _encoded_choice(index, answer, lists if logprobs else None), answer
                size += _add(lists, answer)
                _check_size(size)
    except PromptTooLong as error:
        n_prompt, n_ctx = (error.facts.get(name) for name in ("prompt_tokens", "n_ctx"))
        message = f"{error.what}: {error.why}"
        code = "context_length_exceeded"
        raise Problem(400, message, code=code, field="prompt", n_prompt_tokens=n_prompt, n_ctx=n_ctx) from error
    except BadRequest as error:
        raise Problem(400, error.what, code=error.code, field="prompt") from error
    raise AssertionError("an answer has an end")


def _add(lists: dict[str, list[bytes]], part: Part) -> int:
    """Append to every list the elements of a part; tells how many bytes that is."""
    columns = (part.names, part.logprobs, part.tops, part.offsets)
    pieces = [encoded(column)[1:-1] for column in columns if column]
    for pieces_so_far, piece in zip(lists.values(), pieces, strict=bool(pieces)):
        pieces_so_far.append(piece)
    return sum(map(len, pieces))


def _encoded_choice(index: int, done: Done, lists: dict[str, list[bytes]] | None) -> bytes:
    head = {"index": index, "text": done.text, "finish_reason": REASONS.get(done.reason, done.reason)}
    if lists is None:
        return encoded({**head, "logprobs": None})
    columns = b",".join(b'"%s":[%s]' % (name.encode(), b",".join(pieces)) for name, pieces in lists.items())
    return b'%s,"logprobs":{%s}}' % (encoded(head)[:-1], columns)


def _check_size(n_bytes: int) -> None:
    if n_bytes > MOST_ANSWER:
        message = f"the answer would be larger than {MOST_ANSWER >> 20} MiB; send fewer prompts or smaller logprobs"
        raise Problem(400, message, code="answer-too-large", field="prompt")


def _usage(ends: list[Done]) -> dict[str, Any]:
    prompt, completion = sum(end.prompt_tokens for end in ends), sum(end.completion_tokens for end in ends)
    return {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(end.reused_tokens for end in ends)},
    }  # fmt: skip
