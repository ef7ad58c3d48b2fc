"""Compiles the portable engine: everything once for the baseline of an architecture, libggml-cpu for each variant.

    trees = compile_portable(settings, stack, "x86_64", report)
    trees.variants["avx2"] / "bin" / "libggml-cpu.so.0"

On the architecture of this machine the native build has everything already: of its objects only those of libggml-cpu
depend on the CPU, which is checked. The build trees lie beside the native one and share its sources.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.builds import cmake
from edgellm.engine.builds.builder import OPTIONS, TOOLS, build
from edgellm.engine.builds.installed import directory_name
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.source import SourceTree
from edgellm.engine.builds.toolchain import require
from edgellm.engine.builds.variants import CpuVariant, variants
from edgellm.errors import BuildFailed
from edgellm.machine.cpu import detect
from edgellm.progress import Report
from edgellm.settings import Settings

CROSS_PREFIX = {"aarch64": "aarch64-linux-gnu-"}
RULES = "build.ninja"
# A compiler's option that names a CPU or an instruction set, but -m64 and the like.
CPU_FLAG = re.compile(r"(?<!\S)-m(?:arch|cpu|tune|avx|sse|fma|f16c|bmi|amx)\S*")


@dataclass(frozen=True, slots=True)
class Trees:
    """Build trees: that of everything but libggml-cpu, and for each variant that of its libggml-cpu."""

    source: SourceTree
    whole: Path
    variants: dict[str, Path]


def compile_portable(settings: Settings, stack: PatchStack, machine: str, report: Report) -> Trees:
    """Compile for an architecture what is not compiled yet.

    Raises:
        BuildFailed, NetworkError, DiskFull, ToolMissing.
    """
    require("ninja", "it drives the build of wheels", "ninja-build")
    build(settings, stack, tools=True, report=report)
    work = settings.builds / directory_name(stack, detect())
    if not (work / "cmake" / RULES).is_file():  # the engine is there, but the cache was emptied
        build(settings, stack, clean=True, report=report)
        build(settings, stack, tools=True, report=report)
    source = SourceTree(work / "src")
    is_native = machine == os.uname().machine
    if is_native:
        refuse_cpu_flags((work / "cmake" / RULES).read_text(encoding="utf-8"))
    trees = {}
    for variant in variants(machine):
        is_whole = not is_native and not trees
        targets = ("llama", *TOOLS) if is_whole else ("ggml-cpu",)
        trees[variant.name] = _compile(settings, work, machine, variant, targets, report)
    whole = work / "cmake" if is_native else next(iter(trees.values()))
    return Trees(source, whole, trees)


def refuse_cpu_flags(rules: str) -> None:
    """Raise `BuildFailed` if an object outside of libggml-cpu is compiled for one CPU."""
    target = ""
    for line in rules.splitlines():
        if line.startswith("build "):
            target = line.split()[1].removesuffix(":")
        flag = CPU_FLAG.search(line) if line.startswith("  FLAGS =") else None
        if flag and "ggml-cpu.dir" not in target:
            why = f"{target} is compiled with {flag[0]}"
            raise BuildFailed("the native build is not portable", why=why, hint="unset CFLAGS CXXFLAGS, build again")


def _compile(
    settings: Settings, work: Path, machine: str, variant: CpuVariant, targets: tuple[str, ...], report: Report
) -> Path:
    objects = work / f"portable-{machine}-{variant.name}"
    program, log = cmake.locate(settings, report), work / f"{objects.name}.log"
    if not (objects / RULES).exists():
        command = [program, "-S", str(SourceTree(work / "src").llama_cpp), "-B", str(objects), "-G", "Ninja"]
        cmake.run([*command, *_definitions(machine, variant)], log, f"configuring {variant.name}", report)
    cmake.run([program, "--build", str(objects), "--target", *targets], log, f"building {variant.name}", report)
    return objects


def _definitions(machine: str, variant: CpuVariant) -> Iterator[str]:
    options = OPTIONS | {"GGML_NATIVE": "OFF"} | variant.options
    if machine != os.uname().machine:
        prefix = CROSS_PREFIX[machine]
        options |= {
            "CMAKE_SYSTEM_NAME": "Linux",
            "CMAKE_SYSTEM_PROCESSOR": machine,
            "CMAKE_C_COMPILER": f"{prefix}gcc",
            "CMAKE_CXX_COMPILER": f"{prefix}g++",
        }
    for name, value in options.items():
        yield f"-D{name}={value}"


def shared_libraries(tree: Path) -> list[Path]:
    """Return the shared libraries of a build tree but libggml-cpu, under the names by which others load them."""
    found = sorted((tree / "bin").glob("lib*.so*"))
    return [
        path for path in found if (".so." in path.name) == path.is_symlink() and not path.name.startswith("libggml-cpu")
    ]
