"""Finished engines on this machine: which one fits this edgellm and this CPU, and what is in it.

    engine = require(settings, stack)
    engine.libraries / "libllama.so"

An engine's directory is named by upstream version, patch stamp and CPU, and appears by one rename: what is there
is whole. Several may live side by side, so an upgrade never touches a library that a process has loaded.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edgellm.engine.patches import PatchStack
from edgellm.errors import EngineMissing
from edgellm.files import write_atomically
from edgellm.machine.cpu import Cpu, detect
from edgellm.settings import Settings

RECORD = "engine.json"
LIBRARY_SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"
BUILD_COMMAND = "edgellm engine build"


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """What engine.json says: where the engine came from and for what it was built."""

    version: str
    stamp: str
    commit: str
    cpu_model: str
    cpu_features: list[str]
    compiler: str
    built: str
    build_seconds: float
    patches: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstalledEngine:
    """One finished engine."""

    directory: Path
    record: EngineRecord

    @property
    def libraries(self) -> Path:
        """Directory of libllama and the ggml libraries."""
        return self.directory / "lib"

    @property
    def bindings(self) -> Path:
        """Directory to put on `sys.path` for the package `llama_cpp`."""
        return self.directory / "python"

    @property
    def programs(self) -> Path:
        """Directory of llama-server, llama-bench and the others, once they are built."""
        return self.directory / "bin"

    @property
    def tools(self) -> list[str]:
        """Names of the tools that are built."""
        return sorted(path.name for path in self.programs.glob("*") if not path.name.endswith(".part"))

    def write_record(self) -> None:
        """Store the record beside the libraries."""
        write_atomically(self.directory / RECORD, json.dumps(asdict(self.record), indent=2).encode())


def library_path(directory: Path, name: str) -> Path:
    """A shared library of an engine, such as `llama` or `ggml-base`, under this platform's name."""
    return directory / f"lib{name}{LIBRARY_SUFFIX}"


def directory_name(stack: PatchStack, cpu: Cpu) -> str:
    """`VERSION-STAMP-CPU`."""
    return f"{stack.upstream.archive.version}-{stack.stamp}-{cpu.key}"


def find(settings: Settings, stack: PatchStack, cpu: Cpu | None = None) -> InstalledEngine | None:
    """The engine for this patch stack and this CPU, or None."""
    return load(settings.engines / directory_name(stack, cpu or detect()))


def every(settings: Settings) -> list[InstalledEngine]:
    """All finished engines, whatever they were built for."""
    found = (load(path) for path in sorted(settings.engines.glob("*-*-*")))
    return [engine for engine in found if engine is not None]


def require(settings: Settings, stack: PatchStack) -> InstalledEngine:
    """The engine for this patch stack and this CPU; `EngineMissing` says why there is none."""
    engine = find(settings, stack)
    if engine is not None:
        return engine
    others = [other.record for other in every(settings)]
    if any(other.stamp == stack.stamp for other in others):
        why = f"there is one for another CPU ({others[0].cpu_model}); this is {detect().model}"
    elif others:
        why = f"there is one for other patches ({others[0].stamp}); this edgellm needs {stack.stamp}"
    else:
        why = "it is compiled once for this CPU, in a few minutes"
    raise EngineMissing("the engine is not built", why=why, hint=BUILD_COMMAND, stamp=stack.stamp)


def load(directory: Path) -> InstalledEngine | None:
    """The engine of a directory, or None."""
    try:
        record = EngineRecord(**json.loads((directory / RECORD).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return InstalledEngine(directory, record)
