"""Names of models, for the completion of a shell.

model_names("sm")  ->  ["smollm2", "smollm2-360m"]
"""

from __future__ import annotations

from edgellm.workspace import workspace


def installed_names(incomplete: str) -> list[str]:
    """The installed models whose names begin with `incomplete`."""
    return [name for name in workspace().store.names() if name.startswith(incomplete)]


def model_names(incomplete: str) -> list[str]:
    """The same, and the recipes that can be pulled."""
    from edgellm.models.recipe import recipe_names

    known = {*workspace().store.names(), *recipe_names(workspace().recipe_directories)}
    return sorted(name for name in known if name.startswith(incomplete))
