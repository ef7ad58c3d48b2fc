"""Build the engine: fetch the pinned source, patch it, compile it for this CPU, install it in one step.

    engine = build(settings, PatchStack.load(resource_directory("patches")), tools=False, report=bar)

The libraries come first, a chat needs no more; the tools are built into the same engine on demand. Sources and
objects stay in the cache, so an interrupted build goes on where it stopped. Only a finished engine, whose
library has told its stamp, is moved to where it is looked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from edgellm import package_index
from edgellm.engine import cmake
from edgellm.engine.installed import EngineRecord, InstalledEngine, directory_name, find
from edgellm.engine.patches import PatchStack
from edgellm.engine.source import SourceTree, prepare
from edgellm.engine.toolchain import Compilers, compilers, require
from edgellm.errors import BuildFailed
from edgellm.files import locked, require_space, sync_directory
from edgellm.machine import memory
from edgellm.machine.cpu import Cpu, detect
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings

LIBRARY_TARGET = "llama"
TOOLS = ("llama-server", "llama-bench", "llama-quantize", "llama-perplexity", "llama-imatrix", "rpc-server")
# Sources 170 MB, objects and libraries 60 MB, the tools 250 MB more; measured with gcc 12.
BUILD_SPACE = 700_000_000
# The largest translation units need about this much memory to compile.
BYTES_PER_JOB = 1_200_000_000
RPATH = "@loader_path;@loader_path/../lib" if sys.platform == "darwin" else "$ORIGIN;$ORIGIN/../lib"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": RPATH,
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "ON",
    "GGML_RPC": "ON",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    # Without these two the server target fetches its web page from the network.
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
}
PROBE = "import ctypes, sys; f = ctypes.CDLL(sys.argv[1]).edgellm_stamp; f.restype = ctypes.c_char_p; print(f().decode())"


def build(settings: Settings, stack: PatchStack, *, tools: bool = False, clean: bool = False, report: Report = silent) -> InstalledEngine:
    """The engine for this stack and this CPU, built as far as it is not there yet.

    Args:
        tools: also build llama-server, llama-bench and the others of `TOOLS`.
        clean: throw away sources and objects of earlier attempts first.

    Raises:
        ToolMissing, NetworkError, ChecksumMismatch, PatchFailed, BuildFailed, DiskFull.
    """
    cpu = detect()
    installed = find(settings, stack, cpu)
    if installed is not None and not clean and (not tools or set(TOOLS) <= set(installed.tools)):
        return installed
    toolchain = compilers()
    require("git", "it applies the patches", "git")
    work = settings.builds / directory_name(stack, cpu)
    with locked(work.with_suffix(".lock"), lambda: report(Progress("waiting for another build"))) as lock:
        if clean:
            shutil.rmtree(work, ignore_errors=True)
        require_space(settings.builds, BUILD_SPACE, purpose="building the engine")
        work.mkdir(parents=True, exist_ok=True)
        installed = find(settings, stack, cpu)
        started = time.monotonic()
        archive = package_index.fetch(stack.upstream.archive, settings.downloads, offline=settings.offline, report=report)
        tree = prepare(stack, archive, work, report)
        if installed is None or clean:
            _compile(settings, tree, work, toolchain, (LIBRARY_TARGET,), "building the libraries", report, lock)
            installed = _install(settings, stack, cpu, tree, work, toolchain, time.monotonic() - started)
        if tools and not set(TOOLS) <= set(installed.tools):
            _compile(settings, tree, work, toolchain, (LIBRARY_TARGET, *TOOLS), "building the tools", report, lock)
            _install_tools(installed, work)
    return installed


def _compile(
    settings: Settings, tree: SourceTree, work: Path, toolchain: Compilers, targets: tuple[str, ...], stage: str, report: Report, lock: int,
) -> None:  # fmt: skip
    program = cmake.locate(settings, report)
    objects, log = work / "cmake", work / "build.log"
    generator = "Ninja" if shutil.which("ninja") else "Unix Makefiles"
    if generator == "Unix Makefiles":
        require("make", "it drives the build", "make")
    if not (objects / "CMakeCache.txt").exists():
        shutil.rmtree(objects, ignore_errors=True)
        configure = [program, "-S", str(tree.llama_cpp), "-B", str(objects), "-G", generator]
        configure += [f"-D{name}={value}" for name, value in OPTIONS.items()]
        configure += [f"-DCMAKE_C_COMPILER={toolchain.c}", f"-DCMAKE_CXX_COMPILER={toolchain.cxx}"]
        try:
            cmake.run(configure, log, "configuring", report, keep_open=(lock,))
        except BaseException:
            # A half-made configuration would be taken for a finished one.
            shutil.rmtree(objects, ignore_errors=True)
            raise
    cmake.run([program, "--build", str(objects), "-j", str(_jobs()), "--target", *targets], log, stage, report, keep_open=(lock,))


def _jobs() -> int:
    """Compilers to run at once: one for each CPU that we may use, as far as memory allows."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, memory.available() // BYTES_PER_JOB))


def _install(
    settings: Settings, stack: PatchStack, cpu: Cpu, tree: SourceTree, work: Path, toolchain: Compilers, seconds: float,
) -> InstalledEngine:  # fmt: skip
    """Put libraries, bindings and record together beside the target, ask the library who it is, and rename."""
    target = settings.engines / directory_name(stack, cpu)
    staged = settings.engines / f".{target.name}.part"
    shutil.rmtree(staged, ignore_errors=True)
    _copy_libraries(work / "cmake" / "bin", staged / "lib")
    shutil.copytree(tree.bindings, staged / "python" / "llama_cpp", ignore=shutil.ignore_patterns("server", "__pycache__"))
    _check_stamp(staged / "lib", stack.stamp)
    record = EngineRecord(
        version=stack.upstream.archive.version,
        stamp=stack.stamp,
        commit=stack.upstream.commit,
        cpu_model=cpu.model,
        cpu_features=list(cpu.features),
        compiler=toolchain.version,
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        build_seconds=round(seconds, 1),
        patches={patch.name: patch.subject for patch in stack.patches},
    )
    InstalledEngine(staged, record).write_record()
    retired = settings.engines / f".{target.name}.old"
    shutil.rmtree(retired, ignore_errors=True)
    if target.exists():
        # A process that has these libraries loaded keeps them; only their names go.
        target.rename(retired)
    staged.rename(target)
    sync_directory(settings.engines)
    shutil.rmtree(retired, ignore_errors=True)
    return InstalledEngine(target, record)


def _copy_libraries(source: Path, target: Path) -> None:
    """Copy shared libraries with their version links; one that is already there is in use and stays."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("lib*")):
        if not (target / path.name).exists():
            shutil.copy2(path, target / path.name, follow_symlinks=False)


def _install_tools(engine: InstalledEngine, work: Path) -> None:
    built = work / "cmake" / "bin"
    _copy_libraries(built, engine.libraries)
    engine.programs.mkdir(exist_ok=True)
    for name in TOOLS:
        partial = engine.programs / f"{name}.part"
        shutil.copy2(built / name, partial)
        partial.replace(engine.programs / name)


def library_path(directory: Path) -> Path:
    """libllama inside a directory of libraries, under this platform's name."""
    return directory / ("libllama.dylib" if sys.platform == "darwin" else "libllama.so")


def _check_stamp(directory: Path, expected: str) -> None:
    """Load the library in a process of its own, where a crash is an answer, and compare its stamp."""
    command = [sys.executable, "-c", PROBE, str(library_path(directory))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.stdout.strip() != expected:
        why = (result.stderr.strip().splitlines() or [f"its stamp is {result.stdout.strip()!r}, expected {expected}"])[-1]
        raise BuildFailed("the library that was built does not load", why=why, hint="edgellm engine build --clean")
