"""Finds CMake on the system or fetches its wheel, and runs it with its progress reported.

cmake = locate(settings, report)
run([cmake, "--build", "..."], log, "building", report)
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from edgellm.errors import BuildFailed, DiskFull, NetworkError
from edgellm.progress import Progress, Report
from edgellm.settings import Settings

MINIMUM = (3, 18)
# A disk with less free space than this counts as full: programs that hit a full disk seldom say so.
FULL_DISK = 1_000_000
# "[12/345] Building ..." from Ninja, "[ 12%] Building ..." from make.
STEP = re.compile(rb"^\[\s*(?:(\d+)/(\d+)|(\d+)%)\]")


def locate(settings: Settings, report: Report) -> str:
    """Return the path of a recent enough cmake, from PATH or from the PyPI package `cmake` in the cache."""
    system = shutil.which("cmake")
    if system and version(system) >= MINIMUM:
        return system
    directory = settings.cache / "tools" / "cmake"
    program = directory / "cmake" / "data" / "bin" / "cmake"
    if not program.exists():
        if settings.offline:
            raise NetworkError("cmake is not installed, and edgellm is offline", hint="install the package cmake")
        report(Progress("fetching cmake"))
        shutil.rmtree(directory, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--disable-pip-version-check", "--target", str(directory), "cmake>=3.28"]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
        if result.returncode != 0 or not program.exists():
            why = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise NetworkError(
                "cmake is not installed and cannot be fetched", why=why, hint="install the package cmake"
            )
    return str(program)


def version(program: str) -> tuple[int, int]:
    """Return the major and minor version of a cmake, or (0, 0) when it does not run."""
    try:
        result = subprocess.run(
            [program, "--version"], capture_output=True, encoding="utf-8", errors="replace", check=False
        )
    except OSError:
        return (0, 0)
    found = re.search(r"version (\d+)\.(\d+)", result.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def run(
    command: list[str], log: Path, stage: str, report: Report, *, path: str = "", keep_open: tuple[int, ...] = ()
) -> None:
    """Run a cmake command, write its output to `log`, and report its steps.

    `path` is the PATH on which it finds compilers, by default that of this process.
    The child processes inherit the descriptors in `keep_open`, so the build's lock is held until the last one ends.

    Raises:
        BuildFailed: the command failed; carries the first error in the log and the log's path.
        DiskFull: the compiler ran out of disk space.
    """
    report(Progress(stage))
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        start = output.tell()
        environment = {**os.environ, "LC_ALL": "C", "NINJA_STATUS": "[%f/%t] "} | ({"PATH": path} if path else {})
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=keep_open,
            env=environment,
        ) as process:
            try:
                for line in process.stdout or ():
                    output.write(line)
                    if found := STEP.match(line):
                        done, total = (int(found[1]), int(found[2])) if found[1] else (int(found[3]), 100)
                        report(Progress(stage, done, total, "steps" if found[1] else "%"))
            except BaseException:
                process.terminate()
                raise
    if process.returncode != 0:
        _explain(log, start, stage)


def _explain(log: Path, start: int, stage: str) -> None:
    text = log.read_bytes()[start:].decode(errors="replace")
    if os.strerror(errno.ENOSPC) in text or shutil.disk_usage(log.parent).free < FULL_DISK:
        raise DiskFull(
            f"the disk is full while {stage}", hint="free some space; the next build resumes here", log=str(log)
        )
    lines = text.splitlines()
    errors = [line for line in lines if re.search(r"\berror\b|\bfatal\b|CMake Error|Killed", line, re.IGNORECASE)]
    why = (errors or lines or ["no output"])[0].strip()
    raise BuildFailed(
        f"{stage} failed", why=f"{why} (full log: {log})", hint="edgellm engine build --clean", log=str(log)
    )
