"""Builds the checker of kernels (check.h) and runs it: on this CPU, on models of what it lacks, and for ARM.

python -m tests.kernels.checker             every kernel at every level against the C truth; `make kernels`
python -m tests.kernels.checker --bench     and times them on this CPU; `make kernels BENCH=1`
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.builds import cmake
from edgellm.files import locked
from edgellm.machine.cpu import detect
from edgellm.progress import silent
from edgellm.settings import Settings

HERE = Path(__file__).parent
PATCHES = HERE.parents[1] / "patches"
ARM = platform.machine() in ("aarch64", "arm64")
QEMU = ("qemu-aarch64-static", "qemu-aarch64")
CROSS = "aarch64-linux-gnu-g++"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to build the checker, and what runs the program."""

    name: str
    title: str
    options: tuple[str, ...] = ()
    runner: tuple[str, ...] = ()
    missing: str = ""  # why it cannot be built here


def variants() -> list[Variant]:
    """All ways, also those that this machine has no tools for."""
    model_avx512 = () if "avx512_vnni" in detect().instruction_sets else ("-DEDGELLM_MODEL_AVX512=ON",)
    found = [
        Variant("cpu", "this CPU, compiled as the engine is"),
        Variant(
            "models", "AMX, AVX-VNNI and, where it is missing, AVX-512 VNNI on models, all of it with sanitizers",
            ("-DEDGELLM_MODELS=ON", "-DEDGELLM_SANITIZE=ON", *model_avx512),
        ),
    ]  # fmt: skip
    return found if ARM else [*found, _emulated_arm()]


def _emulated_arm() -> Variant:
    emulator = next(filter(None, map(shutil.which, QEMU)), None)
    missing = "" if emulator and shutil.which(CROSS) else "needs the packages qemu-user and g++-aarch64-linux-gnu"
    options = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64")
    compilers = (f"-DCMAKE_C_COMPILER={CROSS.replace('g++', 'gcc')}", f"-DCMAKE_CXX_COMPILER={CROSS}")
    return Variant("arm", "ARM, emulated", (*options, *compilers), (emulator or "", "-cpu", "max"), missing)


def build(variant: Variant, directory: Path, *options: str) -> Path:
    """The program, built in a directory that may hold an earlier build; BuildFailed names the first error."""
    program = cmake.locate(Settings.from_environment(), silent)
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "build.log"
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    configure = [program, "-S", str(HERE), "-B", str(directory), *generator, *variant.options, *options]
    cmake.run(configure, log, f"configuring the checker ({variant.name})", silent)
    cmake.run(
        [program, "--build", str(directory), "-j", str(os.cpu_count() or 1)],
        log, f"building the checker ({variant.name})", silent,
    )  # fmt: skip
    return directory / "check"


def command(variant: Variant, program: Path, *arguments: str) -> list[str]:
    """What runs the program."""
    return [*variant.runner, str(program), *arguments]


def main(arguments: Sequence[str]) -> int:
    """Check with every variant; builds are kept in edgellm's cache, so the next run builds only what has changed."""
    key = hashlib.sha256(str(HERE).encode()).hexdigest()[:6]
    builds = Settings.from_environment().builds / f"kernels-{key}"
    failed = False
    for variant in variants():
        sys.stdout.write(f"\n{variant.title}\n")
        sys.stdout.flush()
        if variant.missing:
            sys.stdout.write(f"skipped: {variant.missing}\n")
            continue
        with locked(builds.with_name(f"{builds.name}.lock")):
            program = build(variant, builds / variant.name)
            bench = arguments if variant.name == "cpu" else ()
            failed |= subprocess.run(command(variant, program, *bench), check=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
