"""An answer from documents: the question with its passages in place of the chat, and the check at the answer's end.

    asked = await ask(stores, worker, question, search)
    async for event in asked.watch(events): ...

The events of the model pass as they come. Then its words are compared with the passages, as `edgellm docs ask` does it,
and what was found is said: in the text, for clients that know nothing of documents, and in `End.documents`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgellm.documents.answers.citation import Citation, beginning, place
from edgellm.documents.answers.follow_up import standalone
from edgellm.documents.answers.options import MOST_ANSWER
from edgellm.documents.answers.prompt import SYSTEM
from edgellm.documents.answers.question import ROOM, TEMPLATE, DocumentAnswer, DocumentQuestion, prepare
from edgellm.documents.collection import IndexedChunk
from edgellm.documents.search import Passage, passage
from edgellm.run.events import Begin, End, Event, Searched, Text, TokenCounts
from edgellm.serve.answer.prepare import Question
from edgellm.serve.answer.reader import begun, spoken
from edgellm.serve.answer.tools_and_schema import has_schema
from edgellm.serve.documents.embedder import tokens
from edgellm.serve.documents.store import DocumentScope, VectorStore
from edgellm.serve.documents.stores import VectorStores
from edgellm.serve.http.problems import CONTEXT_EXCEEDED, Problem
from edgellm.serve.workers.worker import Worker

# Characters of a passage that is shown because it comes nearest.
SHOWN = 160


@dataclass(slots=True)
class AskedDocuments:
    """A question to documents, on its way to the model; `body` is the request for it."""

    search: DocumentScope
    question: DocumentQuestion
    found: Sequence[tuple[Sequence[IndexedChunk], float]]
    body: dict[str, Any]
    streams: bool

    async def watch(self, events: AsyncIterator[Event] | None) -> AsyncGenerator[Event, None]:
        """The events of the model, None if it need not be asked, and what the check says of them."""
        yield Searched((self.question.text,), tuple(self._result(group, score) for group, score in self.found))
        if events is None:
            events = _said_nothing(str(self.body["model"]))
        about: Mapping[str, Any] = {}
        held: list[Text] = []
        draft: list[str] = []
        async for event in events:
            match event:
                case Begin():
                    about = event.about
                case Text():
                    draft.append(event.text)
                    if not self.streams:  # it may turn out that the documents do not say it
                        held.append(event)
                        continue
                case End() if event.reason != "tool_calls":
                    checked = await asyncio.to_thread(self.question.answer, "".join(draft))
                    texts, more = self._ending(checked, held)
                    for each in texts:
                        yield each
                    if more:
                        yield spoken(more, about)
                    said = "".join(draft if self.streams else [each.text for each in texts]) + more
                    event = replace(event, documents=self._facts(checked, said))
                case End():
                    for each in held:
                        yield each
            yield event

    def _ending(self, checked: DocumentAnswer, held: list[Text]) -> tuple[list[Text], str]:
        """The pieces of the answer that stay, and what follows them."""
        if self.has_form:
            return held, ""
        below = (self._nearest(checked) + sources(checked)) if self.search.lists_sources else ""
        if checked.basis == "draft":
            return held, below
        if self.streams and checked.draft:  # it has been read already
            return held, f"\n\n{checked.correction}{below}"
        plain = checked.answer if checked.basis == "quotation" else replace(checked, draft="").correction
        return [], plain + below

    @property
    def needs_model(self) -> bool:
        """Whether the model may find an answer, or must give one in the asked-for form."""
        return self.question.is_open or self.has_form or bool(self.body.get("tools"))

    @property
    def has_form(self) -> bool:
        """Whether the answer must match a schema: no words of ours may stand in it."""
        return has_schema(self.body)

    @staticmethod
    def _nearest(checked: DocumentAnswer) -> str:
        shown = [f"- {place(each)}: {beginning(each.text, SHOWN)}" for each in checked.nearest]
        return "\n\nNearest passages:\n" + "\n".join(shown) if shown else ""

    def _result(self, group: Sequence[IndexedChunk], score: float) -> dict[str, Any]:
        return result(self.search.store, passage(list(group), score))

    def _facts(self, checked: DocumentAnswer, said: str) -> dict[str, Any]:
        """The check, for programs. `index` is where in the text the sentence ends that a citation bears."""
        citations = [
            {"file_id": self.search.store.file_id(each.path), **_without_path(each), "index": index}
            for each, index in _placed(checked, said)
        ]
        store = self.search.store
        return {
            "vector_store_id": store.id, "collection": store.name, "question": checked.question,
            "answer": checked.answer, "basis": checked.basis, "refused": checked.refused, "reason": checked.reason,
            "citations": citations,
            "sentences": [asdict(each) for each in checked.sentences], "unknown_numbers": checked.unknown_numbers,
            "nearest": [result(store, each) for each in checked.nearest], "n_sources": checked.n_sources,
            "n_left_out": checked.n_left_out,
        }  # fmt: skip


async def ask(stores: VectorStores, worker: Worker, asked: Question, search: DocumentScope) -> AskedDocuments:
    """Search for the last question of a chat, and put it with the passages in its place.

    Raises:
        Problem: there is no question.
    """
    body = asked.body
    if body.get("n", 1) > 1:
        raise Problem(400, "n: documents give one answer, not several", code="bad-field", field="n")
    text = standalone(*question_of(body["messages"]))
    # The instructions of the client stand after ours.
    own = [str(each["content"]) for each in body["messages"] if each["role"] == "system" and each["content"]]
    system = "\n\n".join([SYSTEM, *own])

    def count(text: str) -> int:
        return len(stores.bridge.run(tokens(worker, text)))

    def prepared() -> tuple[list[tuple[list[IndexedChunk], float]], DocumentQuestion]:
        found = search.store.groups(text, search.n)
        room = min(ROOM, worker.plan.n_ctx - MOST_ANSWER - count(system) - TEMPLATE)
        groups = [group for group, _ in found]
        return found, search.store.find(lambda collection: prepare(text, groups, collection, count=count, room=room))

    found, question = await stores.work(prepared)
    if question.prompt.n_left_out and not question.prompt.sources:
        message = f"no passage fits into the context of {worker.plan.n_ctx:,} tokens beside the instructions"
        raise Problem(400, f"{message}; shorten these", code=CONTEXT_EXCEEDED, field="messages")
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question.prompt.text}]
    usual = {"temperature": 0, "max_tokens": MOST_ANSWER}
    request = {"model": worker.model.name, **usual, **body, "messages": messages}
    if search.lists_sources and request.pop("tools", None):
        request.pop("tool_choice", None)
        asked.warnings.append("tools are left out: this name answers from documents alone")
    return AskedDocuments(search, question, found, request, asked.stream)


def question_of(messages: Sequence[Mapping[str, Any]]) -> tuple[str, list[str]]:
    """The last question of a chat, and the earlier ones.

    Raises:
        Problem: there is none.
    """
    asked = [str(each["content"]).strip() for each in messages if each["role"] == "user" and each["content"]]
    if not asked or not asked[-1]:
        raise Problem(400, "there is no question to the documents", code="missing-field", field="messages")
    return asked[-1], asked[:-1]


def result(store: VectorStore, found: Passage) -> dict[str, Any]:
    """A passage in OpenAI's form; page, lines and heading are its attributes."""
    attributes = {
        "page": found.page, "first_line": found.lines and found.lines[0], "last_line": found.lines and found.lines[1],
        "heading": found.heading or None,
    }  # fmt: skip
    return {
        "file_id": store.file_id(found.path), "filename": found.file, "score": round(found.score, 6),
        "attributes": {name: value for name, value in attributes.items() if value is not None}, "text": found.text,
    }  # fmt: skip


def sources(checked: DocumentAnswer) -> str:
    """The sources of an answer, as the end of its text."""
    lines = [f"[{each.number}] {place(each)}: “{beginning(each.quote, SHOWN)}”" for each in checked.citations]
    if checked.basis == "draft":
        lines += [f"Not in the documents: {each.text}" for each in checked.sentences if each.citation is None]
    if checked.unknown_numbers:
        lines.append(f"Numbers that stand nowhere in the passages: {', '.join(checked.unknown_numbers)}")
    return "\n\nSources:\n" + "\n".join(lines) if lines else ""


def _placed(checked: DocumentAnswer, said: str) -> Iterator[tuple[Citation, int]]:
    """The citations, each with the end of the first sentence that it bears."""
    at = 0
    ends: dict[int, int] = {}
    for sentence in checked.sentences:
        begin = said.find(sentence.text, at)
        at = begin + len(sentence.text) if begin >= 0 else at
        if sentence.citation is not None:
            ends.setdefault(sentence.citation, at)
    for citation in checked.citations:
        yield citation, ends.get(citation.number, at)


def _without_path(citation: Citation) -> dict[str, Any]:
    """A citation for clients, which do not see where files lie."""
    about = asdict(citation)
    del about["path"]
    return {"filename": about.pop("file"), **about}


async def _said_nothing(model: str) -> AsyncIterator[Event]:
    """The events of a model that was not asked."""
    yield begun(model)
    yield End("stop", tokens=TokenCounts(0, 0, 0))
