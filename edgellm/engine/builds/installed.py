"""Finds the finished engines on this machine, and the one that fits this edgellm and this CPU.

    engine = require(settings, stack)
    engine.libraries / "libllama.so"

An engine's directory is named after the upstream version, the patch stamp and the CPU. A single rename creates
it, so it is always complete. Engines coexist, so an upgrade never touches a library that a process has loaded.
One that was compiled on this machine is preferred; else the one that a wheel carries is unpacked (`prebuilt`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgellm.engine.builds import prebuilt
from edgellm.engine.builds.patches import PatchStack
from edgellm.errors import EngineMissing
from edgellm.files import write_atomically
from edgellm.machine.cpu import Cpu, detect
from edgellm.progress import Report, silent
from edgellm.settings import Settings

RECORD = prebuilt.RECORD
LIBRARY_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
BUILD_COMMAND = "edgellm engine build"


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """The contents of engine.json: where the engine came from, and what it was built for.

    `variant` is empty for an engine that was compiled on this machine; for one out of a wheel it names the variant, and
    `choice` says why it is this one.
    """

    version: str
    stamp: str
    commit: str
    cpu_model: str
    cpu_features: list[str]
    compiler: str
    built: str
    build_seconds: float
    patches: dict[str, str] = field(default_factory=dict)
    variant: str = ""
    choice: str = ""


@dataclass(frozen=True, slots=True)
class InstalledEngine:
    """A finished engine and its directory."""

    directory: Path
    record: EngineRecord

    @property
    def libraries(self) -> Path:
        """The directory of libllama and the ggml libraries."""
        return self.directory / "lib"

    @property
    def bindings(self) -> Path:
        """The directory to put on `sys.path` for the package `llama_cpp`."""
        return self.directory / "python"

    @property
    def programs(self) -> Path:
        """The directory of llama-server, llama-bench and the other tools, if they are built."""
        return self.directory / "bin"

    @property
    def tools(self) -> list[str]:
        """The names of the tools that are built."""
        return sorted(path.name for path in self.programs.glob("*") if not path.name.endswith(".part"))

    def write_record(self) -> None:
        """Write the record to engine.json, beside the libraries."""
        write_atomically(self.directory / RECORD, json.dumps(asdict(self.record), indent=2).encode())


def library_path(directory: Path, name: str) -> Path:
    """Return the path of a shared library, such as `llama` or `ggml-base`, with this platform's file name."""
    return directory / f"lib{name}{LIBRARY_SUFFIX}"


def directory_name(stack: PatchStack, cpu: Cpu) -> str:
    """Return the directory name of an engine, `VERSION-STAMP-CPU`."""
    return f"{stack.upstream.archive.version}-{stack.stamp}-{cpu.key}"


def find(settings: Settings, stack: PatchStack, cpu: Cpu | None = None) -> InstalledEngine | None:
    """Return the engine for this patch stack and this CPU, or None; reads the disk, but changes nothing."""
    return find_native(settings, stack, cpu) or load(_unpacked(settings, stack, cpu or detect()))


def find_native(settings: Settings, stack: PatchStack, cpu: Cpu | None = None) -> InstalledEngine | None:
    """Return the engine that was compiled for this CPU, or None."""
    return load(settings.engines / directory_name(stack, cpu or detect()))


def obtain(
    settings: Settings, stack: PatchStack, report: Report = silent, packages: Path = prebuilt.PACKAGED
) -> InstalledEngine | None:
    """Return the engine for this patch stack and this CPU, unpacking the one in the wheel if need be, or None.

    Args:
        packages: the directory where a wheel has its engine.

    Raises:
        EngineError: the one in the wheel does not work on this CPU.
        DiskFull: there is no room for it.
    """
    cpu = detect()
    native = find_native(settings, stack, cpu)
    source = prebuilt.packaged(stack, cpu.machine, packages) if native is None else None
    target = _unpacked(settings, stack, cpu)
    if source is not None and not prebuilt.is_current(source, target):
        prebuilt.unpack(source, target, report)
    return native or load(target)


def _unpacked(settings: Settings, stack: PatchStack, cpu: Cpu) -> Path:
    return settings.engines / f"{directory_name(stack, cpu)}{prebuilt.SUFFIX}"


def find_all(settings: Settings) -> list[InstalledEngine]:
    """Return all finished engines, including those for other patches or CPUs."""
    found = (load(path) for path in sorted(settings.engines.glob("*-*-*")))
    return [engine for engine in found if engine is not None]


def require(settings: Settings, stack: PatchStack) -> InstalledEngine:
    """Return what `obtain` does; raise `EngineMissing` when there is none."""
    engine = obtain(settings, stack)
    if engine is not None:
        return engine
    others = [other.record for other in find_all(settings)]
    if any(other.stamp == stack.stamp for other in others):
        why = f"there is one for another CPU ({others[0].cpu_model}); this is {detect().model}"
    elif others:
        why = f"there is one for other patches ({others[0].stamp}); this edgellm needs {stack.stamp}"
    else:
        why = "it is compiled once for this CPU, in a few minutes"
    raise EngineMissing("the engine is not built", why=why, hint=BUILD_COMMAND, stamp=stack.stamp)


def load(directory: Path) -> InstalledEngine | None:
    """Return the engine in a directory, or None."""
    try:
        record = EngineRecord(**json.loads((directory / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return InstalledEngine(directory, record)
