"""Rows, answers and errors survive the way over the wire."""

import json

import pytest

from edgellm.batch.slots import RowJob
from edgellm.engine.sampling import Sampling
from edgellm.errors import EngineError, PromptTooLong
from edgellm.nodes.messages import failed, job_from, job_message, packed, result_from, result_message, unpacked
from edgellm.run.batching import Result
from edgellm.run.message import Message


@pytest.mark.parametrize(
    "job",
    [
        RowJob(7, (Message(role="system", content="a\0b"), Message(role="user", content="Grüße 🌍"))),
        RowJob(8, prompt="x", sampling=Sampling(temperature=0, seed=3, grammar='root ::= "a"'), stop=("a", "b")),
        RowJob(9, prompt=(1, 2, 3), max_tokens=5, loop_guard=False, retry=True, hint="h"),
    ],
)
def test_a_job_is_the_same_afterwards(job: RowJob) -> None:
    assert job_from(unpacked(packed(job_message(job)))) == job


def test_a_result_is_the_same_afterwards() -> None:
    result = Result(7, "text", "stop", 10, 4, 3, 0.5, 0.25, drafted_tokens=2, accepted_tokens=1)
    assert result_from(unpacked(packed(result_message(result)))) == result


def test_an_error_keeps_its_class_its_words_and_its_facts() -> None:
    error = PromptTooLong("the prompt has 600 tokens", why="512 fit", hint="-c 1024", n_tokens=600)
    back = result_from(json.loads(packed(result_message(failed(3, error))))).error
    assert isinstance(back, PromptTooLong) and vars(back) == vars(error)


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\x80\x04", None, b"[" * 100_000])
def test_what_is_no_message_is_an_error_of_the_node(data: bytes) -> None:
    with pytest.raises(EngineError, match="no sensible answer"):
        unpacked(data)
