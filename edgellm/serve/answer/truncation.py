"""Drops the oldest part of a prompt that is too long, for requests that prefer this to an error.

shorter_messages(messages, excess=120, total=4200)
"""

from __future__ import annotations

from typing import Any

from edgellm.serve.http.problems import CONTEXT_EXCEEDED, Problem, exceeds_context
from edgellm.serve.workers.upstream import Upstream, UpstreamRefused

# A shortened prompt leaves room for this many tokens of an answer.
LEFT_FOR_ANSWER = 256


async def shortened(upstream: Upstream, body: dict[str, Any], error: UpstreamRefused) -> dict[str, Any]:
    """The body without the oldest part of its prompt, after the worker refused it as too long."""
    n_prompt, n_ctx = int(error.error["n_prompt_tokens"]), int(error.error["n_ctx"])
    if "messages" in body:
        kept = shorter_messages(body["messages"], n_prompt - n_ctx + 1, n_prompt)
        if len(kept) == len(body["messages"]):
            remedy = "nothing of it can be dropped: the last question, the system message and the tools stay"
            message = exceeds_context("the prompt", n_prompt, n_ctx, remedy)
            facts = {"n_prompt_tokens": n_prompt, "n_ctx": n_ctx}
            raise Problem(400, message, code=CONTEXT_EXCEEDED, field="messages", **facts)
        return {**body, "messages": kept}
    return {**body, "prompt": await shorter_prompt(upstream, body["prompt"], n_ctx)}


def shorter_messages(messages: list[dict[str, Any]], excess: int, total: int) -> list[dict[str, Any]]:
    """Drop the oldest messages, but no system messages and not the last question.

    The amount is estimated: the same share of the characters as `excess` is of `total` tokens. The caller tries again
    if it was too little.
    """
    n_chars = sum(_length(message) for message in messages)
    to_drop = n_chars * (excess + LEFT_FOR_ANSWER) / max(total, 1)
    questions = [index for index, message in enumerate(messages) if message["role"] == "user"]
    last = questions[-1] if questions else len(messages) - 1
    kept: list[dict[str, Any]] = []
    dropped = 0.0
    for index, message in enumerate(messages):
        # Keep no answer or tool result without the message that it answers.
        follows = not [each for each in kept if each["role"] != "system"] and message["role"] in ("assistant", "tool")
        if index < last and message["role"] != "system" and (dropped < to_drop or follows):
            dropped += _length(message)
        else:
            kept.append(message)
    return kept


async def shorter_prompt(upstream: Upstream, prompt: Any, n_ctx: int) -> Any:
    """The last tokens of a prompt; a request with several prompts is refused."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        message = "one of several prompts exceeds the available context size; send them one by one to truncate them"
        raise Problem(400, message, code=CONTEXT_EXCEEDED, field="prompt")
    head: list[int] = []
    if isinstance(prompt, str):
        whole, bare = [
            (await upstream.post("/tokenize", {"content": prompt, "add_special": special}))["tokens"]
            for special in (True, False)
        ]
        head, prompt = ([], whole) if whole[:1] == bare[:1] else (whole[:1], whole[1:])  # BOS stays
    room = n_ctx - min(LEFT_FOR_ANSWER, n_ctx // 2) - len(head)
    return [*head, *prompt[-max(1, room) :]]


def _length(message: dict[str, Any]) -> int:
    return len(message.get("content") or "") + 16
