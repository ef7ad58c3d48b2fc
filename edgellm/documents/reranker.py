"""Puts the best chunks of a search in a better order: a model reads the question together with each of them.

    reranker = ChunkReranker(model, report=report)
    reranker.ordered("how long is the warranty?", chunks)     # best first

A reranker (cross-encoder) is far slower than vectors, which are computed once, and tells near things apart better.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from edgellm.documents.collection import IndexedChunk
from edgellm.documents.words import without_tags
from edgellm.progress import Progress, Report, silent

# Tokens that question and text should have together: a chunk fits, and a longer context would only take memory.
CONTEXT = 1024
# A question takes at most this part of what the model reads.
QUESTION_SHARE = 4
LEAST_PIECE = 16


class RankingModel(Protocol):
    """An open reranker."""

    @property
    def n_pair(self) -> int:
        """The tokens of a question and a text together that it reads at once."""

    def count_pair(self, question: str, text: str) -> int:
        """The tokens of both, with those around them."""

    def rank(self, question: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the question; more is better."""


class ChunkReranker:
    """A reranker for chunks; `together` texts are scored between two reports."""

    def __init__(self, model: RankingModel, *, together: int = 1, report: Report = silent) -> None:
        self._model = model
        self._together = together
        self._report = report

    def ordered(self, question: str, chunks: Sequence[IndexedChunk]) -> list[IndexedChunk]:
        """The chunks by the score of their best piece, best first; equal ones stay in their order."""
        asked = self._shortened("", without_tags(question), self._model.n_pair // QUESTION_SHARE)
        pieces = [(chunk.id, piece) for chunk in chunks for piece in self._pieces(asked, chunk)]
        best: dict[int, float] = {}
        try:
            for at in range(0, len(pieces), self._together):
                self._report(Progress("reranking", at, len(pieces)))
                group = pieces[at : at + self._together]
                scores = self._model.rank(asked, [piece for _, piece in group])
                for (owner, _), score in zip(group, scores, strict=True):
                    best[owner] = max(score, best.get(owner, score))
        finally:
            self._report(Progress("reranking", len(pieces), len(pieces)))
        return sorted(chunks, key=lambda chunk: -best[chunk.id])

    def _pieces(self, question: str, chunk: IndexedChunk) -> Iterator[str]:
        """The chunk with its title, in as many pieces as the model needs to read all of it."""
        title, text = without_tags(chunk.title), without_tags(chunk.text)
        most = self._model.n_pair
        title = self._shortened(question, title, most // 2)
        n_around = self._model.count_pair(question, f"{title}\n")
        n_tokens = self._model.count_pair(question, f"{title}\n{text}") - n_around
        n_pieces = max(1, -(-n_tokens // max(LEAST_PIECE, most - n_around)))
        step = max(1, -(-len(text) // n_pieces))
        for at in range(0, max(1, len(text)), step):
            yield self._shortened(question, f"{title}\n{text[at : at + step]}", most)

    def _shortened(self, question: str, text: str, most: int) -> str:
        """A text without its end, if it and the question are too long: for the order only, nothing that is shown."""
        while text and (n_tokens := self._model.count_pair(question, text)) > most:
            text = text[: len(text) * most // (n_tokens + 1)]
        return text
