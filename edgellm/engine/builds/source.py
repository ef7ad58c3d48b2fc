"""Makes the engine's source tree: unpacks the verified archive and patches it, completely or not at all.

tree = prepare(stack, archive_path, settings.builds / name)
tree.llama_cpp, tree.bindings
"""

from __future__ import annotations

import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgellm.engine.builds.patches import PatchStack
from edgellm.errors import CorruptFile
from edgellm.files import sync_directory
from edgellm.progress import Progress, Report, silent

BINDINGS = "llama_cpp"
LLAMA_CPP = "vendor/llama.cpp"
# Images and documentation, a fifth of the archive, which the build does not use.
UNUSED = tuple(f"{LLAMA_CPP}/{name}/" for name in ("docs", "media", ".github", ".devops"))


@dataclass(frozen=True, slots=True)
class SourceTree:
    """The directories of the patched sources."""

    root: Path

    @property
    def llama_cpp(self) -> Path:
        """The patched llama.cpp."""
        return self.root / LLAMA_CPP

    @property
    def bindings(self) -> Path:
        """The pure Python package `llama_cpp`."""
        return self.root / BINDINGS

    @property
    def vocabularies(self) -> Path:
        """The directory of upstream's `ggml-vocab-*.gguf`: real tokenizers without weights."""
        return self.llama_cpp / "models"


def prepare(stack: PatchStack, archive: Path, directory: Path, report: Report = silent) -> SourceTree:
    """Unpack and patch into `directory`/src unless already done; an interrupted attempt starts again."""
    tree = SourceTree(directory / "src")
    if tree.root.is_dir():
        return tree
    partial = directory / "src.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _unpack(archive, partial, report)
        report(Progress("patching"))
        stack.apply(SourceTree(partial).llama_cpp)
        partial.rename(tree.root)
        sync_directory(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return tree


def _unpack(archive: Path, destination: Path, report: Report) -> None:
    """Extract what the build needs, without the archive's top directory and upstream's dangling .git file."""
    size = archive.stat().st_size
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extraction_filter = tarfile.data_filter
            for member in tar:
                relative = PurePosixPath(*PurePosixPath(member.name).parts[1:]).as_posix()
                if not relative.startswith((f"{BINDINGS}/", f"{LLAMA_CPP}/")) or relative.startswith(UNUSED):
                    continue
                if relative == f"{LLAMA_CPP}/.git":
                    continue
                member.name = relative
                tar.extract(member, destination)
                report(Progress("unpacking", file.tell(), size, "B"))
    except (tarfile.TarError, EOFError) as error:
        raise CorruptFile(
            f"{archive.name} cannot be unpacked", why=str(error), hint=f"delete {archive} and try again"
        ) from error
