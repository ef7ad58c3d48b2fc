"""A prompt without its oldest part, for requests that ask for that instead of an error.

shorter_messages(messages, excess=120, total=4200)
"""

from __future__ import annotations

from typing import Any

from edgellm.serve.problems import Problem
from edgellm.serve.upstream import Upstream, UpstreamRefused

# Tokens of an answer that a shortened prompt leaves room for.
LEFT_FOR_ANSWER = 256


async def shortened(upstream: Upstream, body: dict[str, Any], error: UpstreamRefused) -> dict[str, Any]:
    """The body that the worker refused as too long, without the oldest part of its prompt."""
    n_prompt, n_ctx = int(error.error["n_prompt_tokens"]), int(error.error["n_ctx"])
    if "messages" in body:
        return {**body, "messages": shorter_messages(body["messages"], n_prompt - n_ctx + 1, n_prompt)}
    return {**body, "prompt": await shorter_prompt(upstream, body["prompt"], n_ctx)}


def shorter_messages(messages: list[dict[str, Any]], excess: int, total: int) -> list[dict[str, Any]]:
    """Without the oldest messages that are no system messages; the last question stays.

    How much to drop is estimated from the share of the characters that the excess of the tokens is; whoever asks tries
    again if that was too little.
    """
    n_chars = sum(_length(message) for message in messages)
    to_drop = n_chars * (excess + LEFT_FOR_ANSWER) / max(total, 1)
    questions = [index for index, message in enumerate(messages) if message["role"] == "user"]
    last = questions[-1] if questions else len(messages) - 1
    kept: list[dict[str, Any]] = []
    dropped = 0.0
    for index, message in enumerate(messages):
        # An answer or a tool's result does not stand without what it answers.
        follows = not [each for each in kept if each["role"] != "system"] and message["role"] in ("assistant", "tool")
        if index < last and message["role"] != "system" and (dropped < to_drop or follows):
            dropped += _length(message)
        else:
            kept.append(message)
    if len(kept) == len(messages):
        why = "the last question alone, with the system message, is longer than the context"
        raise Problem(400, why, code="context_length_exceeded", field="messages")
    return kept


async def shorter_prompt(upstream: Upstream, prompt: Any, n_ctx: int) -> Any:
    """The last tokens of a prompt; of several prompts none is touched."""
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        message = "of several prompts none can be truncated; send them one by one"
        raise Problem(400, message, code="context_length_exceeded", field="prompt")
    if isinstance(prompt, str):
        prompt = (await upstream.post("/tokenize", {"content": prompt, "add_special": True}))["tokens"]
    return prompt[-max(1, n_ctx - min(LEFT_FOR_ANSWER, n_ctx // 2)) :]


def _length(message: dict[str, Any]) -> int:
    return len(message.get("content") or "") + 16
