"""The directory of a fine-tuning beside its result: settings, metrics and checkpoints; one process at a time.

with WorkDirectory.beside(Path("dates.gguf")).held() as work:
    work.begin(settings)                       # or work.resume(settings), for a run that was interrupted
    work.append({"step": 1, "loss": 2.31})
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgellm.errors import CorruptFile, DiskFull, FileAccessError, UsageError
from edgellm.files import locked_if_free, write_atomically
from edgellm.formats.json_object import parse_object
from edgellm.units import size

SETTINGS, METRICS, LOCK = "settings.json", "metrics.jsonl", "lock"
_MOST_SETTINGS = 1 << 20


# After a full disk; the checkpoint before is whole.
FREE_AND_RESUME = "free some space, then the same with --resume"


def not_written(path: Path, error: Exception) -> DiskFull | FileAccessError:
    """The error for a file that the disk did not take; safetensors says it in words only."""
    why = getattr(error, "strerror", None) or str(error)
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space" in str(error):
        return DiskFull(f"no room for {path}", why=why, hint=FREE_AND_RESUME, path=str(path))
    return FileAccessError(f"{path} cannot be written", why=why, path=str(path))


class WorkDirectory:
    """`path` is NAME.training beside NAME.gguf."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def beside(cls, output: Path) -> WorkDirectory:
        """The directory that belongs to a file."""
        return cls(output.with_name(f"{output.name.removesuffix('.gguf')}.training"))

    @property
    def metrics(self) -> Path:
        """One JSON object for each step."""
        return self.path / METRICS

    @property
    def exists(self) -> bool:
        """Whether a run has begun here."""
        return (self.path / SETTINGS).is_file()

    @contextmanager
    def held(self) -> Iterator[WorkDirectory]:
        """Make the directory, and keep other processes out of it.

        Raises:
            UsageError: another process trains here.
            FileAccessError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / LOCK).touch()
        except OSError as error:
            raise FileAccessError(f"{self.path} cannot be used", why=error.strerror or str(error)) from error
        with locked_if_free(self.path / LOCK) as is_mine:
            if not is_mine:
                raise UsageError(f"another process trains in {self.path}", hint="wait for it, or another -o")
            try:
                yield self
            finally:
                if not self.exists:  # nothing was begun
                    shutil.rmtree(self.path, ignore_errors=True)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of a new run."""
        write_atomically(self.metrics, b"")
        write_atomically(self.path / SETTINGS, json.dumps(dict(settings), indent=1).encode())

    def settings(self) -> dict[str, Any]:
        """The settings that a run began with.

        Raises:
            UsageError: none has begun here.
            CorruptFile: they are damaged.
        """
        if not self.exists:
            raise UsageError(f"there is nothing to resume in {self.path}", hint="the same without --resume")
        data = (self.path / SETTINGS).read_bytes()[:_MOST_SETTINGS]
        return parse_object(data, name=SETTINGS)

    def require_same(self, settings: Mapping[str, Any]) -> None:
        """Raise `UsageError` unless a run that is resumed has the settings that it began with."""
        before = self.settings()
        for key, value in settings.items():
            if before.get(key) != value:
                why = f"it began with {key} {before.get(key)!r:.60}, and this is {value!r:.60}"
                raise UsageError("the run cannot be resumed", why=why, hint="the same options, or another -o", key=key)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to the metrics.

        Raises:
            DiskFull, FileAccessError: it cannot be written.
        """
        try:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dict(row)) + "\n")
        except OSError as error:
            raise not_written(self.metrics, error) from error

    def require_room(self, n_bytes: int, purpose: str, hint: str) -> None:
        """Raise `DiskFull` unless so many bytes are free here."""
        free = shutil.disk_usage(self.path.parent).free
        if free < n_bytes:
            what = f"{purpose} needs {size(n_bytes)} of disk, {size(free)} is free"
            raise DiskFull(what, why=str(self.path.parent), hint=hint, needed=n_bytes, free=free)

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop the metrics after a step, which will be computed again; returns those that are left."""
        rows = []
        for line in self.metrics.read_bytes().splitlines() if self.metrics.is_file() else []:
            try:
                row = parse_object(line, name=METRICS)
            except CorruptFile:  # the last line of a process that was killed
                continue
            if isinstance(row.get("step"), int) and row["step"] <= step:
                rows.append(row)
        write_atomically(self.metrics, "".join(json.dumps(row) + "\n" for row in rows).encode())
        return rows
