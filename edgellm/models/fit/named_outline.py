"""The outline of whatever a name stands for: a file, a checkpoint, an installed model, a recipe, a repository.

outline_of_name("smollm2", store, recipes, lambda: hub, report=bar).n_params
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgellm.errors import ModelNotFound, NetworkError
from edgellm.models.fit.outline import Outline
from edgellm.models.fit.planned_outline import read_checkpoint_outline
from edgellm.models.fit.remote_outline import outline_of_plan, outline_of_recipe
from edgellm.models.fit.verdict import read_outline
from edgellm.models.local.store import InstalledModel, Store
from edgellm.models.resolve import resolve
from edgellm.progress import Report

if TYPE_CHECKING:
    from edgellm.models.hub.client import Hub


def outline_of_name(
    name: str, store: Store, recipes: Sequence[Path], hub: Callable[[], Hub], *, report: Report
) -> Outline:
    """Read a header, here or on the Hub; where the Hub cannot be reached, the shape that a recipe gives will do.

    Args:
        hub: called only when the network is needed.

    Raises:
        ModelNotFound: there is no such model, or nothing is known of its memory before it is here.
        NetworkError: the Hub does not answer, and the recipe gives no shape.
    """
    if (Path(name) / "config.json").is_file():
        return read_checkpoint_outline(Path(name))
    found = resolve(name, store, recipes)
    if isinstance(found, Path):
        return read_outline(found, name)
    if isinstance(found, InstalledModel):
        return read_outline(found.path, found.name)
    known = outline_of_recipe(found)
    if known is not None and not (hub().offline or hub().is_reachable()):
        return known
    from edgellm.models.pull import make_plan

    try:
        outline = outline_of_plan(make_plan(found, hub(), report=report), hub(), report=report)
    except NetworkError:
        if known is None:
            raise
        outline = known
    if outline is None:
        what = f"nothing is known of the memory that {name} needs before it is here"
        raise ModelNotFound(what, why="its recipe gives no shape", hint=f"edgellm pull {name}")
    return outline
