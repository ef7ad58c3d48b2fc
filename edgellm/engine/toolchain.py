"""The programs that building the engine needs, and the package to install for each one that is missing.

    python -m edgellm.engine.toolchain     # checks this machine; used by the Makefile before anything is downloaded

This module imports nothing but the standard library and `edgellm.errors`, so it runs before anything is installed,
and both are written so that a Python that is too old still gets as far as being told so.
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
    """The command of this system's package manager."""
    if sys.platform == "darwin":
        return macos
    for manager, command in (("apt-get", f"sudo apt-get install {debian}"), ("dnf", f"sudo dnf install {fedora}")):
        if shutil.which(manager):
            return command
    return f"install {debian} with the package manager"


def compiler() -> str:
    """What the C++ compiler calls itself, after it has really compiled something; CXX names another than c++.

    Raises:
        ToolMissing: none is there, or it cannot compile a C++17 program.
    """
    hint = install_hint("g++", "gcc-c++", "xcode-select --install")
    named = os.environ.get("CXX", "")
    # Several words are fine, as they are for cmake: "ccache g++", "g++ -m64".
    command = shlex.split(named) or [next(filter(shutil.which, CXX_CANDIDATES), "")]
    if not shutil.which(command[0]):
        if named:
            raise ToolMissing(f"CXX is {named!r}, and there is no such program", hint="unset CXX")
        raise ToolMissing("no C++ compiler is installed; the engine is compiled for this CPU", hint=hint)
    if not os.environ.get("CC") and not any(map(shutil.which, CC_CANDIDATES)):
        raise ToolMissing("no C compiler is installed; the engine is compiled for this CPU", hint=hint)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "probe.cpp")
        source.write_text(PROBE)
        probe = [*command, "-std=c++17", str(source), "-o", str(source.with_suffix(""))]
        result = subprocess.run(probe, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        first = next(iter(result.stderr.splitlines()), "no message")
        raise ToolMissing(f"{' '.join(command)} cannot compile a small C++17 program", why=first, hint=hint)
    version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    return version.splitlines()[0] if version else "unknown"


def require(program: str, purpose: str, package: str) -> str:
    """The path of a program, or `ToolMissing` with the package that holds it."""
    path = shutil.which(program)
    if path is None:
        hint = install_hint(package, package, "xcode-select --install")
        raise ToolMissing(f"{program} is not installed; {purpose}", hint=hint)
    return path


def problems() -> Iterator[EdgellmError]:
    """Everything that is missing on this machine for a build from a fresh clone."""
    if sys.version_info < MINIMUM_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        yield ToolMissing(f"Python {found} is too old; edgellm needs 3.10", hint="make PYTHON=python3.12 ...")
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        yield ToolMissing(
            "this Python cannot make virtual environments",
            hint=install_hint("python3-venv", "python3-pip", "brew install python"),
        )
    for program, purpose in (("make", "it drives the build"), ("git", "it applies the patches to the engine")):
        try:
            require(program, purpose, program)
        except ToolMissing as error:
            yield error
    try:
        compiler()
    except ToolMissing as error:
        yield error


def main() -> int:
    """Say what is missing, one error each; the exit code is that of a missing tool."""
    missing = list(problems())
    for error in missing:
        why = f": {error.why}" if error.why else ""
        sys.stderr.write(f"error: {error.what}{why}\n  try: {error.hint}\n")
    return missing[0].exit_code if missing else 0


if __name__ == "__main__":
    sys.exit(main())
