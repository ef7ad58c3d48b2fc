"""Texts to vectors, by a worker; a text that is longer than the model reads is told with its counts, or cut if asked.

reply = await embed(worker, ["the cat"], truncate=False)
reply["data"][0]["embedding"]

The worker refuses a whole request for one such text and says not which: so the texts are counted when it refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgellm.serve.problems import Problem
from edgellm.serve.upstream import Upstream, UpstreamRefused
from edgellm.serve.worker import Worker

PATH = "/v1/embeddings"
Text = str | list[int]


async def embed(worker: Worker, texts: Sequence[Text], *, truncate: bool, **more: Any) -> dict[str, Any]:
    """OpenAI's answer for some texts, each a string or token ids; `more` are further fields of the request.

    With `truncate` the beginning of a text that is too long is embedded.

    Raises:
        Problem: a text is longer than the context (400, with both counts).
        UpstreamRefused, EngineError: the worker refuses them for another reason, or is gone.
    """
    upstream, n_ctx = worker.upstream, worker.plan.n_ctx
    body = {"model": worker.model.name, "input": list(texts), **more}
    try:
        return dict(await upstream.post(PATH, body))
    except UpstreamRefused:
        counts = [len(await _tokens(upstream, text)) for text in texts]
        too_long = [index for index, count in enumerate(counts) if count > n_ctx]
        if not too_long:
            raise
        if not truncate:
            raise _too_long(worker, too_long, counts) from None
    for index in too_long:
        body["input"][index] = await _beginning(upstream, texts[index], n_ctx)
    return dict(await upstream.post(PATH, body))


async def _tokens(upstream: Upstream, text: Text, *, special: bool = True) -> list[int]:
    """The token ids of a text, with those that the model wants before and after it."""
    if not isinstance(text, str):
        return text
    reply = await upstream.post("/tokenize", {"content": text, "add_special": special})
    return list(reply["tokens"])


async def _beginning(upstream: Upstream, text: Text, n_ctx: int) -> list[int]:
    """As many tokens of a text as fit, between those that the model wants around it."""
    whole, bare = await _tokens(upstream, text), await _tokens(upstream, text, special=False)
    n_before = 0 if whole[:1] == bare[:1] else 1
    before, after = whole[:n_before], whole[n_before + len(bare) :]
    return [*before, *bare[: n_ctx - len(before) - len(after)], *after]


def _too_long(worker: Worker, which: list[int], counts: list[int]) -> Problem:
    first, n_ctx = which[0], worker.plan.n_ctx
    others = f", and {len(which) - 1} more are too long" if len(which) > 1 else ""
    message = (
        f"input {first} has {counts[first]:,} tokens, {worker.model.name} reads {n_ctx:,}{others}; "
        'send shorter pieces, or "truncate": true to embed only their beginning'
    )
    facts = {"n_prompt_tokens": counts[first], "n_ctx": n_ctx}
    return Problem(400, message, code="context_length_exceeded", field="input", **facts)
