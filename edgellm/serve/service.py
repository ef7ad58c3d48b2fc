"""What the endpoints work with.

service = Service(options, catalog, pool, metrics)
service.model("smollm2:latest")
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from edgellm.errors import DoesNotFit
from edgellm.models.memory import choose_context
from edgellm.serve.answers import Answer, Protocol, answer
from edgellm.serve.catalog import Kind, ServedModel
from edgellm.serve.metrics import Metrics
from edgellm.serve.options import ServeOptions
from edgellm.serve.pool import Pool
from edgellm.serve.problems import TOO_LONG, Problem
from edgellm.serve.requests import Sampling
from edgellm.serve.responding import Output
from edgellm.serve.scoring_pool import ScoringPool
from edgellm.serve.shortening import shortened
from edgellm.serve.structures import Structures
from edgellm.serve.tool_prelude import forced
from edgellm.serve.upstream import UpstreamRefused
from edgellm.serve.worker import Worker

# So many past tokens are looked at. The worker reserves memory for all of them, and no context has more of them.
PAST_WINDOWS = frozenset({"repeat_last_n", "dry_penalty_last_n"})


@dataclass(frozen=True, slots=True)
class Service:
    """A server's parts; `started` is in seconds since 1970."""

    options: ServeOptions
    pool: Pool
    scoring: ScoringPool
    structures: Structures
    metrics: Metrics
    started: float = field(default_factory=time.time)

    def model(self, name: str | None, *kinds: Kind) -> ServedModel:
        """The model of that name; without a name the only one that can do it, or the first."""
        if name is not None:
            return self.pool.catalog.get(name)
        able = [model for model in self.pool.catalog if not kinds or model.kind in kinds]
        if not able:
            raise Problem(400, "no model here can do this; name one in model", code="missing-field", field="model")
        return able[0]

    @asynccontextmanager
    async def answering(
        self,
        worker: Worker,
        protocol: Protocol,
        body: dict[str, Any],
        asked: Sampling,
        out: Output,
    ) -> AsyncIterator[Answer]:
        """An answer under way, counted; what the model's recipe recommends is added to what was asked.

        A prompt that is too long is shortened if that was asked for. What is written to `out` is sent whenever the
        worker has said no more for now.
        """
        guard = self.options.loop_guard if asked.loop_guard is None else asked.loop_guard
        whole = {"model": worker.model.name, **worker.model.sampling, **body}
        for window in PAST_WINDOWS & whole.keys():
            n_ctx = worker.plan.n_ctx
            whole[window] = min(whole[window], n_ctx) if whole[window] >= 0 else n_ctx
        _check(whole, worker.model)
        whole = await self.structures.understood(worker.model, whole)
        if worker.model.has_prelude:
            whole = forced(whole)
        whole = _continued(whole)
        # Of several answers at once the worker can stop none alone.
        guarded = guard and whole.get("n", 1) == 1 and not _has_several(whole.get("prompt"))
        begin = time.perf_counter()
        async with AsyncExitStack() as stack:
            while True:
                try:
                    asking = answer(
                        worker, protocol, whole, guard=guarded, max_seconds=asked.max_time, before_wait=out.flush
                    )
                    events = await stack.enter_async_context(asking)
                    break
                except UpstreamRefused as error:
                    if error.error.get("type") != TOO_LONG or not asked.wants_truncation:
                        raise
                    whole = await shortened(worker.upstream, whole, error)
            stack.enter_context(self.metrics.watching(worker.model.name, events.ending, begin))
            yield events

    async def context_of(self, model: ServedModel) -> int:
        """The tokens that a request to a model has room for: now, or if it were loaded now."""
        for state in self.pool.loaded:
            if state.model is model and state.worker is not None:
                return state.worker.plan.n_ctx
        try:
            return (await asyncio.to_thread(self.pool.plan, model)).n_ctx
        except DoesNotFit:  # until others make room
            n_ctx_train = model.outline.n_ctx_train
            return choose_context(n_ctx_train, self.options.n_ctx and min(self.options.n_ctx, n_ctx_train))


def check_tokens(prompts: Any, model: ServedModel, field: str) -> None:
    """Refuse numbers that are no tokens of the model's vocabulary, in one or several prompts; texts are none."""
    for each in prompts if isinstance(prompts, list) else ():
        if isinstance(each, list):
            check_tokens(each, model, field)
        elif isinstance(each, int) and each >= model.outline.n_vocab:
            message = f"{field}: {model.name} has no token {each}, only 0 to {model.outline.n_vocab - 1}"
            raise Problem(400, message, code="bad-field", field=field)


def _has_several(prompt: Any) -> bool:
    """Whether these are several prompts; one may be a list of tokens."""
    return isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)


def _continued(body: dict[str, Any]) -> dict[str, Any]:
    """A chat that ends with a part of the answer gets the rest; by itself the worker would repeat that part."""
    last = (body.get("messages") or [{}])[-1]
    if last.get("role") != "assistant" or last.get("tool_calls") or "continue_final_message" in body:
        return body
    return {**body, "continue_final_message": "content", "add_generation_prompt": False}


def _check(body: Mapping[str, Any], model: ServedModel) -> None:
    """Refuse what the worker would leave out in silence."""
    for token in body.get("logit_bias") or ():
        if int(token) >= model.outline.n_vocab:
            message = f"logit_bias: {model.name} has no token {token}, only 0 to {model.outline.n_vocab - 1}"
            raise Problem(400, message, code="bad-field", field="logit_bias")
    check_tokens(body.get("prompt"), model, "prompt")
    form = (body.get("response_format") or {}).get("type", "text")
    if form != "text" and body.get("tools") and body.get("tool_choice") != "none":
        message = f"response_format: {form} cannot be combined with tools; the model could not call them"
        raise Problem(400, message, code="bad-field", field="response_format")


def service_of(request: Request) -> Service:
    """The service that a request is for."""
    service: Service = request.app.state.service
    return service
