"""Errors as HTTP clients expect them: a status, and one JSON object in the manner of the protocol that was spoken.

raise Problem(400, "max_tokens must be positive", code="bad-request", field="max_tokens")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgellm.errors import DoesNotFit, EdgellmError, EngineError, ModelNotFound
from edgellm.serve.upstream import UpstreamRefused

RETRY_SECONDS = 2
# What the worker calls a prompt that is longer than a slot's context.
TOO_LONG = "exceed_context_size_error"


class Problem(Exception):
    """A request that gets an error. `field` names the part of the request that is wrong, `facts` are for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        field: str | None = None,
        retry_after: int | None = None,
        **facts: str | int | float | None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.field = status, message, code, field
        self.retry_after = retry_after
        self.facts = {name: value for name, value in facts.items() if value is not None}

    @property
    def headers(self) -> dict[str, str]:
        """When to come again."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    @property
    def kind(self) -> str:
        """OpenAI's and Anthropic's name for this sort of error."""
        kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
                 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error"}  # fmt: skip
        return kinds.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")

    def as_openai(self) -> dict[str, Any]:
        """`{"error": {"message", "type", "param", "code", ...}}`."""
        error = {"message": self.message, "type": self.kind, "param": self.field, "code": self.code, **self.facts}
        return {"error": error}

    def as_ollama(self) -> dict[str, Any]:
        """`{"error": "..."}`."""
        return {"error": self.message}

    def as_anthropic(self) -> dict[str, Any]:
        """`{"type": "error", "error": {"type", "message"}}`."""
        return {"type": "error", "error": {"type": self.kind, "message": self.message}}

    def for_path(self, path: str) -> dict[str, Any]:
        """In the protocol that a path belongs to."""
        if path.startswith("/v1/messages"):
            return self.as_anthropic()
        is_ollama = path.startswith("/api/") and not path.startswith(("/api/v0/", "/api/v1/"))  # those are LM Studio's
        return self.as_ollama() if is_ollama else self.as_openai()


def problem_of(error: EdgellmError | UpstreamRefused) -> Problem:
    """What a client is told of an error inside; nothing of where files lie."""
    if isinstance(error, UpstreamRefused):
        return _refused(error)
    message = error.what if not error.why else f"{error.what}: {error.why}"
    if isinstance(error, ModelNotFound):
        return Problem(404, message, code="model_not_found", field="model")
    if isinstance(error, DoesNotFit):
        return Problem(503, message, code=error.code)
    if isinstance(error, EngineError):
        return Problem(503, error.what, code=error.code, retry_after=RETRY_SECONDS)
    return Problem(400 if error.exit_code == 2 or error.code == "bad-request" else 500, message, code=error.code)


def _refused(error: UpstreamRefused) -> Problem:
    told = error.error
    message = str(told.get("message") or "the worker refused the request")
    if told.get("type") == TOO_LONG:
        return too_long(int(told.get("n_prompt_tokens", 0)), int(told.get("n_ctx", 0)))
    if counts := _TOO_LARGE.match(message):  # of a text to embed or to rank
        return too_long(int(counts[1]), int(counts[2]), field="input", remedy="shorten it")
    status = error.reply.status
    if status == 500 and not any(fault in message for fault in _FAULTS):
        status = 400  # the worker calls so what it cannot make a prompt, a grammar or a template of
    return Problem(status if status in (400, 404) else 500, _plain(message), code=_code(told))


# What the worker says, with status 500, of faults that are its own.
_FAULTS = ("got exception", "ompute error", "failed to", "context shift", "worker refused")


def _plain(message: str) -> str:
    """A message of bounded length, on one line; the worker repeats what it cannot read."""
    return " ".join(message.split())[:500]


def _code(told: Mapping[str, Any]) -> str:
    kind = str(told.get("type") or "worker-failed")
    return "bad-request" if kind in ("server_error", "invalid_request_error") else kind


_TOO_LARGE = re.compile(r"input \((\d+) tokens\) is too large to process.*batch size: (\d+)\)", re.DOTALL)
_REMEDY = 'shorten it, serve with a larger --ctx-size, or send "truncate": true to drop its oldest part'


def too_long(n_prompt: int, n_ctx: int, *, field: str = "messages", remedy: str = _REMEDY) -> Problem:
    """A prompt that does not fit into the context."""
    message = f"the prompt has {n_prompt:,} tokens, the context {n_ctx:,}; {remedy}"
    return Problem(400, message, code="context_length_exceeded", field=field, n_prompt_tokens=n_prompt, n_ctx=n_ctx)


def bodiless(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers of an answer that is an error."""
    return {"Cache-Control": "no-store", **headers}
