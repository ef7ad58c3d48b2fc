"""Many vectors: the nearest are found by their signs, and many chunks by the words that tell something."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.documents import collection as collections
from edgellm.documents.chunks import TextChunk
from edgellm.documents.collection import Collection, FileState
from edgellm.documents.vectors import MOST_EXACT, VectorIndex
from edgellm.errors import CorruptFile


def some(count: int, *, width: int = 384, mean: float = 0.0) -> npt.NDArray[np.float16]:
    """Vectors of length 1 around a hundred centres; with a mean, all of them point about the same way."""
    random = np.random.default_rng(count)
    centres = random.standard_normal((100, width))
    vectors = centres[random.integers(100, size=count)] + 0.7 * random.standard_normal((count, width)) + mean
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


@pytest.mark.parametrize("mean", [0.0, 3.0])
@pytest.mark.parametrize("width", [384, 100])
def test_the_nearest_of_many_are_found_by_their_signs(mean: float, width: int) -> None:
    vectors = some(5 * MOST_EXACT, width=width, mean=mean)
    owners = np.arange(len(vectors)) // 2
    index = VectorIndex(owners, vectors)
    for number in range(0, len(vectors), 1999):
        question = vectors[number].astype(np.float32)
        exact = owners[np.argsort(-(vectors.astype(np.float32) @ question), kind="stable")]
        best = list(dict.fromkeys(exact[:60].tolist()))[:20]
        found = index.nearest(question, 20)
        assert found[0] == number // 2 and len(set(found) & set(best)) >= 19


def test_few_are_compared_exactly() -> None:
    vectors = some(300)
    question = some(1)[0].astype(np.float32)
    exact = np.argsort(-(vectors.astype(np.float32) @ question), kind="stable")
    assert VectorIndex(np.arange(300), vectors).nearest(question, 300) == exact.tolist()


def fill(collection: Collection, texts: list[str]) -> None:
    for number, text in enumerate(texts):
        with collection.replacing(FileState(f"/{number}", f"{number}.txt", 1, 1, "")) as writer:
            writer.add(TextChunk(text, "", 0, (1, 1), 9), wants_vector=True)


def test_among_many_chunks_rare_words_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collections, "MOST_RANKED", 30)
    with Collection.open(tmp_path / "c.sqlite3") as collection:
        texts = [f"the valve of pump {number} is open" for number in range(90)]
        fill(collection, [*texts, "a valve", "no pump", "the open pump valve of a rare kind"])
        assert collection.best_words(["rare", "valve", "pump"], 5)[0][0] == 93
        assert collection.best_words(["41", "valve"], 5)[0][0] == 42
        assert len(collection.best_words(["valve", "pump", "open"], 30)) == 30
        assert len(collection.best_words(["rare", "valve", "pump"], 20)) == 20
        assert collection.best_words(["valve", "nowhere"], 5) == collection.best_words(["valve"], 5) != []
        assert collection.best_words(["nowhere"], 5) == [] == collection.best_words([], 5)


def test_vectors_of_different_lengths_are_damage(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c.sqlite3") as collection:
        fill(collection, ["one", "two"])
        collection.put_vectors([(1, np.ones(4, np.float16)), (2, np.ones(5, np.float16))])
        with pytest.raises(CorruptFile, match="damaged"):
            collection.vectors()


SEARCH = """
import sys
from pathlib import Path
import numpy as np
from edgellm.documents.collection import Collection
from edgellm.documents.embedder import ChunkEmbedder
from edgellm.documents.search import Searcher
from edgellm.machine.memory import peak_resident
class Model:
    name = "m"
    def tokenize(self, text): return text.split()
    def embed(self, texts): return np.full((len(texts), 384), 384 ** -0.5, np.float32)
with Collection.open(Path(sys.argv[1])) as collection:
    searcher = Searcher(collection, ChunkEmbedder(Model(), multilingual=True))
    print(searcher.search("where is word77777")[0].text.split()[0])
    print(len(searcher.search("common text of every chunk")))
    print(peak_resident() >> 20)  # getrusage would count the process that started this one
"""


@pytest.mark.soak
def test_a_hundred_thousand_chunks_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    with Collection.open(path) as collection:
        for number in range(10_000):
            with collection.replacing(FileState(f"/{number}", f"{number}.txt", 1, 1, "")) as writer:
                for at in range(number * 10, number * 10 + 10):
                    text = f"word{at} " + "common text of every chunk in all the files " * 30
                    writer.add(TextChunk(text, "", 0, (1, 1), 300), wants_vector=True)
        vectors = some(200_000)
        for at in range(0, 100_000, 200):
            ids = [1 + at + n // 2 for n in range(400)]
            collection.put_vectors(list(zip(ids, vectors[2 * at : 2 * at + 400], strict=True)))
    told = subprocess.run([sys.executable, "-c", SEARCH, str(path)], capture_output=True, text=True, check=True)
    best, n_common, megabytes = told.stdout.split()
    assert best == "word77777" and int(n_common) == 5 and int(megabytes) < 400
