"""The patch stack over upstream llama.cpp: reads it, computes its stamp, and applies it.

    stack = PatchStack.load(resource_directory("patches"))
    stack.stamp          # "3f9c1b…": changes with the pin, the order, any patch and any native source
    stack.apply(tree)    # a pristine vendor/llama.cpp becomes ours

`patches/series` gives the order and `patches/UPSTREAM` the pin. The header of each patch says why it exists and
when it can be dropped. Our own C and C++ is in `patches/native/` and is copied into the tree as `edgellm/`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.builds import unified_diff
from edgellm.errors import PatchFailed
from edgellm.package_index import Archive

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEADER = ("Subject", "Reason", "Forwarded", "Drop-When", "Touches")
REASONS = ("temporary", "build-only", "edgellm-only")
# The place of patches/native in the patched tree.
NATIVE = "edgellm"


@dataclass(frozen=True, slots=True)
class UpstreamPin:
    """The pin: one archive of the bindings, which contains the whole engine source."""

    archive: Archive
    repository: str
    commit: str
    ggml: str

    @classmethod
    def load(cls, path: Path) -> UpstreamPin:
        """Read the file `patches/UPSTREAM`."""
        pin = tomllib.loads(path.read_text(encoding="utf-8"))
        archive = Archive(pin["package"], pin["version"], pin["archive"], pin["size"], pin["sha256"])
        return cls(archive, pin["repository"], pin["commit"], pin["ggml"])


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch with the fields of its header."""

    path: Path
    subject: str
    reason: str
    forwarded: str
    drop_when: str
    touches: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of the patch file."""
        return self.path.name

    @classmethod
    def load(cls, path: Path) -> Patch:
        """Read the header of a patch file; raise `PatchFailed` when a field is missing."""
        try:
            header = path.read_text(encoding="utf-8").split("\n---\n", 1)[0]
        except OSError as error:
            raise PatchFailed(f"patch {path.name} cannot be read", why=str(error), patch=path.name) from error
        fields = dict(re.findall(r"^([A-Z][A-Za-z-]+): (.+)$", header, re.MULTILINE))
        if missing := [name for name in HEADER if name not in fields]:
            raise PatchFailed(f"patch {path.name} has no header field {missing[0]}", patch=path.name)
        subject, reason, forwarded, drop_when, touches = (fields[name].strip() for name in HEADER)
        return cls(path, subject, reason, forwarded, drop_when, tuple(touches.replace(",", " ").split()))


@dataclass(frozen=True, slots=True)
class PatchStack:
    """The pin, the patches and the native sources that turn the upstream tree into the engine."""

    directory: Path
    upstream: UpstreamPin
    patches: tuple[Patch, ...]

    @classmethod
    def load(cls, directory: Path) -> PatchStack:
        """Read UPSTREAM, series and every patch that the series names."""
        lines = (line.strip() for line in (directory / "series").read_text(encoding="utf-8").splitlines())
        names = [line for line in lines if line and not line.startswith("#")]
        patches = tuple(Patch.load(directory / name) for name in names)
        return cls(directory, UpstreamPin.load(directory / "UPSTREAM"), patches)

    @property
    def native_sources(self) -> tuple[Path, ...]:
        """Our own C, C++ and CMake files, sorted."""
        native = self.directory / "native"
        return tuple(sorted(path for path in native.rglob("*") if path.is_file() and not path.name.startswith(".")))

    @property
    def stamp(self) -> str:
        """A hash of the pin, the series, the patches and the native sources, as twelve hex digits."""
        digest = hashlib.sha256()
        parts = [self.directory / "UPSTREAM", self.directory / "series", *(patch.path for patch in self.patches)]
        for path in (*parts, *self.native_sources):
            name = path.relative_to(self.directory).as_posix()
            data = path.read_bytes()
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(data)
        return digest.hexdigest()[:12]

    def apply(self, tree: Path) -> None:
        """Patch a pristine llama.cpp tree in place, and add the native sources and the stamp.

        Raises:
            PatchFailed: a patch does not apply; the error names patch and file. Delete the tree afterwards.
        """
        for patch in self.patches:
            _apply_one(patch, tree)
        native = tree / NATIVE
        shutil.copytree(self.directory / "native", native)
        (native / "stamp.h").write_text(f'#pragma once\n#define EDGELLM_STAMP "{self.stamp}"\n', encoding="utf-8")


def _apply_one(patch: Patch, tree: Path) -> None:
    try:
        unified_diff.apply(patch.path.read_bytes(), tree)
    except unified_diff.DoesNotApply as error:
        raise PatchFailed(
            f"patch {patch.name} does not apply to {error.file}",
            why=str(error),
            hint="edgellm engine build --clean; a changed pin in patches/UPSTREAM needs the patch redone",
            patch=patch.name,
            file=error.file,
        ) from error
