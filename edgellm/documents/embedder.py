"""What turns chunks and questions into vectors: a model, and how much of a text it reads at once.

embedder = ChunkEmbedder(model, multilingual=False)
embedder.embed_question("how long is the warranty?")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edgellm.documents.collection import IndexedChunk
from edgellm.documents.language import is_foreign_script
from edgellm.models.recipe import Prefixes, Recipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Tokens of a piece: small ones say better where something stands than one vector of a whole chunk.
PIECE = 256
# A file's name and heading take at most this part of a piece.
TITLE = 64


class EmbeddingModel(Protocol):
    """An open embedding model."""

    name: str

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors [len(texts), n_embd], each of length 1."""

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text."""


class ChunkEmbedder:
    """An embedding model for documents; `multilingual` if it knows languages other than English."""

    def __init__(self, model: EmbeddingModel, *, multilingual: bool, prefixes: Prefixes | None = None) -> None:
        self._model = model
        self._prefixes = prefixes or Prefixes()
        self.multilingual = multilingual
        self.name = model.name

    @classmethod
    def of(cls, model: EmbeddingModel, recipe: Recipe | None) -> ChunkEmbedder:
        """An embedder with the languages and prefixes of its recipe; without one, English and none."""
        if recipe is None:
            return cls(model, multilingual=False)
        return cls(model, multilingual=len(recipe.languages) > 1, prefixes=recipe.prefixes)

    def count(self, text: str) -> int:
        """The tokens of a text."""
        return len(self._model.tokenize(text))

    def understands(self, text: str) -> bool:
        """Whether vectors of such a text mean anything; of an unknown language they only do harm."""
        return self.multilingual or not is_foreign_script(text)

    def embed_question(self, question: str) -> npt.NDArray[np.float32]:
        """The vector [n_embd] of a question; of a very long one, of what the model reads."""
        text = self._prefixes.question + self._shortened(question, 2 * PIECE - 16)
        vector: npt.NDArray[np.float32] = self._model.embed([text])[0]
        return vector

    def embed_chunks(self, chunks: Sequence[IndexedChunk]) -> list[tuple[int, npt.NDArray[np.float16]]]:
        """The vectors of chunks, each with its chunk's id: one for every piece that the model reads at once."""
        import numpy as np

        pieces = [(chunk.id, piece) for chunk in chunks for piece in self._pieces(chunk)]
        vectors = self._model.embed([piece for _, piece in pieces]).astype(np.float16)
        return [(owner, vector) for (owner, _), vector in zip(pieces, vectors, strict=True)]

    def _pieces(self, chunk: IndexedChunk) -> list[str]:
        title = self._prefixes.passage + self._shortened(chunk.title, TITLE)
        room = PIECE - self.count(title) - 2
        n_pieces = max(1, -(-self.count(chunk.text) // room))
        step = -(-len(chunk.text) // n_pieces)
        texts = [chunk.text[at : at + step] for at in range(0, len(chunk.text), step)]
        return [f"{title}\n{self._shortened(text, room)}" for text in texts if text.strip()] or [title]

    def _shortened(self, text: str, most: int) -> str:
        """A text without its end, if it is too long: for the index only, nothing that a person sees."""
        while (n_tokens := self.count(text)) > most:
            text = text[: max(1, len(text) * most // (n_tokens + 1))]
        return text


def rough_count(text: str) -> int:
    """About how many tokens a text has, where there is no tokenizer."""
    return max(len(text.split()) * 4 // 3, len(text.encode()) // 5)
