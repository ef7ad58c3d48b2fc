"""Turns texts into vectors with a worker; a text that is too long is an error with both counts, or cut on request.

reply = await embed(worker, ["the cat"], truncate=False)
reply["data"][0]["embedding"]

llama-server refuses a whole request for one such text without naming it, so the texts are counted after a refusal.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engine.finite import not_finite
from edgellm.serve.http.problems import CONTEXT_EXCEEDED, Problem, exceeds_context
from edgellm.serve.workers.catalog import ServedModel
from edgellm.serve.workers.upstream import Upstream, UpstreamRefused
from edgellm.serve.workers.worker import Worker

PATH = "/v1/embeddings"
Text = str | list[int]


async def embed(worker: Worker, texts: Sequence[Text], *, truncate: bool, **more: Any) -> dict[str, Any]:
    """OpenAI's answer for texts, each a string or token ids; `more` are further fields of the request.

    With `truncate` the beginning of a text that is too long is embedded.

    Raises:
        Problem: a text is longer than the context (400, with both counts).
        NotFinite: the model computes no numbers.
        UpstreamRefused, EngineError: the worker refuses them for another reason, or is gone.
    """
    upstream, n_ctx = worker.upstream, worker.plan.n_ctx
    body = {"model": worker.model.name, "input": list(texts), **more}
    try:
        return _finite(worker, await upstream.post(PATH, body))
    except UpstreamRefused:
        counts = [len(await _tokens(upstream, text)) for text in texts]
        too_long = [index for index, count in enumerate(counts) if count > n_ctx]
        if not too_long:
            raise
        if not truncate:
            raise _too_long(worker, too_long, counts) from None
    for index in too_long:
        body["input"][index] = await _beginning(upstream, texts[index], n_ctx)
    return _finite(worker, await upstream.post(PATH, body))


async def embed_question(worker: Worker, question: str) -> npt.NDArray[np.float32]:
    """The vector [n_embd] of a question, of length 1."""
    reply = await embed(worker, [question], truncate=True)
    vector = np.array(reply["data"][0]["embedding"], np.float32)
    unit: npt.NDArray[np.float32] = vector / max(float(np.linalg.norm(vector)), 1e-9)
    return unit


def _finite(worker: Worker, reply: Any) -> dict[str, Any]:
    """The answer; `NotFinite` if one of its vectors is not made of numbers, which JSON shows as null."""
    for each in reply["data"]:
        vector = each["embedding"]
        if isinstance(vector, str):
            is_finite = np.isfinite(np.frombuffer(base64.b64decode(vector), "<f4")).all()
        else:
            is_finite = None not in vector
        if not is_finite:
            raise not_finite(worker.model.name)
    return dict(reply)


def check_dimensions(wanted: int | None, model: ServedModel) -> None:
    """Refuse vectors of another size than the model's; every model has one."""
    if wanted not in (None, model.outline.n_embd):
        n_embd = model.outline.n_embd
        message = f"dimensions: the vectors of {model.name} have {n_embd} numbers; send {n_embd} or leave it out"
        raise Problem(400, message, code="unsupported-field", field="dimensions")


async def _tokens(upstream: Upstream, text: Text, *, special: bool = True) -> list[int]:
    """The token ids of a text, with the special tokens around it."""
    if not isinstance(text, str):
        return text
    reply = await upstream.post("/tokenize", {"content": text, "add_special": special})
    return list(reply["tokens"])


async def _beginning(upstream: Upstream, text: Text, n_ctx: int) -> list[int]:
    """As many tokens of a text as fit between the special tokens around it."""
    whole, bare = await _tokens(upstream, text), await _tokens(upstream, text, special=False)
    n_before = 0 if whole[:1] == bare[:1] else 1
    before, after = whole[:n_before], whole[n_before + len(bare) :]
    return [*before, *bare[: n_ctx - len(before) - len(after)], *after]


def _too_long(worker: Worker, which: list[int], counts: list[int]) -> Problem:
    first, n_ctx = which[0], worker.plan.n_ctx
    others = f", and {len(which) - 1} more are too long" if len(which) > 1 else ""
    remedy = (
        f"{worker.model.name} reads no more{others}; "
        'send shorter pieces, or embed only their beginning with "truncate": true or serve --truncate'
    )
    message = exceeds_context(f"input {first}", counts[first], n_ctx, remedy)
    facts = {"n_prompt_tokens": counts[first], "n_ctx": n_ctx}
    return Problem(400, message, code=CONTEXT_EXCEEDED, field="input", **facts)
