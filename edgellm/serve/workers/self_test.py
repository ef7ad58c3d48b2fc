"""The self-test of a worker's model, over its socket: what `run.self_test` looks at, as llama-server reports it.

doubt = await self_test(worker, SelfTests(settings.self_tests, stamp))
"""

from __future__ import annotations

import math

from edgellm.engine.finite import not_finite
from edgellm.run.self_test import N_TOKENS, PROMPT, LikeliestToken, SelfTests
from edgellm.serve.workers.catalog import ModelKind
from edgellm.serve.workers.upstream import UpstreamRefused
from edgellm.serve.workers.worker import Worker


async def self_test(worker: Worker, tests: SelfTests) -> str | None:
    """What is wrong with the first tokens of a model that writes text; None if they look sane, or are known to.

    Raises:
        NotFinite: the model computes no numbers.
    """
    model = worker.model
    if model.kind not in (ModelKind.CHAT, ModelKind.COMPLETION) or model.adapters:
        return None
    if known := tests.known(model.path):
        return known.doubt
    try:
        tokens = await _first_tokens(worker)
    except UpstreamRefused:  # the context is too short for it
        return None
    return tests.judge(model.path, tokens, model.outline.n_vocab, model.outline.n_params)


async def _first_tokens(worker: Worker) -> list[LikeliestToken]:
    body = {"prompt": PROMPT, "n_predict": N_TOKENS, "temperature": 0, "n_probs": 1, "ignore_eos": True,
            "cache_prompt": False}  # fmt: skip
    reply = await worker.upstream.post("/completion", body)
    tokens = []
    for each in reply["completion_probabilities"]:
        if each["logprob"] is None:  # what llama-server makes of NaN
            raise not_finite(worker.model.name)
        tokens.append(LikeliestToken(each["id"], math.exp(each["logprob"])))
    return tokens
