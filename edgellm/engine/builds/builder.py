"""Builds the engine: fetch the pinned source, patch it, compile it for this CPU, and install it atomically.

    engine = build(settings, PatchStack.load(resource_directory("patches")), tools=False, report=bar)

The libraries are built first, and a chat needs nothing else; the tools are added to the same engine on demand.
Sources and objects stay in the cache, so an interrupted build resumes where it stopped. An engine is installed
only when it is complete and its library reports the right stamp.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgellm import package_index
from edgellm.engine.builds import cmake
from edgellm.engine.builds.fetched_compiler import Toolchain, choose
from edgellm.engine.builds.installed import EngineRecord, InstalledEngine, directory_name, find_native, library_path
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.source import SourceTree, prepare
from edgellm.engine.builds.toolchain import require
from edgellm.errors import BuildFailed
from edgellm.files import locked, require_space, sync_directory
from edgellm.machine import memory
from edgellm.machine.cpu import Cpu, detect
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings

LIBRARY_TARGET = "llama"
TOOLS = ("llama-server", "llama-bench", "llama-quantize", "llama-perplexity", "llama-imatrix", "ggml-rpc-server")
# Sources take 170 MB, objects and libraries 60 MB, and the tools another 250 MB; measured with gcc 12.
BUILD_SPACE = 700_000_000
# Compiling the largest translation units takes about this much memory.
BYTES_PER_JOB = 1_200_000_000
RPATH = "@loader_path;@loader_path/../lib" if sys.platform == "darwin" else "$ORIGIN;$ORIGIN/../lib"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": RPATH,
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "ON",
    "GGML_RPC": "ON",
    # On for macOS by default. Products and sums of the CPU's own code are those that are tested to the bit.
    "GGML_METAL": "OFF",
    "GGML_BLAS": "OFF",
    "GGML_ACCELERATE": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    # Without these two options, the server target downloads its web page.
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
}
PROBE = (
    "import ctypes, sys; f = ctypes.CDLL(sys.argv[1]).edgellm_stamp; f.restype = ctypes.c_char_p; print(f().decode())"
)


def build(
    settings: Settings,
    stack: PatchStack,
    *,
    tools: bool = False,
    clean: bool = False,
    fetch_compiler: bool = False,
    report: Report = silent,
) -> InstalledEngine:
    """Return the engine for this stack and this CPU, after building what is missing.

    Args:
        tools: also build llama-server, llama-bench and the other `TOOLS`.
        clean: delete the sources and objects of earlier builds first.
        fetch_compiler: fetch one if this machine has none.

    Raises:
        ToolMissing, NetworkError, ChecksumMismatch, PatchFailed, BuildFailed, DiskFull.
    """
    finished = None if clean else find_finished(settings, stack, tools=tools)
    if finished is not None:
        return finished
    toolchain = choose(settings, fetch=fetch_compiler, report=report)
    work = settings.builds / directory_name(stack, detect())
    with locked(work.with_name(f"{work.name}.lock"), lambda: report(Progress("waiting for another build"))) as lock:
        if clean:
            shutil.rmtree(work, ignore_errors=True)
        builder = _Builder(settings, stack, detect(), work, toolchain, lock, report)
        installed = find_native(settings, stack)
        if installed is None or clean:
            installed = builder.libraries()
        if tools and not has_tools(installed):
            builder.tools(installed)
    return installed


def find_finished(settings: Settings, stack: PatchStack, *, tools: bool) -> InstalledEngine | None:
    """Return the engine that was built for this stack and this CPU, if nothing that is asked for is missing."""
    installed = find_native(settings, stack)
    return installed if installed is not None and (not tools or has_tools(installed)) else None


def has_tools(engine: InstalledEngine) -> bool:
    """Return whether all `TOOLS` are built."""
    return set(TOOLS) <= set(engine.tools)


@dataclass(frozen=True, slots=True)
class _Builder:
    """One build: its inputs, its working directory, and its progress report."""

    settings: Settings
    stack: PatchStack
    cpu: Cpu
    work: Path
    toolchain: Toolchain
    lock: int
    report: Report

    @property
    def _products(self) -> Path:
        return self.work / "cmake" / "bin"

    def libraries(self) -> InstalledEngine:
        """Compile the libraries and install them with the bindings."""
        started = time.monotonic()
        tree = self._source()
        self._compile(tree, (LIBRARY_TARGET,), "building the libraries")
        return self._install(tree, time.monotonic() - started)

    def tools(self, engine: InstalledEngine) -> None:
        """Compile the tools and move each one beside the libraries with a rename."""
        self._compile(self._source(), (LIBRARY_TARGET, *TOOLS), "building the tools")
        _copy_libraries(self._products, engine.libraries)
        engine.programs.mkdir(exist_ok=True)
        for name in TOOLS:
            partial = engine.programs / f"{name}.part"
            shutil.copy2(self._products / name, partial)
            partial.replace(engine.programs / name)

    def _source(self) -> SourceTree:
        require_space(self.settings.builds, BUILD_SPACE, purpose="building the engine")
        self.work.mkdir(parents=True, exist_ok=True)
        archive = self.stack.upstream.archive
        path = package_index.fetch(archive, self.settings.downloads, offline=self.settings.offline, report=self.report)
        return prepare(self.stack, path, self.work, self.report)

    def _compile(self, tree: SourceTree, targets: tuple[str, ...], stage: str) -> None:
        program = cmake.locate(self.settings, self.report)
        objects, log = self.work / "cmake", self.work / "build.log"
        path = self.toolchain.path
        has_ninja = shutil.which("ninja", path=path) is not None
        generator, rules = ("Ninja", "build.ninja") if has_ninja else ("Unix Makefiles", "Makefile")
        if generator == "Unix Makefiles":
            require("make", "it drives the build", "make")
        # cmake writes the build rules last: if they are missing, the configuration was interrupted.
        if not (objects / rules).exists():
            shutil.rmtree(objects, ignore_errors=True)
            command = [program, "-S", str(tree.llama_cpp), "-B", str(objects), "-G", generator]
            command += [f"-D{name}={value}" for name, value in OPTIONS.items()]
            cmake.run(command, log, "configuring", self.report, path=path, keep_open=(self.lock,))
        command = [program, "--build", str(objects), "-j", str(_jobs()), "--target", *targets]
        cmake.run(command, log, stage, self.report, path=path, keep_open=(self.lock,))

    def _install(self, tree: SourceTree, seconds: float) -> InstalledEngine:
        """Assemble the engine beside the target, check the library's stamp, and rename."""
        target = self.settings.engines / directory_name(self.stack, self.cpu)
        staged = target.with_name(f".{target.name}.part")
        shutil.rmtree(staged, ignore_errors=True)
        _copy_libraries(self._products, staged / "lib")
        ignored = shutil.ignore_patterns("server", "__pycache__")
        shutil.copytree(tree.bindings, staged / "python" / "llama_cpp", ignore=ignored)
        _check_stamp(staged / "lib", self.stack.stamp)
        record = self._record(seconds)
        InstalledEngine(staged, record).write_record()
        _replace_directory(staged, target)
        return InstalledEngine(target, record)

    def _record(self, seconds: float) -> EngineRecord:
        return EngineRecord(
            version=self.stack.upstream.archive.version,
            stamp=self.stack.stamp,
            commit=self.stack.upstream.commit,
            cpu_model=self.cpu.model,
            cpu_features=list(self.cpu.features),
            compiler=self.toolchain.version,
            built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            build_seconds=round(seconds, 1),
            patches={patch.name: patch.subject for patch in self.stack.patches},
        )


def _jobs() -> int:
    """Return the number of parallel compilers: one per CPU available to this process, limited by memory."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, memory.available() // BYTES_PER_JOB))


def _replace_directory(staged: Path, target: Path) -> None:
    """Move a finished directory into place; processes that have the old libraries loaded keep them."""
    retired = target.with_name(f".{target.name}.old")
    shutil.rmtree(retired, ignore_errors=True)
    if target.exists():
        target.rename(retired)
    staged.rename(target)
    sync_directory(target.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _copy_libraries(source: Path, target: Path) -> None:
    """Copy shared libraries with their version links; existing ones may be in use and are not replaced."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("lib*")):
        if not (target / path.name).exists():
            shutil.copy2(path, target / path.name, follow_symlinks=False)


def _check_stamp(directory: Path, expected: str) -> None:
    """Load the library in a child process, which may crash, and compare its stamp."""
    command = [sys.executable, "-c", PROBE, str(library_path(directory, "llama"))]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if result.stdout.strip() != expected:
        why = (result.stderr.strip().splitlines() or [f"its stamp is {result.stdout.strip()!r}, expected {expected}"])[
            -1
        ]
        raise BuildFailed("the newly built library does not load", why=why, hint="edgellm engine build --clean")
