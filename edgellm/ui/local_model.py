"""A model by the name that was typed, pulled with a bar if it is not here.

find_model(here, "smollm2", quiet=False).path
"""

from __future__ import annotations

from edgellm.ui.progress import progress
from edgellm.workspace import LocalModel, Workspace


def find_model(here: Workspace, name: str, *, quiet: bool) -> LocalModel:
    """The file of a model, and its recipe if it has one; see `Workspace.model` for the errors."""
    with progress(quiet=quiet) as report:
        return here.model(name, report=report)
