"""One line of a batch's output, as OpenAI's batch files have it: the answer, or an error object in its place.

line = answered(row, "q-17", chat_completion(result, id_=row.id, name="smollm2", created=now))
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import EdgellmError
from edgellm.run.batch_lines import Line
from edgellm.run.batching import Result


def answered(line: Line, custom_id: str | None, body: dict[str, Any]) -> bytes:
    """The output line of a row with a response."""
    response = {"status_code": 200, "request_id": line.id, "body": body}
    return _line(line, custom_id, response, None)


def refused(line: Line, custom_id: str | None, error: EdgellmError) -> bytes:
    """The output line of a row that failed."""
    message = f"{error.what}: {error.why}" if error.why else error.what
    return _line(line, custom_id, None, {"code": error.code, "message": message, "line": line.number})


def _line(line: Line, custom_id: str | None, response: Any, error: Any) -> bytes:
    row = {"id": line.id, "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def chat_completion(result: Result, *, id_: str, name: str, created: int) -> dict[str, Any]:
    """The body of an answer to messages."""
    message = {"role": "assistant", "content": result.text}
    choice = {"index": 0, "message": message, "finish_reason": result.finish_reason, "logprobs": None}
    return _body(result, id_, "chat.completion", name, created, choice)


def text_completion(result: Result, *, id_: str, name: str, created: int) -> dict[str, Any]:
    """The body of the continuation of a text."""
    choice = {"index": 0, "text": result.text, "finish_reason": result.finish_reason, "logprobs": None}
    return _body(result, id_, "text_completion", name, created, choice)


def _body(result: Result, id_: str, kind: str, name: str, created: int, choice: dict[str, Any]) -> dict[str, Any]:
    usage = {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.completion_tokens,
        "total_tokens": result.prompt_tokens + result.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": result.reused_tokens},
    }
    # The first token comes out of the prompt's last computation.
    computed, drawn = result.prompt_tokens - result.reused_tokens, max(0, result.completion_tokens - 1)
    timings = {
        "prompt_n": computed,
        "prompt_ms": round(1000 * result.prefill_seconds, 3),
        "prompt_per_second": _rate(computed, result.prefill_seconds),
        "predicted_n": result.completion_tokens,
        "predicted_ms": round(1000 * result.decode_seconds, 3),
        "predicted_per_second": _rate(drawn, result.decode_seconds),
    }
    head = {"id": id_, "object": kind, "created": created, "model": name}
    return {**head, "choices": [choice], "usage": usage, "timings": timings}


def embedding_list(
    vectors: npt.NDArray[np.float32], texts: Sequence[Sequence[int]], *, name: str, as_base64: bool
) -> dict[str, Any]:
    """The body of some vectors; base64 is of little-endian float32, as OpenAI's clients expect it."""
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode() if as_base64 else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    n_tokens = sum(map(len, texts))
    usage = {"prompt_tokens": n_tokens, "total_tokens": n_tokens}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if count > 0 and seconds > 0 else 0.0
