"""POST /v1/completions with `echo`: the answer repeats the prompt, with its log-probabilities.

await echo(service, model, asked, out)

llama-server cannot do it; the scoring process does (serve/scoring/client.py). Each part of an answer becomes JSON as it
comes, so that no long computation holds up other requests.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import fields
from typing import Any

from edgellm.engine.sampling import Sampling
from edgellm.errors import BadRequest
from edgellm.run.events import Cut
from edgellm.serve.answer.prepare import check_context
from edgellm.serve.answer.words import cut_field
from edgellm.serve.http.problems import Problem
from edgellm.serve.http.response import Output
from edgellm.serve.scoring.client import Done, ScoredPart, ScoreRequest, ScoringWorker
from edgellm.serve.service import Service
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.pool import wrong_kind
from edgellm.wire.body import refuse_others
from edgellm.wire.encoding import encoded
from edgellm.wire.openai_answers import TEXT_COMPLETION, usage
from edgellm.wire.openai_requests import DEFAULT_MAX_TOKENS, CompletionRequest

# For -1: as many tokens as the context holds.
NO_LIMIT = 2**31 - 1
MOST_PROMPTS, MOST_ANSWER = 2048, 256 << 20
SAMPLING = frozenset(field.name for field in fields(Sampling))
HONOURED = SAMPLING | {"model", "prompt", "echo", "logprobs", "max_tokens", "max_completion_tokens", "stop", "user",
                       "stream_options", "num_ctx", "num_keep", "loop_guard"}  # fmt: skip
# The reasons that clients know.
REASONS = {"repetition": "length"}


async def echo(service: Service, model: ServedModel, asked: CompletionRequest, out: Output) -> None:
    """Answer a request with `echo`.

    Raises:
        Problem: a field that does not go with `echo`, a prompt that is too long, or too large an answer (400).
        EdgellmError: the process cannot be started, or failed.
    """
    if model.kind is ModelKind.EMBEDDING:
        raise wrong_kind(model, (ModelKind.CHAT, ModelKind.COMPLETION))
    if len(asked.prompts) > MOST_PROMPTS:
        message = f"{len(asked.prompts):,} prompts are too many for one request, {MOST_PROMPTS:,} are allowed"
        raise Problem(400, message, code="bad-field", field="prompt")
    requests = list(_requests(service, model, asked))
    choices: list[bytes] = []
    ends: list[Done] = []
    cut: Cut | None = None
    with service.metrics.scoring(model.name) as ended:
        async with service.scoring.lease(model) as worker:
            check_context(asked, model, worker.info.n_ctx)
            for request in requests:
                choice, done = await _choice(service, worker, request, len(choices), asked.logprobs is not None)
                choices.append(choice)
                ends.append(done)
                _check_size(sum(map(len, choices)))
        if any(done.reason == "repetition" for done in ends):
            cut = Cut("repetition")
            ended.clear()
            ended["repetition"] = 1
    about = {
        "id": f"cmpl-{secrets.token_urlsafe(18)}", "object": TEXT_COMPLETION, "created": int(time.time()),
        "model": model.name, "usage": _usage(ends), **cut_field(cut),
    }  # fmt: skip
    out.open("application/json")
    out.write(encoded(about)[:-1] + b',"choices":[')
    for index, choice in enumerate(choices):
        out.write(b"," * (index > 0) + choice)
    out.write(b"]}")
    await out.close()


def _requests(service: Service, model: ServedModel, asked: CompletionRequest) -> Iterator[ScoreRequest]:
    """A request to the scoring process for each prompt."""
    sent = asked.sampling()
    refuse_others(asked, HONOURED, "together with echo")
    given = {**model.sampling, **sent}
    given["seed"] = sent["seed"] if sent.get("seed", -1) >= 0 else secrets.randbits(32)
    max_tokens = DEFAULT_MAX_TOKENS if asked.limit is None else asked.limit
    for prompt in asked.prompts:
        yield ScoreRequest(
            prompt,
            n_top=asked.logprobs or 0,
            max_tokens=NO_LIMIT if max_tokens < 0 else max_tokens,
            sampling=Sampling(**{name: value for name, value in given.items() if name in SAMPLING}),
            stop=tuple(asked.stops),
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
    except BadRequest as error:
        raise Problem(400, error.what, code=error.code, field="prompt") from error
    raise AssertionError("an answer has an end")


def _add(lists: dict[str, list[bytes]], part: ScoredPart) -> int:
    """Append the elements of a part to every list; returns their number of bytes."""
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
    return usage(prompt, completion, sum(end.reused_tokens for end in ends))
