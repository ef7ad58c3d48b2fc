"""Compiles the portable engine: everything once for the baseline of an architecture, libggml-cpu for each variant.

    built = compile_portable(settings, stack, "x86_64", report)
    built["avx2"] / "bin" / "libggml-cpu.so.0"

The build trees lie beside the native one and share its sources; ccache then has most of the objects already.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edgellm import package_index
from edgellm.engine.builds import cmake
from edgellm.engine.builds.builder import BUILD_SPACE, OPTIONS, TOOLS
from edgellm.engine.builds.installed import directory_name
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.source import SourceTree, prepare
from edgellm.engine.builds.toolchain import require
from edgellm.engine.builds.variants import Variant, variants
from edgellm.files import locked, require_space
from edgellm.machine.cpu import detect
from edgellm.progress import Progress, Report
from edgellm.settings import Settings

CROSS_PREFIX = {"aarch64": "aarch64-linux-gnu-"}
# Nobody debugs an installed wheel: symbols that no other library needs are left out.
STRIP = {"CMAKE_SHARED_LINKER_FLAGS": "-s", "CMAKE_EXE_LINKER_FLAGS": "-s", "CMAKE_MODULE_LINKER_FLAGS": "-s"}


def compile_portable(settings: Settings, stack: PatchStack, machine: str, report: Report) -> dict[str, Path]:
    """Compile for `machine`, and return the build tree of each variant; that of the first has everything else too.

    Raises:
        BuildFailed, NetworkError, DiskFull.
    """
    return {
        variant.name: _compile(settings, stack, machine, variant, variant is variants(machine)[0], report)
        for variant in variants(machine)
    }


def work_directory(settings: Settings, stack: PatchStack) -> Path:
    """The directory of the native build, whose sources are the same."""
    return settings.builds / directory_name(stack, detect())


def sources(settings: Settings, stack: PatchStack, report: Report) -> SourceTree:
    """Fetch, unpack and patch the sources, unless that is done."""
    require_space(settings.builds, BUILD_SPACE, purpose="building the portable engine")
    work = work_directory(settings, stack)
    work.mkdir(parents=True, exist_ok=True)
    archive = package_index.fetch(stack.upstream.archive, settings.downloads, offline=settings.offline, report=report)
    with locked(work.with_name(f"{work.name}.lock"), lambda: report(Progress("waiting for another build"))):
        return prepare(stack, archive, work, report)


def _compile(
    settings: Settings, stack: PatchStack, machine: str, variant: Variant, whole: bool, report: Report
) -> Path:
    work = work_directory(settings, stack)
    tree = SourceTree(work / "src") if (work / "src").is_dir() else sources(settings, stack, report)
    objects = work / f"portable-{machine}-{variant.name}"
    program, log = cmake.locate(settings, report), work / f"{objects.name}.log"
    require("ninja", "it drives the build of wheels", "ninja-build")
    if not (objects / "build.ninja").exists():
        command = [program, "-S", str(tree.llama_cpp), "-B", str(objects), "-G", "Ninja"]
        cmake.run([*command, *_definitions(machine, variant)], log, f"configuring {variant.name}", report)
    targets = ("llama", *TOOLS) if whole else ("ggml-cpu",)
    command = [program, "--build", str(objects), "--target", *targets]
    cmake.run(command, log, f"building {variant.name}", report)
    return objects


def _definitions(machine: str, variant: Variant) -> Iterator[str]:
    options = OPTIONS | STRIP | {"GGML_NATIVE": "OFF"} | variant.options
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
    """Return the shared libraries of a build tree, under the names by which others load them."""
    found = sorted((tree / "bin").glob("lib*.so*"))
    return [path for path in found if (".so." in path.name) == path.is_symlink()]
