"""Rows that ask documents, on a scripted engine: what is searched, what is checked, and what a resume compares."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.batch.record import differences, not_stored
from edgellm.batch.requests import documents_named
from edgellm.batch.rows import RowAnswer, answer_rows
from edgellm.batch.scheduler import BatchOptions, Scheduler
from edgellm.batch.slots import LocalSlots
from edgellm.documents.answers.prompt import NOT_FOUND
from edgellm.engine.fake import FakeModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import CollectionNotFound
from edgellm.models.fit.memory import RunPlan
from edgellm.run.loader import LoadedModel
from tests.batch.test_job import run
from tests.documents.small import SmallSource, put

QUESTION = "How long is the warranty of the QF-210?"
ANSWER = "The warranty of the QF-210 is 24 months."


class Copying(FakeModel):
    """Answers with what the first source says, or with the question where there is none."""

    def reply(self, prompt: str) -> str:
        if "[1] " in prompt:
            return prompt.partition("[1] ")[2].split("\n")[1]
        return "no sources"


class Collections:
    """One collection, named office."""

    def __init__(self, source: SmallSource) -> None:
        self.source, self.is_closed = source, False

    def open(self, name: str) -> SmallSource:
        if name != "office":
            raise CollectionNotFound(f"there are no documents named {name}")
        return self.source

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Collections]:
    found = Collections(SmallSource(tmp_path / "office.sqlite3"))
    yield found
    found.source.close()


def answers(office: Collections, *rows: Any, **options: Any) -> list[RowAnswer]:
    how = BatchOptions("fake", {"fake"}, Sampling(seed=1), documents=office, **options)
    plan = RunPlan(n_ctx=options.pop("n_ctx", 4000), n_slots=2, n_batch=64)
    return list(answer_rows(rows, Scheduler(LocalSlots(LoadedModel("fake", Copying(), plan)), how)))


def test_rows_of_a_file_carry_their_citations(office: Collections, tmp_path: Path) -> None:
    lines = [
        {"prompt": QUESTION, "docs": "office"},
        {"prompt": "Does the Toronto office repair it?", "docs": "office"},
        {"prompt": "Hi"},
        {"prompt": QUESTION, "docs": "ofice"},
        {"custom_id": "q", "url": "/v1/chat/completions", "docs": "office",
         "body": {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER},
                               {"role": "user", "content": "And for the QF-240?"}]}},
    ]  # fmt: skip
    rows, tally, _ = run(tmp_path, lines, Copying(), documents=office)
    first, absent, plain, wrong, follow_up = rows
    choice = first["response"]["body"]["choices"][0]
    assert choice["message"]["content"] == ANSWER
    assert choice["message"]["annotations"] == [
        {"type": "file_citation", "filename": "warranty.md", "number": 1, "page": None, "lines": [1, 1], "heading": "",
         "quote": ANSWER, "path": "/office/warranty.md"}
    ]  # fmt: skip
    assert first["response"]["body"]["edgellm"]["documents"]["refused"] is False
    said = absent["response"]["body"]
    assert said["choices"][0]["message"] == {"role": "assistant", "content": NOT_FOUND, "annotations": []}
    assert said["edgellm"]["documents"]["refused"] and said["usage"]["completion_tokens"] == 0
    assert "edgellm" not in plain["response"]["body"] and "annotations" not in json.dumps(plain)
    assert wrong["error"]["code"] == "documents-not-found" and tally.failed == 1
    assert "36 months" in follow_up["response"]["body"]["choices"][0]["message"]["content"]
    assert office.source.asked[-1] == "How long is the warranty of the QF-240?" and office.is_closed


def test_a_batch_has_documents_that_rows_may_decline(office: Collections) -> None:
    with_docs, without = answers(office, QUESTION, {"prompt": "Hi", "docs": False}, docs="office")
    assert with_docs.text == ANSWER and with_docs.citations[0].file == "warranty.md" and not with_docs.refused
    assert without.text == "no sources" and not without.citations
    (refused,) = answers(office, "Who is Mr Pemberton of Toronto?", docs="office")
    assert refused.refused and refused.text == NOT_FOUND


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"prompt": "x", "docs": 3}, "name of a collection"),
        ({"prompt": QUESTION, "docs": "office", "response_format": {"type": "json_object"}}, "plain text"),
        ({"url": "/v1/completions", "docs": "office", "body": {"prompt": "x"}}, "only a chat"),
        ({"url": "/v1/completions", "body": {"prompt": "x"}, "docs": None}, ""),
        ({"prompt": "warranty " * 2000, "docs": "office"}, "no room for a passage"),
    ],
)
def test_rows_that_cannot_ask(office: Collections, row: dict[str, Any], wrong: str) -> None:
    (answer,) = answers(office, row)
    assert wrong in str(answer.error) if wrong else answer.error is None


def test_documents_that_are_not_there_end_the_batch_before_it_begins(office: Collections) -> None:
    with pytest.raises(CollectionNotFound):
        answers(office, QUESTION, docs="ofice")
    assert office.is_closed


def test_a_resume_notices_that_documents_have_changed(office: Collections) -> None:
    before = office.source.collection.content
    put(office.source.collection, {"new.md": "The warranty is over."})
    assert before != office.source.collection.content
    was = {"docs": "office", "collections": {"office": before, "other": "1"}}
    now = {"docs": "office", "collections": {"office": office.source.collection.content, "other": "1"}}
    assert differences(was, was) == [] and differences(was, now) == ["the documents in office have changed"]
    assert differences(was, {**now, "docs": None})[0] == "docs was office, and now is not set"
    older = {"seed": 3}  # from before documents
    assert differences(older, {"seed": 3, **was})[0] == "docs was not set, and now is office"
    assert not_stored(older, {"seed": 3, "docs": None, "collections": {}}) == []
    assert differences({}, was) == []  # a batch that begins


def test_the_documents_that_rows_name(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rows = ['{"prompt": "a", "docs": "b"}', '{"prompt": "\\"docs\\": \\"x\\""}', '{"docs": "broken', '{"docs": 3}', ""]
    source.write_text("\n".join([*rows, '{"prompt": "a", "docs": "a"}', '{"prompt": "a", "docs": false}']))
    assert documents_named(source) == {"a", "b"}
