"""Checks that the files of the installed models still have their sha256, without any network.

for checked in verify(store.list(), report=bar): print(checked.name, checked.ok)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.files import sha256_of
from edgellm.models.local.store import InstalledModel, StoredFile
from edgellm.progress import Progress, Report, silent


@dataclass(frozen=True, slots=True)
class Checked:
    """One file; `problem` is empty if its hash is still the expected one."""

    name: str
    path: Path
    size: int
    expected: str
    actual: str | None
    problem: str

    @property
    def ok(self) -> bool:
        """Whether the file is unchanged."""
        return not self.problem


def verify(models: Sequence[InstalledModel], *, report: Report = silent) -> Iterator[Checked]:
    """Check every file of the models, one after the other."""
    total = sum(part.size for model in models for part in model.files)
    done = 0
    for model in models:
        for part in model.files:
            yield _check(model.name, part, _counting(report, model.name, done, total))
            done += part.size


def _check(name: str, part: StoredFile, count: Callable[[int], None]) -> Checked:
    actual, problem = None, ""
    try:
        size = part.path.stat().st_size
        if size != part.size:
            problem = f"it has {size:,} bytes, {part.size:,} were recorded"
        else:
            actual = sha256_of(part.path, count)
            problem = "" if actual == part.sha256 else "its sha256 is another"
    except FileNotFoundError:
        problem = "it is gone"
    except OSError as error:
        problem = f"it cannot be read: {error.strerror}"
    return Checked(name, part.path, part.size, part.sha256, actual, problem)


def _counting(report: Report, name: str, before: int, total: int) -> Callable[[int], None]:
    return lambda done: report(Progress(f"checking {name}", before + done, total, "B"))
