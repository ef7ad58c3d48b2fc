"""Models: recipes, the files on this machine, and the memory they need. `edgellm.models()` lists the installed ones."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgellm.models.local.inventory import ListedModel


class _CallableModule(ModuleType):
    """Python sets `edgellm.models` to this package once a part of it is imported, so the package itself is callable."""

    def __call__(self) -> list[ListedModel]:
        """The installed models, as the package `edgellm` exports it: this layer knows nothing of that one."""
        found: list[ListedModel] = sys.modules["edgellm"].__getattr__("models")()
        return found


sys.modules[__name__].__class__ = _CallableModule
