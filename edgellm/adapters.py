"""Adapters by name, for the verbs and for Python: those that were pulled, and files.

named_adapter(here, "user/dates-lora:0.5").path
pull_adapter(here, "smollm2", plan_adapter(here, "user/dates-lora"))
installed_adapters(here)[0].base
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.engine.adapters import SUFFIXES, Adapter, check_adapter, is_adapter, parse_adapter
from edgellm.errors import EdgellmError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.models.local.store import InstalledModel, Store
from edgellm.progress import Report, silent
from edgellm.workspace import Workspace

if TYPE_CHECKING:
    from edgellm.models.pull_adapter import AdapterPlan


@dataclass(frozen=True, slots=True)
class AdapterDescription:
    """One adapter; `size` is bytes, `rank` that of its largest product, `tensors` the weights that it changes.

    `base` is the model that it was pulled for; `sha256`, `source`, `installed` and `base` are null for a file that is
    not installed. `problem` says why a file cannot be used, and is null otherwise.
    """

    name: str
    path: Path
    size: int
    base: str | None
    architecture: str
    rank: int
    alpha: float
    tensors: int
    sha256: str | None
    source: str | None
    installed: str | None
    problem: str | None


def shelf(here: Workspace) -> Store:
    """The adapters that were pulled."""
    return Store(here.settings.adapters)


def stored(here: Workspace, name: str) -> tuple[Store, InstalledModel]:
    """An installed model, else an adapter of that name, and the store that it is in.

    Raises:
        ModelNotFound: there is neither.
    """
    adapters = shelf(here)
    store = adapters if name in adapters.names() and name not in here.store.names() else here.store
    return store, store.get(name)


def named_adapter(here: Workspace, text: str) -> Adapter:
    """Read `FILE[:SCALE]` or `NAME[:SCALE]`; see `parse_adapter` for the errors."""
    pulled = shelf(here)

    def find(name: str) -> Path | None:
        found = pulled.find(name)
        return found.path if found else None

    return parse_adapter(text, find)


def installed_adapters(here: Workspace) -> list[AdapterDescription]:
    """All adapters that were pulled, by name."""
    return [describe_adapter(each.name, each) for each in shelf(here).list()]


def find_adapter(here: Workspace, name: str) -> AdapterDescription | None:
    """An adapter that was pulled, or a GGUF file that is one; None for anything else.

    Raises:
        CorruptFile, UnsupportedModel: the file cannot be read.
    """
    if (known := shelf(here).find(name)) is not None:
        return describe_adapter(name, known)
    path = Path(name).expanduser()
    if path.suffix != ".gguf" or not path.is_file() or not is_adapter(path):
        return None
    return describe_adapter(name, path)


def describe_adapter(name: str, found: InstalledModel | Path) -> AdapterDescription:
    """What the header of an adapter says; what is wrong with it is in `problem`."""
    installed = found if isinstance(found, InstalledModel) else None
    path = found.path if isinstance(found, InstalledModel) else found
    architecture, rank, alpha, tensors, problem = "", 0, 0.0, 0, None
    try:
        with GGUFFile.open(path) as gguf:
            architecture, alpha = gguf.architecture, gguf.get_float("adapter.lora.alpha", 0.0)
            ranks = list(_ranks(gguf))
            rank, tensors = max(ranks, default=0), len(ranks)
    except EdgellmError as error:
        problem = f"{error.what}: {error.why}" if error.why else error.what
    if installed is not None and not installed.is_whole:
        problem = problem or "its size is not what was installed"
    return AdapterDescription(
        name, path, path.stat().st_size, installed.base if installed else None, architecture, rank, alpha, tensors,
        installed.sha256 if installed else None, installed.source if installed else None,
        installed.installed if installed else None, problem,
    )  # fmt: skip


def plan_adapter(
    here: Workspace, reference: str, *, revision: str | None = None, report: Report = silent
) -> AdapterPlan:
    """What a pull would fetch; see `models.pull_adapter` for the errors."""
    from edgellm.models.pull_adapter import plan_adapter

    return plan_adapter(reference, here.hub, revision=revision, report=report)


def pull_adapter(
    here: Workspace, model: str, plan: AdapterPlan, *, force: bool = False, report: Report = silent
) -> InstalledModel:
    """Fetch an adapter for a model, which is pulled first if it is not here; PEFT's files are converted.

    Raises:
        ModelNotFound and the other errors of `Workspace.pull`.
        UsageError: the adapter belongs to another model.
        CorruptFile, UnsupportedModel: it is damaged, or asks for more than a low-rank product.
    """
    from edgellm.formats.gguf_split import part_paths
    from edgellm.models.pull_adapter import install_adapter
    from edgellm.weights.convert.adapter import convert_adapter

    local = here.local(model)
    name, file = (local.name, local.path) if local else _pulled(here, model, report)
    first = part_paths(file)[0]

    def make(source: Path, target: Path) -> Path:
        made = source
        if source.is_dir():
            convert_adapter(source, first, target)
            made = target
        check_adapter(made, first)
        return made

    return install_adapter(plan, name, here.hub, shelf(here), make, force=force, report=report)


def _pulled(here: Workspace, model: str, report: Report) -> tuple[str, Path]:
    installed = here.pull(model, report=report)
    return installed.name, installed.path


def _ranks(gguf: GGUFFile) -> Iterator[int]:
    """The rank of each product: the second matrix [rows, rank] has it as the length of its rows."""
    for name, info in gguf.tensors.items():
        if name.endswith(SUFFIXES[1]):
            yield info.shape[0]
