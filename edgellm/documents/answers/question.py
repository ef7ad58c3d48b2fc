"""A question about documents: the prompt that asks it, and the answer after its check against the sources.

    question = prepare("how long is the warranty?", groups, collection, count=model.count, room=2000)
    if question.is_open:                      # a model is needed
        draft = ...                           # whatever answers question.prompt.text under prompt.SYSTEM
    question.answer(draft).citations

Nothing here knows what writes the draft: a model in this process, a worker of the server, a script of a test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from edgellm.cache.answer_cache import FromCache
from edgellm.documents.answers.citation import Basis, Citation
from edgellm.documents.answers.evidence import (
    CheckedAnswer,
    Claim,
    Evidence,
    check,
    is_negated,
    names,
    values,
    word_stems,
)
from edgellm.documents.answers.lines import heading_above
from edgellm.documents.answers.prompt import Prompt, build, not_found
from edgellm.documents.answers.spans import ASKS_NUMBER, MOST_SPAN, Span, SpanFinder, weigh
from edgellm.documents.chunks import line_at
from edgellm.documents.collection import Collection, IndexedChunk
from edgellm.documents.search import Passage, passage
from edgellm.run.telemetry import Stats

# Tokens of a question with its sources: a small CPU reads some hundreds a second.
ROOM = 2000
# What a chat template adds, at most.
TEMPLATE = 64
NEAREST = 3
# Words of a question that are looked up.
MOST_WORDS = 64
# The part of the question's words from which on a span may be the answer by itself, and how far it is ahead of others
# then (measured: of such spans 19 in 20 are the right ones).
SURE, AHEAD = 0.4, 0.1
# Chunks that may have a word by accident.
RARE = 1
# The part below which a model is believed that finds no answer.
UNLIKELY = 0.25


@dataclass(frozen=True, slots=True)
class CitedSentence:
    """A sentence of an answer and the number of the citation that bears it; null if nothing in the sources does."""

    text: str
    citation: int | None


@dataclass(frozen=True, slots=True)
class DocumentAnswer:
    """An answer from documents.

    `basis` says where its words come from: "draft" (the model, and the documents bear it), "quotation" (the documents:
    they do not bear the model's words), "nearest" (the passage that comes nearest; it may not answer the question), ""
    if it is refused. `refused`: the documents do not say it, for a `reason`. `nearest` are the passages that come
    closest where the answer is not certain. `unknown_numbers` stand in the answer and in none of the sources. `draft`
    is what the model wrote. `n_left_out` chunks found no room in the prompt; `orders` are sentences of the documents
    that give orders to the model, and were left out. `cached` says for which earlier question the answer was
    computed, if it was.
    """

    question: str
    answer: str
    refused: bool
    reason: str
    citations: list[Citation]
    sentences: list[CitedSentence]
    unknown_numbers: list[str]
    nearest: list[Passage]
    n_sources: int
    n_left_out: int
    orders: list[str]
    draft: str
    stats: Stats | None
    basis: Basis = ""
    cached: FromCache | None = None

    @property
    def correction(self) -> str:
        """What a person who has read the draft must read below it; empty if the draft stands."""
        if self.refused:
            return f"[not confirmed: {self.reason}]" if self.draft else f"{self.answer}  ({self.reason})"
        if self.basis == "draft":
            return ""
        said = _INSTEAD[self.basis]
        return f"[not confirmed: {said}]\n{self.answer}" if self.draft else f"[{said}]\n{self.answer}"


_INSTEAD: dict[Basis, str] = {
    "quotation": "the documents say this instead",
    "nearest": "nothing in the documents clearly answers this; the nearest passage",
}


@dataclass(frozen=True, slots=True)
class DocumentQuestion:
    """A question with the passages that may answer it. `missing` are its names that stand nowhere in the documents.

    `weights` say how much each of its words tells, by stem, and `counts` how many chunks have it.
    """

    text: str
    groups: Sequence[Sequence[IndexedChunk]]
    prompt: Prompt
    missing: list[str]
    weights: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        """Whether a model can find the answer; if not, `answer` needs no draft."""
        return bool(self.prompt.sources) and not self.missing

    def answer(self, draft: str = "", stats: Stats | None = None, *, has_ended: bool = True) -> DocumentAnswer:
        """What a model wrote, checked against the sources; what they do not bear is replaced by what they say.

        `has_ended`: the model came to an end by itself, as far as `stats` do not say it.
        """
        has_ended = has_ended if stats is None else stats.finish_reason == "stop"
        draft = draft.strip()
        checked = check(draft, self.prompt.masked, self.text)
        finder = SpanFinder(self.text, self.weights, self.prompt.masked)
        spans = finder.best()
        reason = self._refusal(checked, spans)
        basis, claims = ("", []) if reason else self._judged(checked, finder, spans, has_ended)
        answer = not_found(self.text) if reason else draft if basis == "draft" else claims[0].text
        # Two claims may have the same quotation.
        places = list(dict.fromkeys(claim.evidence for claim in claims if claim.evidence))
        return DocumentAnswer(
            self.text, answer, bool(reason), reason,
            [_citation(number, self.prompt.sources[each.source], each) for number, each in enumerate(places, 1)],
            [CitedSentence(claim.text, places.index(claim.evidence) + 1 if claim.evidence else None)
             for claim in claims],
            checked.unknown_numbers if basis == "draft" else [],
            [] if basis in ("draft", "quotation") else [passage(list(group), 0.0) for group in self.groups[:NEAREST]],
            len(self.prompt.sources), self.prompt.n_left_out, self.prompt.orders, draft, stats, basis,
        )  # fmt: skip

    def _judged(
        self, checked: CheckedAnswer, finder: SpanFinder, spans: Sequence[Span], has_ended: bool
    ) -> tuple[Basis, list[Claim]]:
        """What the answer rests on, and its sentences."""
        sure = spans[0] if _is_sure(spans) else None
        # A small model that does not come to an end copies what it sees, whether it answers the question or not.
        claims = [
            claim
            if claim.evidence and not self._is_foreign(claim, spans) and _is_about(claim.evidence, finder, has_ended)
            else replace(claim, evidence=None)
            for claim in checked.claims
        ]
        borne = [claim.evidence for claim in claims if claim.evidence]
        agrees = sure is None or any(sure.overlaps(*each.place) or (has_ended and each.is_whole) for each in borne)
        goes_round = checked.repeats and not has_ended
        if borne and agrees and not goes_round and 2 * len(borne) >= len(claims) and self._tells(claims):
            return "draft", claims
        if not spans:
            return "nearest", [Claim(_readable(self.prompt.masked[0].text[:MOST_SPAN]), None)]
        best = spans[0]
        return ("quotation" if sure else "nearest"), [
            Claim(_readable(best.quote), Evidence(best.source, best.quote, best.start) if sure else None)
        ]

    def _is_foreign(self, claim: Claim, spans: Sequence[Span]) -> bool:
        """Whether a claim repeats a word of the question that no document has, or one like it."""
        known = {word for span in spans for word in span.words}
        claimed = word_stems(claim.text).values()
        return any(self.counts.get(word) == 0 and word not in known and word.isascii() for word in claimed)

    def _tells(self, claims: Sequence[Claim]) -> bool:
        """Whether what is borne says more than the question: a number, if one is asked for and stands there."""
        said = " ".join(claim.text for claim in claims if claim.evidence)
        there = " ".join(claim.evidence.quote for claim in claims if claim.evidence)
        if set(word_stems(said).values()) <= set(word_stems(self.text).values()):
            return is_negated(said) != is_negated(self.text)
        asked = values(self.text)
        return not ASKS_NUMBER.search(self.text) or bool(values(said) - asked) or not values(there) - asked

    def _refusal(self, checked: CheckedAnswer, spans: Sequence[Span]) -> str:
        """Why the documents have no answer; empty if they may have one."""
        if self.missing:
            return f"{', '.join(self.missing)}: nowhere in these documents"
        if not self.prompt.sources:
            return "no passage fits the question" if not self.groups else "no passage fits into the context"
        if not any(chunk.text.strip() for chunk in self.prompt.masked):
            return "the passages hold nothing but orders to the model"
        if checked.is_refusal and checked.claims and (not spans or spans[0].coverage < UNLIKELY):
            return "the model found no answer in the passages"
        if self._knows_only_names(spans):
            return "the passages have the names of the question, and nothing else of it"
        return ""

    def _knows_only_names(self, spans: Sequence[Span]) -> bool:
        """Whether the documents have the question's names, and hardly a word of what it asks about them."""
        named = {stem for name in names(self.text) for stem in word_stems(name).values()}
        there = {word for span in spans for word in span.words}
        rest = self.weights.keys() - named
        return (
            bool(named & there) and bool(rest) and all(self.counts[word] <= RARE for word in rest) and not rest & there
        )


def prepare(
    question: str,
    groups: Sequence[Sequence[IndexedChunk]],
    collection: Collection,
    *,
    count: Callable[[str], int],
    room: int,
) -> DocumentQuestion:
    """A question with as many of the passages as `room` tokens hold; `count` counts the tokens of a text."""
    missing = [name for name in names(question)[:MOST_WORDS] if not collection.n_with(name)]
    stems = dict(islice(word_stems(question).items(), MOST_WORDS))
    counts = {stem: collection.n_with(word) for word, stem in stems.items()}
    # The best chunk of every passage comes first, then their neighbours.
    chunks = [group[0] for group in groups] + [chunk for group in groups for chunk in group[1:]]
    return DocumentQuestion(
        question,
        groups,
        build(question, chunks, count=count, room=room),
        missing,
        weigh(counts, collection.n_chunks),
        counts,
    )


def _is_sure(spans: Sequence[Span]) -> bool:
    """Whether one span has so much more of the question than the others that it is the answer."""
    ahead = spans[0].score - (spans[1].score if len(spans) > 1 else 0.0) if spans else 0.0
    return ahead >= AHEAD and spans[0].coverage >= SURE


def _is_about(found: Evidence, finder: SpanFinder, has_ended: bool) -> bool:
    """Whether what bears a claim stands where the question's words stand; near them is enough for a quotation."""
    return finder.is_near(*found.place) or (has_ended and found.is_whole and finder.is_source(found.source))


def _readable(text: str) -> str:
    """A quotation without indentation and blank lines; rows stay rows."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines() if line.strip())


def _citation(number: int, chunk: IndexedChunk, found: Evidence) -> Citation:
    first = line_at(chunk.text, chunk.line_marks, found.start)
    last = line_at(chunk.text, chunk.line_marks, found.start + len(found.quote))
    lines = (first, last) if first else None
    return Citation(
        number, chunk.file, chunk.page or None, lines, heading_above(chunk, found.start), found.quote, chunk.path
    )
