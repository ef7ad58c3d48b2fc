"""Fields of requests that ask for nothing: what they ask for is so anyway. The one rule for every protocol.

is_neutral("n", 1)  ->  True
reason("store")     ->  "nothing is kept here"

A field that is null, an empty text, an empty list or an empty object asks for nothing, whatever its name. For other
values the table below says what edgellm does anyway. It applies to a field that a request does not know, at any depth,
and to one that a place (a batch, `echo`) cannot honour.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CPU = "edgellm runs on the CPU"
_TEXT_ONLY = "the models here read and write text only"
_NOT_KEPT = "nothing is kept here; send what was said before in the request"
_ONE_TIER = "there is one tier"
_NO_BEAMS = "there is no beam search"
_SERVER = "it cannot be set for a request"

# Fields by name: the values that ask for nothing, and why there are no others. No reason: another place honours it.
_FIELDS: Mapping[str, tuple[tuple[Any, ...], str]] = {
    # OpenAI's.
    "n": ((1,), ""),
    "best_of": ((1,), "each answer is drawn once; only 1 is accepted"),
    "suffix": ((), "text cannot be filled in between; only what follows the prompt is written"),
    "echo": ((False,), ""),
    "stream": ((False,), ""),
    "logprobs": ((False,), ""),
    "top_logprobs": ((0,), ""),
    "store": ((False,), _NOT_KEPT),
    "background": ((False,), _NOT_KEPT),
    "previous_response_id": ((), _NOT_KEPT),
    "conversation": ((), _NOT_KEPT),
    "prompt": ((), "prompts are not kept here; send the text itself"),
    "context_management": ((), "nothing is edited out of a conversation"),
    "service_tier": (("auto", "default", "standard_only"), _ONE_TIER),
    "speed": (("standard",), _ONE_TIER),
    "modalities": ((["text"],), _TEXT_ONLY),
    "audio": ((), _TEXT_ONLY),
    "verbosity": (("medium",), "the length cannot be chosen; ask for it in the prompt"),
    "tool_choice": (("auto", "none"), ""),
    "parallel_tool_calls": ((True, False), ""),
    "functions": ((), "send them as tools"),
    "function_call": (("auto", "none"), "send it as tool_choice, and an earlier call as tool_calls"),
    "web_search_options": ((), "the web is not searched"),
    "prediction": ((), "answers are not predicted"),
    "response_format": (({"type": "text"},), ""),
    "add_generation_prompt": ((True,), ""),
    "continue_final_message": ((False,), ""),
    "include_obfuscation": ((False,), "streams have no padding"),
    # Anthropic's.
    "container": ((), "no code is run here"),
    "mcp_servers": ((), "the server connects to no others; call their tools in the client"),
    "inference_geo": (("global",), "there is one place"),
    # vLLM's, and those of servers like it.
    "use_beam_search": ((False,), _NO_BEAMS),
    "length_penalty": ((1,), _NO_BEAMS),
    "early_stopping": ((False,), _NO_BEAMS),
    "min_tokens": ((0,), ""),
    "skip_special_tokens": ((True,), "control tokens are never part of the text"),
    "spaces_between_special_tokens": ((True,), "control tokens are never part of the text"),
    "include_stop_str_in_output": ((False,), "an answer ends before the stop text"),
    "include_reasoning": ((True,), ""),
    "separate_reasoning": ((True,), ""),
    "stream_reasoning": ((True,), ""),
    "return_token_ids": ((False,), ""),
    "return_token_strs": ((False,), ""),
    "return_tokens_as_token_ids": ((False,), ""),
    "priority": ((0,), "requests are answered in their order"),
    # LM Studio's and Ollama's.
    "ttl": ((), "how long a model stays loaded is set for the server: edgellm serve --keep-alive SECONDS"),
    "keep_alive": ((), "how long a model stays loaded is set for the server: edgellm serve --keep-alive SECONDS"),
    "draft_model": ((), "there is no speculative decoding by a second model"),
    # llama-server's.
    "ignore_eos": ((False,), ""),
    "cache_prompt": ((True,), ""),
    "mirostat": ((0,), ""),
    "timings_per_token": ((False,), ""),
    "return_progress": ((False,), ""),
    "return_tokens": ((False,), ""),
    "post_sampling_probs": ((False,), ""),
    "reasoning_format": (("auto", "deepseek"), "thoughts come apart from the answer"),
    "id_slot": ((-1,), "the server chooses the slot"),
    "n_probs": ((0,), ""),
    "n_keep": ((0,), "the context is not shifted"),
    "n_discard": ((0,), "the context is not shifted"),
    "n_indent": ((0,), ""),
    "min_keep": ((0,), ""),
    "dynatemp_range": ((0,), ""),
    # edgellm's own.
    "truncate": ((False,), ""),
    "token_ids": ((False,), ""),
    # Ollama's.
    "shift": ((False,), "the context is not shifted: an answer that reaches its end stops with done_reason length"),
    "template": ((), "a model has its own template; raw takes a prompt that is templated already"),
    "context": ((), "a conversation is not kept as token ids; send its messages to /api/chat"),
    "raw": ((False,), ""),
    "num_thread": ((0,), "it is set for the server: edgellm serve --threads N"),
    "num_batch": ((512,), "edgellm chooses it"),
    "num_gpu": ((0, -1), f"there are no GPU layers, {_CPU}"),
    "main_gpu": ((0,), _CPU),
    "low_vram": ((False,), _CPU),
    "numa": ((False,), _SERVER),
    "f16_kv": ((True,), "it is set for the server: edgellm serve --kv TYPE"),
    "use_mmap": ((True,), "models are always mapped"),
    "use_mlock": ((False,), _SERVER),
    "logits_all": ((False,), _SERVER),
    "vocab_only": ((False,), _SERVER),
    "embedding_only": ((False,), _SERVER),
    "tfs_z": ((1,), "tail-free sampling is not in llama.cpp any more; min_p does much the same"),
    "penalize_newline": ((True,), "a newline is penalized as every other token"),
}
# To send one of these at all asks for something, even if it is empty.
_ON_WHEN_SENT = frozenset({"web_search_options"})


def is_neutral(name: str, value: Any) -> bool:
    """Whether a field of this name and value asks for nothing."""
    if value is None:
        return True
    if isinstance(value, (str, list, dict)) and not value:
        return name not in _ON_WHEN_SENT
    values, _ = _FIELDS.get(name, ((), ""))
    return any(_same(value, each) for each in values)


def reason(name: str) -> str:
    """Why other values of a field cannot be honoured anywhere; empty if there is nothing to say."""
    return _FIELDS.get(name, ((), ""))[1]


def _same(value: Any, other: Any) -> bool:
    """As JSON compares them: 1 is 1.0, and neither is true, which Python counts as 1."""
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)
