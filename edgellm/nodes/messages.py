"""Rows and answers as JSON, between the batch, the driver and the nodes.

job_from(job_message(job)) == job
result_from(result_message(result)) == result
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from edgellm.batch.slots import RowJob
from edgellm.engine.sampling import Sampling
from edgellm.errors import EdgellmError, EngineError
from edgellm.machine.child import Message, as_raised, describe
from edgellm.run.batching import Result


def job_message(job: RowJob) -> Message:
    """A job as a message."""
    return asdict(job)


def job_from(message: Message) -> RowJob:
    """The job of a message."""
    prompt = message["prompt"]
    return RowJob(**{
        **message,
        "messages": tuple(message["messages"]),
        "prompt": prompt if isinstance(prompt, str) else tuple(prompt),
        "sampling": Sampling(**message["sampling"]),
        "stop": tuple(message["stop"]),
    })  # fmt: skip


def result_message(result: Result) -> Message:
    """A result as a message."""
    error = result.error
    return {**asdict(replace(result, error=None)), "error": None if error is None else describe(error)}


def result_from(message: Message) -> Result:
    """The result of a message."""
    error = message["error"]
    return Result(**{**message, "error": None if error is None else as_raised(error)})


def failed(key: int, error: EdgellmError) -> Result:
    """The result of a job that has no answer."""
    return Result(key, "", "error", 0, 0, 0, 0.0, 0.0, error)


def packed(message: Message) -> bytes:
    """A message as bytes, which Ray carries as they are."""
    return json.dumps(message, allow_nan=False).encode()


def unpacked(data: Any) -> Message:
    """The message in bytes of a node; EngineError if there is none."""
    try:
        message = json.loads(data)
    except (TypeError, ValueError, RecursionError):
        message = None
    if not isinstance(message, dict):
        raise EngineError("a node of the cluster gave no sensible answer", why=repr(data)[:100])
    return message
