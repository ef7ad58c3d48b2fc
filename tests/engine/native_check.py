"""C++ check programs beside the tests: built alone, with sanitizers or for another machine, and run.

run_check(tmp_path, ["i2_s_dot_check.cpp"], ["-mavx2"])
"""

import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "patches" / "native"
X86 = platform.machine() in ("x86_64", "AMD64")
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover"]
# All that the kernels need of ggml.
GGML_H = "#pragma once\n#include <stdint.h>\n#define GGML_API extern\n"
QEMU = ("qemu-aarch64-static", "qemu-aarch64")


def require_cpu(*features: str) -> None:
    """Skip unless this is an x86 CPU with these flags of /proc/cpuinfo."""
    if not X86:
        pytest.skip("this is no x86 machine")
    flags = Path("/proc/cpuinfo").read_text().split()
    if missing := [feature for feature in features if feature not in flags]:
        pytest.skip(f"this CPU has no {missing[0]}")


def run_check(directory: Path, sources: Sequence[Path], flags: Sequence[str], *arguments: str) -> str:
    """Build the sources with the system's compiler and run them; returns what they print."""
    return _run(directory, "c++", sources, flags, [], arguments)


def run_arm_check(directory: Path, sources: Sequence[Path], flags: Sequence[str]) -> str:
    """The same for 64-bit ARM: on this machine if it is one, else cross-compiled and emulated."""
    if platform.machine() in ("aarch64", "arm64"):
        return _run(directory, "c++", sources, flags, [], ())
    emulator = next(filter(None, map(shutil.which, QEMU)), None)
    if emulator is None:
        pytest.skip("qemu-aarch64 is not installed (package qemu-user)")
    return _run(directory, "aarch64-linux-gnu-g++", sources, [*flags, "-static"], [emulator, "-cpu", "max"], ())


def _run(
    directory: Path,
    compiler: str,
    sources: Sequence[Path],
    flags: Sequence[str],
    runner: Sequence[str],
    arguments: Sequence[str],
) -> str:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    (directory / "ggml.h").write_text(GGML_H)
    program = directory / "check"
    # gcc 12's own headers of AVX-512 make the two warnings that are left out
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-uninitialized", *flags]
    command += ["-Wno-maybe-uninitialized"] if "clang" not in _version(compiler) else []
    command += [f"-I{directory}", f"-I{NATIVE}", *map(str, sources), "-o", str(program)]
    subprocess.run(command, check=True)
    result = subprocess.run([*runner, str(program), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
