"""Errors as HTTP clients expect them: a status, a code and a message; each protocol has its own form for them.

raise Problem(400, "max_tokens must be positive", code="bad-request", field="max_tokens")
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgellm.errors import (
    AnswerMismatch,
    ChatChanged,
    ChatNotFound,
    CollectionNotFound,
    CorruptFile,
    DoesNotFit,
    EdgellmError,
    EngineError,
    ModelNotFound,
    NotFinite,
    PromptTooLong,
    WorkerLost,
)
from edgellm.machine.child import ChildFailed
from edgellm.wire.body import FieldError

RETRY_SECONDS = 2
# OpenAI's code for a prompt that is too long.
CONTEXT_EXCEEDED = "context_length_exceeded"
_DIRECTORIES = re.compile(r"(?<![\w/])/(?:[^\s/'\"]+/)+")


class Problem(Exception):
    """A request that gets an error. `field` names the part of the request that is wrong, `facts` are for programs.

    `retry_after` is in seconds, where trying again may help; the message then says so too.
    """

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
        if retry_after is not None:
            message = f"{message}; try again in {retry_after} second{'s' * (retry_after != 1)}"
        super().__init__(message)
        self.status, self.message, self.code, self.field = status, message, code, field
        self.retry_after = retry_after
        self.facts = {name: value for name, value in facts.items() if value is not None}

    @property
    def headers(self) -> dict[str, str]:
        """`Retry-After`, where trying again may help."""
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}

    @property
    def kind(self) -> str:
        """OpenAI's and Anthropic's name for this sort of error."""
        kinds = {401: "authentication_error", 403: "permission_error", 404: "not_found_error",
                 413: "request_too_large", 429: "rate_limit_error", 503: "overloaded_error"}  # fmt: skip
        return kinds.get(self.status, "invalid_request_error" if self.status < 500 else "api_error")


def problem_of(error: EdgellmError) -> Problem:
    """What a client hears of an error inside: the reason, but never where files lie.

    Only a process that has ended may do better next time (503). What fails for good is the request's own matter (4xx),
    because clients send a request again that was answered with 5xx.
    """
    message = _DIRECTORIES.sub("", error.what if not error.why else f"{error.what}: {error.why}")
    if isinstance(error, FieldError):
        return Problem(400, message, code=error.code, field=error.field)
    if isinstance(error, ModelNotFound):
        return Problem(404, message, code="model_not_found", field="model")
    if isinstance(error, CollectionNotFound):
        return Problem(404, message, code=error.code, field="model")
    if isinstance(error, ChatNotFound):
        return Problem(404, message, code=error.code)
    if isinstance(error, ChatChanged):
        return Problem(409, message, code=error.code)
    if isinstance(error, PromptTooLong):
        return _too_long(error, message)
    if isinstance(error, AnswerMismatch):
        return Problem(422, message, code=error.code)
    if isinstance(error, (ChildFailed, WorkerLost)):
        return Problem(503, message, code=error.code, retry_after=RETRY_SECONDS)
    if isinstance(error, NotFinite):  # no use in trying again
        return Problem(500, message, code=error.code)
    if isinstance(error, (CorruptFile, DoesNotFit, EngineError)):
        return Problem(422, message, code=error.code, field="model")
    return Problem(400 if error.exit_code == 2 or error.code == "bad-request" else 500, message, code=error.code)


def _too_long(error: PromptTooLong, message: str) -> Problem:
    n_tokens, n_ctx = (error.facts.get(name) for name in ("prompt_tokens", "n_ctx"))
    if not isinstance(n_tokens, int) or not isinstance(n_ctx, int):  # it is empty
        return Problem(400, message, code="bad-request", field="prompt")
    remedy = "the answer must fit in too; shorten it, or start the server with a larger --ctx-size"
    message = exceeds_context("the prompt", n_tokens, n_ctx, remedy)
    return Problem(400, message, code=CONTEXT_EXCEEDED, field="prompt", n_prompt_tokens=n_tokens, n_ctx=n_ctx)


def exceeds_context(what: str, n_tokens: int, n_ctx: int, remedy: str) -> str:
    """The message for a text that is too long, in the words by which clients recognise it (litellm and its users)."""
    return f"{what} is too long: {n_tokens:,} tokens, which exceeds the available context size of {n_ctx:,}; {remedy}"


def uncached(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers of an error, which no cache may keep."""
    return {"Cache-Control": "no-store", **headers}
