"""Chooses the compiler of a build: the system's, or where there is none Zig's, which a Python wheel carries.

    toolchain = choose(settings, fetch=True, report=bar)
    toolchain.path                      # PATH of the build: cc, c++, ar, ranlib and ninja are on it

The wheels of Zig and ninja are pinned by version and sha256, and unpacked into a directory of their own in the cache.
Zig has a C library's headers and its own C++ library with it, so it needs nothing of the system.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.builds.toolchain import compiler
from edgellm.errors import CorruptFile, ToolMissing
from edgellm.files import locked, require_space, sync_directory
from edgellm.package_index import Archive, fetch
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings

COMMAND = "edgellm engine build --fetch-compiler"
ZIG, NINJA = "0.17.1", "1.13.2"


def _wheel(package: str, version: str, platforms: str, size: int, sha256: str) -> Archive:
    return Archive(package, version, f"{package}-{version}-py3-none-{platforms}.whl", size, sha256)


# By architecture: the wheels of Zig and of ninja.
WHEELS = {
    "x86_64": (
        _wheel(
            *("ziglang", ZIG, "manylinux_2_12_x86_64.manylinux2010_x86_64.musllinux_1_1_x86_64"),
            *(101083562, "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54"),
        ),
        _wheel(
            *("ninja", NINJA, "manylinux2014_x86_64.manylinux_2_17_x86_64"),
            *(183365, "65a24341b5ac09fcadcc37082660be40a94174e51a937fabf6e2cae26225fa2c"),
        ),
    ),
    "aarch64": (
        _wheel(
            *("ziglang", ZIG, "manylinux_2_17_aarch64.manylinux2014_aarch64.musllinux_1_1_aarch64"),
            *(98063064, "b7c5f02fccd40f89b999ee16a1f5ddced56e6182370f8affe494bcf8a28cf07e"),
        ),
        _wheel(
            *("ninja", NINJA, "manylinux2014_aarch64.manylinux_2_17_aarch64"),
            *(177180, "d775a5e43e9088f507a6250d57fcf5678eb31268c545feb5064ffeee33735622"),
        ),
    ),
}
# Unpacked, with the C++ library that Zig compiles for itself when it is first used.
SPACE = 450_000_000
PROGRAMS = ("cc", "c++", "ar", "ranlib")
# Found through its own path, so the directory may be moved. Zig's cache stays inside.
SCRIPT = """\
#!/bin/sh
here="${{0%/*}}/.."
export ZIG_GLOBAL_CACHE_DIR="$here/cache" ZIG_LOCAL_CACHE_DIR="$here/cache"
exec "$here/ziglang/zig" {} "$@"
"""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What compiles: the first line of the compiler's --version, and the directory of a fetched one."""

    version: str
    programs: Path | None = None

    @property
    def path(self) -> str:
        """The PATH of a build."""
        own = os.environ.get("PATH", os.defpath)
        return own if self.programs is None else f"{self.programs}{os.pathsep}{own}"


def choose(settings: Settings, *, fetch: bool = False, report: Report = silent) -> Toolchain:
    """Return the system's compiler, else the one that was fetched, else fetch it if `fetch` allows that.

    Raises:
        ToolMissing: there is none, or the one that CC or CXX names does not work.
        NetworkError, ChecksumMismatch, DiskFull: it cannot be fetched.
    """
    try:
        return Toolchain(compiler())
    except ToolMissing as missing:
        if not can_fetch():
            raise
        place = _place(settings)
        if not place.exists() and not fetch:
            hint = f"{missing.hint}, or without installing anything: {COMMAND}"
            raise ToolMissing(missing.what, why=missing.why, hint=hint) from missing
    _install(settings, place, report)
    programs = place / "bin"
    command = [str(programs / "c++"), "--version"]
    shown = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False).stdout
    return Toolchain(f"zig {ZIG}: {next(iter(shown.splitlines()), 'unknown')}", programs)


def can_fetch() -> bool:
    """Whether there is a compiler to fetch for this machine, and nobody has named another one."""
    named = os.environ.get("CC") or os.environ.get("CXX")
    return sys.platform == "linux" and platform.machine() in WHEELS and not named


def is_missing(settings: Settings) -> bool:
    """Whether a build would end for want of a compiler, which `fetch` would mend."""
    try:
        choose(settings)
    except ToolMissing:
        return can_fetch()
    return False


def download_size() -> int:
    """Return the bytes to download."""
    return sum(archive.size for archive in WHEELS[platform.machine()])


def _place(settings: Settings) -> Path:
    return settings.cache / "tools" / f"zig-{ZIG}"


def _install(settings: Settings, place: Path, report: Report) -> None:
    """Fetch both wheels and unpack them, completely or not at all."""
    if place.exists():
        return
    require_space(place, SPACE, purpose="the compiler")
    staged = place.with_name(f"{place.name}.part")
    waiting = Progress("waiting for another edgellm, which fetches the compiler")
    with locked(place.with_name(f"{place.name}.lock"), lambda: report(waiting)):
        if place.exists():
            return
        wheels = [
            fetch(archive, settings.downloads, offline=settings.offline, report=report)
            for archive in WHEELS[platform.machine()]
        ]
        shutil.rmtree(staged, ignore_errors=True)
        report(Progress("unpacking the compiler"))
        for wheel in wheels:
            _unpack(wheel, staged)
        programs = staged / "bin"
        programs.mkdir()
        shutil.move(next(staged.glob("ninja-*.data/scripts/ninja")), programs / "ninja")
        for name in PROGRAMS:
            (programs / name).write_text(SCRIPT.format(name), encoding="utf-8")
        for program in (*programs.iterdir(), staged / "ziglang" / "zig"):
            program.chmod(0o755)
        staged.rename(place)
        sync_directory(place.parent)
        wheels[0].unlink()  # a hundred megabytes that are unpacked now


def _unpack(wheel: Path, directory: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as opened:
            opened.extractall(directory)
    except (zipfile.BadZipFile, EOFError) as error:
        hint = f"delete {wheel} and try again"
        raise CorruptFile(f"{wheel.name} cannot be unpacked", why=str(error), hint=hint) from error
