"""Gives a model file on this machine a name; the file stays where it is.

model = register(Path("/data/qwen-q4_k_m.gguf"), store, report=bar)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from edgellm.errors import UsageError
from edgellm.files import locked, sha256_of
from edgellm.formats.gguf_split import part_paths
from edgellm.models.fit.verdict import read_outline
from edgellm.models.local.store import InstalledModel, Store, StoredFile
from edgellm.progress import Progress, Report, silent

SOURCE = "import"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")


def register(
    path: Path, store: Store, *, name: str | None = None, base: str | None = None, report: Report = silent
) -> InstalledModel:
    """Check the file, hash it for `verify`, and add it to the store; `base` is the model that it was made from.

    Raises:
        ModelNotFound, CorruptFile, UnsupportedModel: it is no GGUF file that the engine could run.
        UsageError: the name is taken by another file, or cannot be one.
    """
    path = path.expanduser().absolute()
    read_outline(path)
    chosen = name if name is not None else default_name(path)
    if not _NAME.fullmatch(chosen):
        why = "a name has letters, digits and . _ + -, and begins with a letter or digit"
        raise UsageError(f"{chosen[:60]!r} cannot be a model's name", why=why, hint="another one with --name")
    paths = part_paths(path)
    with locked(store.lock_path(chosen), lambda: report(Progress(f"waiting for another process with {chosen}"))):
        taken = store.find(chosen)
        if taken is not None and taken.path != path:
            raise UsageError(
                f"there is a model {chosen} already",
                why=f"it is {taken.path}",
                hint=f"another name with --name, or edgellm rm {chosen}",
                name=chosen,
            )
        total, done = sum(part.stat().st_size for part in paths), 0
        files = []
        for part in paths:
            size = part.stat().st_size
            files.append(StoredFile(part, size, sha256_of(part, _hashing(report, done, total))))
            done += size
        model = InstalledModel.of(chosen, files, SOURCE, base=base)
        store.add(model)
    return model


def default_name(path: Path) -> str:
    """The file's own name in lower case, without its ending and part number, with dashes for what no name may have."""
    stem = re.sub(r"-\d{5}-of-\d{5}$", "", path.name.removesuffix(".gguf"))
    return re.sub(r"[^a-z0-9._+-]+", "-", stem.lower()).strip("-._+")[:100] or "model"


def _hashing(report: Report, before: int, total: int) -> Callable[[int], None]:
    return lambda done: report(Progress("hashing", before + done, total, "B"))
