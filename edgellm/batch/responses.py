"""One line of a batch's output, as OpenAI's batch files have it: the answer, or an error object in its place.

line = answered(row, "q-17", completion(result, is_chat=True, id_=row.id, name="smollm2", created=now))
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgellm.batch.lines import Line
from edgellm.errors import EdgellmError
from edgellm.run.batching import Result
from edgellm.wire.openai_answers import CHAT_COMPLETION, TEXT_COMPLETION, chat_choice, text_choice, usage

if TYPE_CHECKING:
    from edgellm.documents.answers.citation import Citation
    from edgellm.documents.answers.question import DocumentAnswer


def answered(line: Line, custom_id: str | None, body: dict[str, Any]) -> bytes:
    """The output line of a row with a response."""
    response = {"status_code": 200, "request_id": line.id, "body": body}
    return _line(line, custom_id, response, None)


def refused(line: Line, custom_id: str | None, error: EdgellmError, written: dict[str, Any] | None = None) -> bytes:
    """The output line of a row that failed; `written` is the body of an answer that is not what was asked for."""
    message = f"{error.what}: {error.why}" if error.why else error.what
    described = {"code": error.code, "message": message, "line": line.number}
    return _line(line, custom_id, None, described | ({} if written is None else {"completion": written}))


def _line(line: Line, custom_id: str | None, response: Any, error: Any) -> bytes:
    row = {"id": line.id, "custom_id": custom_id, "response": response, "error": error}
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def completion(result: Result, *, is_chat: bool, id_: str, name: str, created: int) -> dict[str, Any]:
    """The body of an answer: to messages, or the continuation of a text."""
    choice = (chat_choice if is_chat else text_choice)(0, result.text, result.finish_reason)
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
    return {
        "id": id_,
        "object": CHAT_COMPLETION if is_chat else TEXT_COMPLETION,
        "created": created,
        "model": name,
        "choices": [choice],
        "usage": usage(result.prompt_tokens, result.completion_tokens, result.reused_tokens),
        "timings": timings,
    }


def cite(body: dict[str, Any], found: DocumentAnswer, n_forgotten: int) -> None:
    """Put the check of an answer from documents into its body."""
    body["choices"][0]["message"]["annotations"] = [_annotation(each) for each in found.citations]
    names = ("question", "refused", "basis", "reason", "unknown_numbers", "n_left_out")
    checked = {name: getattr(found, name) for name in names}
    body["edgellm"] = {"documents": {**checked, "n_forgotten": n_forgotten}}


def _annotation(citation: Citation) -> dict[str, Any]:
    """A citation in OpenAI's form, with its place and its quotation."""
    place = asdict(citation)
    return {"type": "file_citation", "filename": place.pop("file"), **place}


def _rate(count: int, seconds: float) -> float:
    return round(count / seconds, 2) if count > 0 and seconds > 0 else 0.0
