"""A checkpoint by the name that was typed, fetched from the Hub if it is not here.

find_checkpoint(here, "deepgrove/Bonsai", report)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgellm.models import recipe
from edgellm.models.pull import fetch_checkpoint, make_plan
from edgellm.models.resolve import parse_reference
from edgellm.progress import Report
from edgellm.workspace import Workspace


def find_checkpoint(here: Workspace, source: str, report: Report) -> Path:
    """The directory of that path, or the checkpoint of a repository on the Hub, fetched into its cache."""
    directory = Path(source)
    reference = None if directory.exists() or source.startswith((".", "/", "~")) else parse_reference(source)
    if reference is None:
        return directory
    plan = make_plan(replace(reference, convert=recipe.ConvertOptions()), here.hub, report=report)
    return fetch_checkpoint(plan, here.hub, report=report)
