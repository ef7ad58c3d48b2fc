"""A collection made in code, for tests of what asks it: found by words alone, without a reader's process."""

from collections.abc import Callable, Mapping
from pathlib import Path

from edgellm.documents.answers.question import DocumentQuestion, prepare
from edgellm.documents.chunks import cut
from edgellm.documents.collection import Collection, FileState
from edgellm.documents.elements import Element, Note
from edgellm.documents.embedder import rough_count
from edgellm.documents.search import Searcher

OFFICE = {
    "warranty.md": "The warranty of the QF-210 is 24 months.",
    "service.md": "The warranty of the QF-240 is 36 months. Damage by liquids is not covered.",
    "prices.csv": "QF-210 | 1,389.00",
}


def put(collection: Collection, texts: Mapping[str, str]) -> None:
    """Store each text as a file of one paragraph."""
    for name, text in texts.items():
        with collection.replacing(FileState(f"/office/{name}", name, len(text), 0, str(hash(text)))) as writer:
            for chunk in cut([Element("paragraph", text, line=1)], rough_count):
                assert not isinstance(chunk, Note)
                writer.add(chunk, wants_vector=False)


class SmallSource:
    """Documents that a chat or a batch can ask; `asked` are the questions as they were searched."""

    name = "office"

    def __init__(self, path: Path, texts: Mapping[str, str] = OFFICE) -> None:
        self.collection = Collection.open(path)
        self.asked: list[str] = []
        put(self.collection, texts)

    def close(self) -> None:
        self.collection.close()

    def question(self, text: str, *, count: Callable[[str], int], room: int) -> DocumentQuestion:
        self.asked.append(text)
        groups = [group for group, _ in Searcher(self.collection, None).groups(text)]
        return prepare(text, groups, self.collection, count=count, room=room)
