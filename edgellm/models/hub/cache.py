"""The Hugging Face cache on disk, shared with other tools: blobs by hash, and snapshots of commits that link to them.

cache = HubCache(hub.cache)
cache.snapshot(file)     # models--user--repo/snapshots/COMMIT/model.gguf -> ../../blobs/SHA256
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgellm.files import sync_directory, write_atomically
from edgellm.models.hub.files import RemoteFile


class HubCache:
    """The paths of huggingface_hub's layout, and writing into it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def repository(self, repo: str) -> Path:
        """The directory of a model repository."""
        return self.directory / f"models--{repo.replace('/', '--')}"

    def blob(self, file: RemoteFile) -> Path:
        """The bytes of a file, under their hash."""
        return self.repository(file.repo) / "blobs" / file.etag

    def partial(self, file: RemoteFile) -> Path:
        """What has arrived of a file so far; other tools know by the ending that it is not complete."""
        return self.blob(file).with_name(f"{file.etag}.edgellm.incomplete")

    def corrupt(self, file: RemoteFile) -> Path:
        """Where a blob is set aside that is not what its name says."""
        return self.blob(file).with_name(f"{file.etag}.corrupt")

    def snapshot(self, file: RemoteFile) -> Path:
        """The file under its own name."""
        return self.repository(file.repo) / "snapshots" / file.commit / file.name

    def lock(self, file: RemoteFile) -> Path:
        """The lock that huggingface_hub takes for a blob as well."""
        return self.directory / ".locks" / f"models--{file.repo.replace('/', '--')}" / f"{file.etag}.lock"

    def commit(self, repo: str, revision: str) -> str | None:
        """The commit that a revision meant when something of it was last fetched, or None."""
        if re.fullmatch(r"[0-9a-f]{40}", revision):
            return revision
        try:
            text = self._ref(repo, revision).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return None
        return text if re.fullmatch(r"[0-9a-f]{40}", text) else None

    def files(self, repo: str, commit: str) -> dict[str, int | None]:
        """Names and sizes of what is here of a commit."""
        top = self.repository(repo) / "snapshots" / commit
        return {path.relative_to(top).as_posix(): path.stat().st_size for path in top.rglob("*") if path.is_file()}

    def file(self, repo: str, name: str, revision: str) -> RemoteFile | None:
        """A file that is here, as the Hub described it when it came: its blob is named after its hash."""
        commit = self.commit(repo, revision)
        path = self.repository(repo) / "snapshots" / (commit or "unknown") / name
        if commit is None or not path.is_file():
            return None
        etag = path.resolve().name if path.is_symlink() else "unknown"
        return RemoteFile(repo, name, commit, path.stat().st_size, etag)

    def here(self, file: RemoteFile) -> int:
        """How many bytes of a file are here, complete or not."""
        for path in (self.snapshot(file), self.blob(file), self.partial(file)):
            if path.is_file():
                return min(file.size, path.stat().st_size)
        return 0

    def publish(self, file: RemoteFile, revision: str) -> Path:
        """Link the snapshot to the blob, and record which commit the revision is; the path in the snapshot."""
        blob, target = self.blob(file), self.snapshot(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        link = target.with_name(f".{target.name}.{os.getpid()}.link")
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(os.path.relpath(blob, target.parent))
            link.replace(target)
        except PermissionError:  # a file system without links: the file itself moves, as huggingface_hub does it
            blob.replace(target)
        sync_directory(target.parent)
        if revision != file.commit and self.commit(file.repo, revision) != file.commit:
            write_atomically(self._ref(file.repo, revision), file.commit.encode())
        return target

    def _ref(self, repo: str, revision: str) -> Path:
        top = self.repository(repo) / "refs"
        path = Path(os.path.normpath(top / revision))
        if not path.is_relative_to(top) or path == top:
            raise ValueError(f"{revision!r} is no revision")
        return path
