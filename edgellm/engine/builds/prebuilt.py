"""Installs the engine that a wheel carries: chooses the variant for this CPU, tries it, and puts it with the others.

    source = packaged(stack, "x86_64")
    unpack(source, target)               # target / "engine.json" says which variant it is, and why

The wheel holds a whole engine for the baseline of the architecture (`variants`), and beside it one libggml-cpu for each
better kind of CPU. The best variant that suits this CPU becomes the engine, once a child process has computed with it
what plain C computed when the wheel was made (`trial`). If that fails, the next lower one is tried. The engine in
`target` is complete in itself, so removing or upgrading the wheel takes nothing from a running process.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.variants import CpuVariant, reaches, suitable, variants
from edgellm.errors import EngineError
from edgellm.files import locked, require_space, sync_directory, sync_file, write_atomically
from edgellm.machine.child import Child, ChildFailed, how_it_ended, module
from edgellm.machine.cpu import Cpu, detect
from edgellm.progress import Progress, Report, silent
from edgellm.settings import PACKAGE

PACKAGED = PACKAGE / "_engine"
RECORD = "engine.json"
TRIAL_MODEL, TRIAL_LOGITS = "trial.gguf", "trial.npy"
# A trial takes seconds; an emulator is fifty times as slow.
TRIAL_SECONDS = 600
CPU_LIBRARY = "libggml-cpu.so.0"
# What the name of an unpacked engine's directory ends with.
SUFFIX = "-wheel"


@dataclass(frozen=True, slots=True)
class Packaged:
    """The engine in a wheel; `record` is the content of its engine.json."""

    directory: Path
    record: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """The size on disk, of which an installed engine needs a part."""
        return sum(path.stat().st_size for path in self.directory.rglob("*") if path.is_file())

    def library(self, variant: CpuVariant) -> Path:
        """Return the libggml-cpu of a variant; that of the baseline is part of the whole engine."""
        is_baseline = variant == variants(self.record["machine"])[0]
        return self.directory / "lib" / (CPU_LIBRARY if is_baseline else variant_file(variant.name))


def variant_file(name: str) -> str:
    """Return the file name of a variant's libggml-cpu, which loads under the name `CPU_LIBRARY` all the same."""
    return f"libggml-cpu-{name}.so"


def packaged(stack: PatchStack, machine: str, directory: Path = PACKAGED) -> Packaged | None:
    """Return the engine in this installation of edgellm; None without one for this stack and architecture."""
    try:
        record = json.loads((directory / RECORD).read_text(encoding="utf-8"))
        fits = record["stamp"] == stack.stamp and record["machine"] == machine
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return Packaged(directory, record) if fits else None


def unpack(source: Packaged, target: Path, report: Report = silent) -> None:
    """Install the best variant that passes its trial, completely or not at all.

    Raises:
        EngineError: no variant works on this CPU; says what failed.
        DiskFull: there is no room for it.
    """
    cpu = detect()
    require_space(target, source.nbytes, purpose="the engine")
    lock = target.with_name(f".{target.name}.lock")
    with locked(lock, lambda: report(Progress("waiting for another edgellm, which installs the engine"))):
        if is_current(source, target):
            return
        staged = target.with_name(f".{target.name}.part")
        shutil.rmtree(staged, ignore_errors=True)
        try:
            report(Progress("unpacking the engine"))
            _copy(source, staged)
            record = source.record | {"cpu_model": cpu.model, "cpu_features": list(cpu.features)}
            _write_record(staged, record)
            variant, why = _choose(source, staged, cpu, report)
            _write_record(staged, record | {"variant": variant.name, "choice": why})
            _sync(staged)
            _replace(staged, target)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        _remove_former(target, cpu)


def is_current(source: Packaged, target: Path) -> bool:
    """Whether `target` came from this wheel."""
    return _build_of(target) == str(source.record["built"])


def _build_of(target: Path) -> str | None:
    try:
        built = json.loads((target / RECORD).read_text(encoding="utf-8"))["built"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return str(built)


def _copy(source: Packaged, staged: Path) -> None:
    """Copy all but the variants, and give the libraries the short names by which the bindings load them."""
    ignored = shutil.ignore_patterns(variant_file("*"), "__pycache__")
    shutil.copytree(source.directory, staged, ignore=ignored)
    for library in (staged / "lib").glob("*.so.*"):
        short = library.with_name(f"{library.name.partition('.so.')[0]}.so")
        short.symlink_to(library.name)


def _choose(source: Packaged, staged: Path, cpu: Cpu, report: Report) -> tuple[CpuVariant, str]:
    """Put the best variant that works into the staged engine; return it, and in words why it is this one."""
    failures: list[str] = []
    offered = [variant for variant in suitable(cpu) if source.library(variant).exists()]
    for number, variant in enumerate(offered):
        report(Progress(f"trying the engine's {variant.name} variant", number, len(offered)))
        shutil.copy2(source.library(variant), staged / "lib" / CPU_LIBRARY)
        failure = try_variant(staged, variant)
        if not failure:
            best = "the best one for this CPU" if not failures else "; ".join(failures)
            return variant, best
        failures.append(f"{variant.name} failed: {failure}")
    raise EngineError(
        "the engine in this wheel does not work on this CPU",
        why="; ".join(failures) or f"it has no variant for {cpu.machine}",
        hint="edgellm engine build",
    )


def try_variant(engine: Path, variant: CpuVariant) -> str:
    """Compute with an engine in a child process; return what is wrong, or ""."""
    environment = {name: value for name, value in os.environ.items() if name != "EDGELLM_KERNELS"}
    files = [str(engine / name) for name in (TRIAL_MODEL, TRIAL_LOGITS)]
    program = module("edgellm.engine.builds.trial", str(engine), *files, env=environment)
    try:
        with Child(program, name="the trial") as child:
            status = child.finish(TRIAL_SECONDS)
            level, errors = child.output.decode(errors="replace").strip(), child.errors.decode(errors="replace")
    except ChildFailed as error:
        return f"{error.what} ({error.why})"
    if status:
        last = next(reversed(errors.strip().splitlines()), "")
        return how_it_ended(status) if status < 0 or not last else last
    return "" if reaches(level, variant.level) else f"the CPU itself reports only {level}"


def _write_record(directory: Path, record: dict[str, Any]) -> None:
    known = {name: value for name, value in record.items() if name not in ("machine", "variants")}
    write_atomically(directory / RECORD, json.dumps(known, indent=2).encode())


def _replace(staged: Path, target: Path) -> None:
    retired = target.with_name(f".{target.name}.old")
    shutil.rmtree(retired, ignore_errors=True)
    if target.exists():
        target.rename(retired)
    staged.rename(target)
    sync_directory(target.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _remove_former(target: Path, cpu: Cpu) -> None:
    """Delete what former wheels unpacked for this CPU, all but the last: a server of it may still run, and an edgellm
    of that version beside this one would unpack it again.
    """
    former = [path for path in target.parent.glob(f"*-{cpu.key}{SUFFIX}") if path != target]
    for path in sorted(former, key=lambda path: path.stat().st_mtime)[:-1]:
        shutil.rmtree(path, ignore_errors=True)
        path.with_name(f".{path.name}.lock").unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Write every file to the disk: a power cut must not leave an engine of empty files under its final name."""
    for path in directory.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                sync_file(file)
