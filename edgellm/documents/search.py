"""Finds passages: by words (BM25) and by meaning (vectors), the two lists fused, reranked if asked, neighbours joined.

    searcher = Searcher(collection, embedder)
    for passage in searcher.search("how long is the warranty?", 5):
        print(passage.file, passage.page, passage.text)

Measured on manuals in English and Chinese and on an office's files (docs/explanation/retrieval.md): reciprocal ranks
with a small constant keep a first place of one list a first place; chunks beside each other in a file count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgellm.documents.collection import Collection, IndexedChunk
from edgellm.documents.embedder import ChunkEmbedder
from edgellm.documents.reranker import ChunkReranker
from edgellm.documents.words import normal, terms

if TYPE_CHECKING:
    from edgellm.documents.vectors import VectorIndex

# The k of reciprocal rank fusion: with the usual 60, two middling ranks beat a first place.
RANK_CONSTANT = 5
# Candidates of each list, and of them how many may join or follow.
DEPTH = 50
JOINED_DEPTH = 40
# Candidates that a reranker orders: it takes long, and what is needed is nearly always among them.
RERANKED = 20
# Chunks of one passage.
MOST_JOINED = 3
# Shared words from which on two chunks say the same.
DUPLICATE = 0.9


@dataclass(frozen=True, slots=True)
class Passage:
    """A place in a document. `page` and `lines` are null where there are none; `score` falls with the rank.

    `pages` are the first and last page of the text, `page` that of its best chunk.
    """

    file: str
    page: int | None
    lines: tuple[int, int] | None
    heading: str
    text: str
    score: float
    path: str
    pages: tuple[int, int] | None
    n_tokens: int


class Searcher:
    """Searches one collection; keeps its vectors in memory until it changes."""

    def __init__(
        self, collection: Collection, embedder: ChunkEmbedder | None, reranker: ChunkReranker | None = None
    ) -> None:
        self._collection = collection
        self._embedder = embedder
        self._reranker = reranker
        self._generation: tuple[int, int] | None = None
        self._vectors: VectorIndex

    def search(self, question: str, most: int = 5) -> list[Passage]:
        """The passages that fit a question best."""
        return [passage(group, score) for group, score in self.groups(question, most)]

    def groups(self, question: str, most: int = 5) -> list[tuple[list[IndexedChunk], float]]:
        """The same as chunks, the best one of each passage first, with the scores."""
        return self.arranged(question, self.candidates(question, most), most)

    def candidates(self, question: str, most: int = 5) -> list[tuple[IndexedChunk, float]]:
        """The chunks of which `most` passages are made, best first, with their scores."""
        scores = fuse([self.by_words(question), self.by_meaning(question)])
        ranked = sorted(scores, key=scores.__getitem__, reverse=True)[: max(JOINED_DEPTH, most)]
        chunks = self._collection.chunks(ranked)
        return [(chunks[each], scores[each]) for each in ranked if each in chunks]

    def arranged(
        self, question: str, candidates: Sequence[tuple[IndexedChunk, float]], most: int
    ) -> list[tuple[list[IndexedChunk], float]]:
        """Candidates as passages, reranked if there is a reranker; the collection is not read, so others may use it."""
        chunks = [chunk for chunk, _ in candidates]
        scores = {chunk.id: score for chunk, score in candidates}
        if self._reranker is not None:
            chunks = [*self._reranker.ordered(question, chunks[:RERANKED]), *chunks[RERANKED:]]
            scores = fuse([[chunk.id for chunk in chunks]])
        return [(group, scores[group[0].id]) for group in join(chunks)[:most]]

    def by_words(self, question: str, most: int = DEPTH) -> list[int]:
        """Chunks by the words they share with the question, best first."""
        return [chunk for chunk, _ in self._collection.best_words(terms(question), most)]

    def by_meaning(self, question: str, most: int = DEPTH) -> list[int]:
        """Chunks by the cosine of their best piece, best first; empty where vectors would mislead."""
        if self._embedder is None or not self._embedder.understands(question) or not question.strip():
            return []
        self.load()
        return self._vectors.nearest(self._embedder.embed_question(question), most) if len(self._vectors) else []

    def load(self) -> None:
        """Have the vectors in memory, as they are now."""
        if self._generation != (generation := self._collection.generation):
            from edgellm.documents.vectors import VectorIndex  # numpy takes a while

            self._vectors = VectorIndex(*self._collection.vectors())
            self._generation = generation


def fuse(lists: Sequence[Sequence[int]]) -> dict[int, float]:
    """Reciprocal rank fusion: the score of everything that stands in one of the lists."""
    scores: dict[int, float] = {}
    for ranked in lists:
        for rank, each in enumerate(ranked, 1):
            scores[each] = scores.get(each, 0.0) + 1 / (RANK_CONSTANT + rank)
    return scores


def join(ranked: Sequence[IndexedChunk]) -> list[list[IndexedChunk]]:
    """Groups of neighbours in the order of their best chunk, which comes first; repetitions are left out."""
    groups: list[list[IndexedChunk]] = []
    seen: list[frozenset[str]] = []
    for chunk in ranked:
        group = next((group for group in groups if _belongs(chunk, group)), None)
        if group is not None:
            group.append(chunk)
            continue
        words = frozenset(normal(chunk.text).split())
        if any(_alike(words, others) for others in seen):
            continue
        seen.append(words)
        groups.append([chunk])
    return groups


def _belongs(chunk: IndexedChunk, group: list[IndexedChunk]) -> bool:
    places = [each.place for each in group]
    is_beside = chunk.place in (min(places) - 1, max(places) + 1)
    return len(group) < MOST_JOINED and chunk.path == group[0].path and is_beside


def _alike(words: frozenset[str], others: frozenset[str]) -> bool:
    shorter, longer = sorted((len(words), len(others)))
    if shorter <= DUPLICATE * longer:
        return False
    n_shared = len(words & others)
    return n_shared > DUPLICATE * (shorter + longer - n_shared)


def passage(group: list[IndexedChunk], score: float) -> Passage:
    """A group of neighbours as one passage."""
    best, chunks = group[0], sorted(group, key=lambda chunk: chunk.place)
    text = chunks[0].text
    for chunk in chunks[1:]:
        text = text.rstrip() + "\n" + chunk.text[chunk.n_repeated :]
    lines = [line for chunk in chunks for line in chunk.lines if line]
    pages = [chunk.page for chunk in chunks if chunk.page]
    return Passage(
        best.file, best.page or None, (min(lines), max(lines)) if lines else None, best.heading, text, score, best.path,
        (min(pages), max(pages)) if pages else None, sum(chunk.n_tokens for chunk in chunks),
    )  # fmt: skip
