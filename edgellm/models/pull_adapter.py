"""Bring an adapter from the Hub onto this machine, for a model that is here: plan, fetch, check or convert, register.

    plan = plan_adapter("user/dates-lora", hub)            # a GGUF file, or PEFT's two files
    install_adapter(plan, base, hub, shelf, make)          # `shelf` is a store of its own: an adapter is no model

PEFT's files are converted for the model at once; the engine needs to know how many heads it has.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgellm.engine.adapters import require_adapter
from edgellm.errors import DoesNotFit, UnsupportedModel, UsageError
from edgellm.files import locked, require_space, sha256_of, sync_directory
from edgellm.machine import memory
from edgellm.models.fit.verdict import read_header
from edgellm.models.hub.client import Hub
from edgellm.models.hub.download import download_all, missing_bytes
from edgellm.models.hub.files import RemoteFile, choose_gguf
from edgellm.models.local.store import InstalledModel, Store, StoredFile
from edgellm.models.recipe import Choice
from edgellm.models.resolve import parse_reference
from edgellm.progress import Progress, Report, silent
from edgellm.units import size

PEFT = ("adapter_config.json", "adapter_model.safetensors")
_PICKLE = "adapter_model.bin"
# Float32 values, and the same once more while they are written.
_COPIES = 4


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """What to fetch: one GGUF file, or PEFT's two if `is_peft`. `size` and `missing` are bytes."""

    choice: Choice
    files: tuple[RemoteFile, ...]
    is_peft: bool
    size: int
    missing: int
    revision: str
    licence: str | None

    @property
    def name(self) -> str:
        """The adapter's name."""
        return self.choice.name

    @property
    def source(self) -> str:
        """Where it comes from, with the commit."""
        return f"hf://{self.files[0].repo}@{self.files[0].commit}"


# From PEFT's directory or a GGUF file, and a place: the adapter for the base, which may be the file that was given.
Make = Callable[[Path, Path], Path]


def plan_adapter(reference: str, hub: Hub, *, revision: str | None = None, report: Report = silent) -> AdapterPlan:
    """Ask the Hub which files an adapter consists of.

    Raises:
        UsageError: the reference is none to a repository.
        ModelNotFound, UnsupportedModel: there is no such repository, revision or file, or no adapter in it.
        AccessDenied, NetworkError.
    """
    choice = parse_reference(reference)
    if choice is None or choice.source.kind != "hub":
        why = "adapters are pulled from the Hub; those on this machine need no pull"
        raise UsageError(f"{reference!r:.80} is no repository", why=why, hint="user/repo, or hf://user/repo/file.gguf")
    repo, wanted = choice.source.repo, revision or choice.source.revision
    found = hub.repository(repo, wanted, report=report)
    is_peft = choice.file is None and choice.quant is None and set(PEFT) <= found.files.keys()
    if is_peft:
        names: tuple[str, ...] = PEFT
    else:
        file = choice.file.name if choice.file else None
        chosen = choose_gguf(found.files, choice.quant, repo=repo, file=file)
        if chosen is None or len(chosen.files) != 1:
            pickled = "its weights are a pickle, which could run code" if _PICKLE in found.files else ""
            why = pickled or f"there is neither {' with '.join(PEFT)}, nor a GGUF file in it"
            raise UnsupportedModel(f"{repo} holds no adapter for edgellm", why=why, repo=repo)
        names = chosen.files
    files = tuple(hub.file(repo, name, found.commit, report=report) for name in names)
    missing = missing_bytes(hub, files)
    if missing and not is_peft:  # before a model of many gigabytes is downloaded as an adapter
        report(Progress(f"reading the header of {choice.name}"))
        name = files[0].name
        require_adapter(read_header(hub.open_ranges(repo, name, found.commit, report=report), name), name)
    return AdapterPlan(choice, files, is_peft, sum(file.size for file in files), missing, wanted, found.licence)


def install_adapter(
    plan: AdapterPlan, base: str, hub: Hub, shelf: Store, make: Make, *, force: bool = False, report: Report = silent
) -> InstalledModel:
    """The adapter of a plan, fetched, made fit for the model `base`, and registered; at once if it is here.

    Raises:
        DoesNotFit: it is too large to be converted here.
        NetworkError, ChecksumMismatch, DiskFull, and what `make` raises: nothing is left half-done.
    """
    with locked(shelf.lock_path(plan.name), lambda: report(Progress(f"waiting for another pull of {plan.name}"))):
        known = shelf.find(plan.name)
        if known is not None and not force and known.is_whole and (known.source, known.base) == (plan.source, base):
            return known
        available = memory.available()
        if plan.is_peft and plan.size * _COPIES > available:
            what = f"converting {plan.name} needs {size(plan.size * _COPIES)} of memory, {size(available)} is available"
            raise DoesNotFit(what, needed=plan.size * _COPIES, available=available)
        paths = download_all(hub, plan.files, name=plan.name, revision=plan.revision, force=force, report=report)
        work = shelf.lock_path(plan.name).with_suffix(".work")
        shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
        try:
            if plan.is_peft:
                require_space(shelf.directory, 2 * plan.size, purpose=f"converting {plan.name}")
                work.mkdir(parents=True)
            path = make(paths[0].parent if plan.is_peft else paths[0], work / "adapter.gguf")
            if path.parent == work:
                path = _moved(
                    path, shelf.file_path(plan.name, f"{plan.name.replace('/', '--').replace(':', '-')}.gguf")
                )
        finally:
            shutil.rmtree(work, ignore_errors=True)
        file = StoredFile(path, path.stat().st_size, sha256_of(path))
        adapter = InstalledModel.of(plan.name, [file], plan.source, base=base)
        shelf.add(adapter)
        return adapter


def _moved(made: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    made.replace(target)
    sync_directory(target.parent)
    return target
