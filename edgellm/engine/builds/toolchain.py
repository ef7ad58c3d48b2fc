"""Checks for the programs that building the engine needs, and names the package of each missing one.

    python -m edgellm.engine.builds.toolchain     # checks this machine; the Makefile runs it before any download

This module imports only the standard library and `edgellm.errors`, so it runs before anything is installed. Both
modules avoid new syntax, so that an outdated Python can still run them and print the error about its version.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgellm.errors import EdgellmError, ToolMissing

MINIMUM_PYTHON = (3, 10)
CXX_CANDIDATES = ("c++", "g++", "clang++")
PROBE = "#include <chrono>\n#include <optional>\nint main() { return std::optional<int>(0).value(); }\n"
CC_CANDIDATES = ("cc", "gcc", "clang")


def install_hint(debian: str, fedora: str, macos: str) -> str:
    """Return the install command for this system's package manager."""
    if sys.platform == "darwin":
        return macos
    for manager, command in (("apt-get", f"sudo apt-get install {debian}"), ("dnf", f"sudo dnf install {fedora}")):
        if shutil.which(manager):
            return command
    return f"install {debian} with the package manager"


def compiler() -> str:
    """Return the first line of the C++ compiler's --version, after a test compile; CXX overrides c++.

    Raises:
        ToolMissing: no compiler is installed, or it cannot compile a C++17 program.
    """
    hint = install_hint("g++", "gcc-c++", "xcode-select --install")
    named = os.environ.get("CXX", "")
    # As in cmake, CXX may hold several words: "ccache g++", "g++ -m64".
    command = shlex.split(named) or [next(filter(shutil.which, CXX_CANDIDATES), "")]
    if not shutil.which(command[0]):
        if named:
            raise ToolMissing(f"CXX is {named!r}, but there is no such program", hint="unset CXX")
        raise ToolMissing("no C++ compiler is installed; the engine is compiled for this CPU", hint=hint)
    if not os.environ.get("CC") and not any(map(shutil.which, CC_CANDIDATES)):
        raise ToolMissing("no C compiler is installed; the engine is compiled for this CPU", hint=hint)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "probe.cpp")
        source.write_text(PROBE, encoding="utf-8")
        probe = [*command, "-std=c++17", str(source), "-o", str(source.with_suffix(""))]
        result = subprocess.run(probe, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if result.returncode != 0:
        first = next(iter(result.stderr.splitlines()), "no message")
        raise ToolMissing(f"{' '.join(command)} cannot compile a small C++17 program", why=first, hint=hint)
    version = subprocess.run(
        [*command, "--version"], capture_output=True, encoding="utf-8", errors="replace", check=False
    ).stdout
    return version.splitlines()[0] if version else "unknown"


def require(program: str, purpose: str, package: str) -> str:
    """Return the path of a program; raise `ToolMissing`, with the package to install, when it is missing."""
    path = shutil.which(program)
    if path is None:
        hint = install_hint(package, package, "xcode-select --install")
        raise ToolMissing(f"{program} is not installed; {purpose}", hint=hint)
    return path


def problems() -> Iterator[EdgellmError]:
    """Yield an error for everything that a build from a fresh clone needs but this machine lacks."""
    if sys.version_info < MINIMUM_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        yield ToolMissing(f"Python {found} is too old; edgellm needs 3.10", hint="make PYTHON=python3.12 ...")
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        yield ToolMissing(
            "this Python cannot create virtual environments",
            hint=install_hint("python3-venv", "python3-pip", "brew install python"),
        )
    try:
        require("make", "it drives the build", "make")
    except ToolMissing as error:
        yield error
    try:
        compiler()
    except ToolMissing as error:
        yield error


def main() -> int:
    """Print an error for each missing program, and return 0 or the exit code of `ToolMissing`."""
    missing = list(problems())
    for error in missing:
        why = f": {error.why}" if error.why else ""
        sys.stderr.write(f"error: {error.what}{why}\n  try: {error.hint}\n")
    return missing[0].exit_code if missing else 0


if __name__ == "__main__":
    sys.exit(main())
