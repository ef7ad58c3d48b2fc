"""Reads documents in a process of its own, which a hostile file may crash, fill or stop without harm to ours.

    with Extraction() as extraction:
        for part in extraction.read(path): ...

The process has bounded memory and must send something every minute; it is started again after a file that ended it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from edgellm.documents.elements import Element, Note, Part
from edgellm.errors import CorruptFile
from edgellm.machine.child import (
    Child,
    ChildFailed,
    WaitHooks,
    WaitInterrupted,
    describe,
    module,
    open_answers,
    requests,
)

SILENT_SECONDS = 60.0
MOST_MEMORY = 2 << 30
# Characters that are sent together.
TOGETHER = 1 << 16
# Characters of one part, of which JSON makes twelve times as many bytes, and of one note.
MOST_TEXT = 200_000
MOST_NOTE = 300


class Extraction:
    """The readers' process, started when it is first needed."""

    def __init__(self, hooks: WaitHooks | None = None) -> None:
        self._hooks = hooks or WaitHooks()
        self._child: Child | None = None

    def read(self, path: Path) -> Iterator[Part]:
        """The parts of a document.

        Raises:
            CorruptFile: it cannot be read; the process ended over it, or gave no sign of life.
            UsageError: the extra for its form is not installed.
        """
        if self._child is None:
            self._child = Child(module("edgellm.documents.extraction"), name="the reader", hooks=self._hooks)
        try:
            self._child.send({"path": str(path)})
            while "parts" in (answer := self._child.receive(SILENT_SECONDS)):
                if self._hooks.interrupted():  # waiting looks as well, but what is there needs no waiting
                    raise WaitInterrupted
                for part in answer["parts"]:
                    yield Note(**part) if "kind" not in part else Element(**part)
        except ChildFailed as failed:
            self.close()
            raise CorruptFile("its reader gave up", why=failed.why) from failed
        except GeneratorExit:  # the rest of its answer is still to come
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> Extraction:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def main() -> None:
    """In the child: answer requests until the parent is gone."""
    import resource

    from edgellm.documents.readers.choose import read
    from edgellm.errors import EdgellmError

    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answer = open_answers()
    for request in requests():
        parts, n_chars = [], 0
        try:
            for part in _bounded(read(Path(request["path"]))):
                parts.append(asdict(part))
                n_chars += len(part.text)
                if n_chars > TOGETHER:
                    answer({"parts": parts})
                    parts, n_chars = [], 0
            answer({"parts": parts})
            answer({"end": True})
        except EdgellmError as error:
            answer({"error": describe(error)})
        except MemoryError:
            parts = []
            answer({"error": describe(CorruptFile("it needs too much memory", why=f"{MOST_MEMORY >> 30} GiB"))})
        except OSError as error:
            answer({"error": describe(CorruptFile("it cannot be opened", why=error.strerror or str(error)))})


def _bounded(parts: Iterable[Part]) -> Iterator[Part]:
    """The same, but no part is too long to be sent, and each is text that a database and JSON take."""
    for part in parts:
        text, begins = _clean(part.text), 0
        if isinstance(part, Note):
            yield Note(text[:MOST_NOTE])
            continue
        while begins < len(text):
            ends = begins + MOST_TEXT
            ends = text.rfind("\n", begins + MOST_TEXT // 2, ends) + 1 or ends
            yield replace(part, text=text[begins:ends], line=part.line and part.line + text.count("\n", 0, begins))
            begins = ends


def _clean(text: str) -> str:
    """Text without NUL and without halves of characters."""
    text = text.replace("\0", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


if __name__ == "__main__":
    main()
