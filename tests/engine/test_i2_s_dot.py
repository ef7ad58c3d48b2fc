"""The kernels of i2_s_dot.h, each built alone for its instruction set and held against a plain sum."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NATIVE = HERE.parents[1] / "patches" / "native"
X86 = platform.machine() in ("x86_64", "AMD64")
# All that the kernels need of ggml.
GGML_H = "#pragma once\n#include <stdint.h>\n#define GGML_API extern\n"


def run_check(directory: Path, compiler: str, flags: list[str], runner: str | None = None) -> None:
    """Build the check with this compiler and run it, on another machine's instruction set if `runner` emulates it."""
    for program in filter(None, (compiler, runner)):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    (directory / "ggml.h").write_text(GGML_H)
    program = directory / "check"
    sources = [f"-I{directory}", f"-I{NATIVE}", str(HERE / "i2_s_dot_check.cpp"), "-o", str(program)]
    subprocess.run([compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", *flags, *sources], check=True)
    result = subprocess.run(filter(None, (runner, str(program))), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("sanitizers", [[], ["-fsanitize=address,undefined", "-fno-sanitize-recover"]])
@pytest.mark.parametrize("level", ["baseline", "avx2"])
def test_x86(tmp_path: Path, level: str, sanitizers: list[str]) -> None:
    if not X86:
        pytest.skip("this is no x86 machine")
    if level == "avx2" and "avx2" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("this CPU has no AVX2")
    run_check(tmp_path, "c++", [*sanitizers, *(["-mavx2"] if level == "avx2" else [])])


@pytest.mark.parametrize("level", ["armv8-a", "armv8.2-a+dotprod"])
def test_arm(tmp_path: Path, level: str) -> None:
    native = platform.machine() in ("aarch64", "arm64")
    compiler, runner = ("c++", None) if native else ("aarch64-linux-gnu-g++", "qemu-aarch64-static")
    run_check(tmp_path, compiler, [f"-march={level}", *([] if native else ["-static"])], runner)
