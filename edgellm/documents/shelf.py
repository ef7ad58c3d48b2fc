"""The collections of a user, by name: a file each, all in one directory.

shelf = Shelf(settings.documents)
with shelf.open("manuals") as collection: ...
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edgellm.documents.collection import Collection
from edgellm.errors import CollectionNotFound, UsageError
from edgellm.suggest import did_you_mean

ENDING = ".sqlite3"
_NAME = re.compile(r"[\w][\w.-]{0,63}")


class Shelf:
    """Finds, makes and removes collections."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        """All names in order."""
        return sorted(path.name.removesuffix(ENDING) for path in self._directory.glob(f"*{ENDING}"))

    def path(self, name: str) -> Path:
        """The file of a collection, whether it exists or not.

        Raises:
            UsageError: no collection can have this name.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} cannot name a collection", why="letters, digits, '.', '-' and '_' can")
        return self._directory / f"{name}{ENDING}"

    def make(self, name: str) -> Collection:
        """Open a collection, an empty one if it is new."""
        return Collection.open(self.path(name))

    def open(self, name: str) -> Collection:
        """Open a collection that exists.

        Raises:
            CollectionNotFound: there is none of this name.
        """
        self.require(name)
        return Collection.open(self.path(name))

    def require(self, name: str) -> None:
        """Raise `CollectionNotFound` unless there is a collection of this name."""
        if not self.path(name).exists():
            raise self._not_found(name)

    def only(self) -> str:
        """The name of the one collection that there is.

        Raises:
            CollectionNotFound: there is none.
            UsageError: there are several.
        """
        names = self.names()
        if not names:
            raise CollectionNotFound("there are no documents", hint="edgellm docs add PATH")
        if len(names) > 1:
            raise UsageError("there are several collections", why=f"name one of {', '.join(names)}")
        return names[0]

    def remove(self, name: str) -> None:
        """Delete a collection for good; the documents themselves stay."""
        self.require(name)
        for each in self._belonging(self.path(name)):
            each.unlink(missing_ok=True)

    @staticmethod
    def _belonging(path: Path) -> Iterator[Path]:
        for ending in ("", "-wal", "-shm", ".lock", ".writing"):
            yield path.with_name(path.name + ending)

    def _not_found(self, name: str) -> CollectionNotFound:
        names = self.names()
        guess = did_you_mean(name, names)
        known = f"the collections: {', '.join(names)}" if names else "there is none yet"
        why = f"did you mean {guess}?" if guess else known
        return CollectionNotFound(f"there are no documents named {name}", why=why, hint="edgellm docs ls")
