"""The vectors of a collection in memory, and which of them are nearest to a question's.

    index = VectorIndex(owners, vectors)
    index.nearest(embedder.embed_question("how long is the warranty?"), 50)     # chunks, best first

A hundred thousand chunks are compared in milliseconds: first by the signs of their vectors' values, a bit each, then
the nearest few thousand exactly. Up to that number all are compared exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

# Vectors that are compared exactly.
MOST_EXACT = 4000
# Vectors whose signs are computed together.
TOGETHER = 4096


class VectorIndex:
    """The chunk of each vector [n], and the vectors [n, n_embd], each of length 1; a chunk may have several."""

    def __init__(self, owners: npt.NDArray[np.int64], vectors: npt.NDArray[np.float16]) -> None:
        self._owners = owners
        self._vectors = vectors
        self._is_large = len(owners) > MOST_EXACT
        if self._is_large:
            # Of some embedders all vectors point the same way: only what differs from the mean tells them apart.
            self._mean = vectors[:: max(1, len(vectors) // TOGETHER)].astype(np.float32).mean(axis=0)
            blocks = [self._signs(vectors[at : at + TOGETHER]) for at in range(0, len(vectors), TOGETHER)]
            self._bits = np.ascontiguousarray(np.concatenate(blocks).T)

    def __len__(self) -> int:
        return len(self._owners)

    def nearest(self, question: npt.NDArray[np.float32], most: int) -> list[int]:
        """The chunks whose best vector has the largest cosine to a question's [n_embd], best first."""
        near = self._candidates(question) if self._is_large else slice(None)
        cosines = self._vectors[near].astype(np.float32) @ question
        owners = self._owners[near][np.argsort(-cosines, kind="stable")]
        return list(dict.fromkeys(owners.tolist()))[:most]

    def _candidates(self, question: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
        """The vectors with the most signs in common with a question's, in order of their places."""
        differing = np.zeros(len(self._owners), np.uint16)
        for column, sign in zip(self._bits, self._signs(question[None])[0], strict=True):
            differing += np.bitwise_count(column ^ sign)
        return np.sort(np.argpartition(differing, MOST_EXACT)[:MOST_EXACT])

    def _signs(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.uint64]:
        """A bit for each value [n, n_embd / 64]: whether it is above the mean."""
        bits = np.packbits(vectors > self._mean, axis=1)
        padded = np.zeros((len(bits), -(-bits.shape[1] // 8) * 8), np.uint8)
        padded[:, : bits.shape[1]] = bits
        return padded.view(np.uint64)
