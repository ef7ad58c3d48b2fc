"""The workspace of a verb that computes: an engine that is missing is built when it is needed, with a bar.

    here = building_workspace(offline=offline, quiet=output.silent)
    here.engine()                # unpacked or built first if need be: seconds or minutes, once
    here.engine_with_tools       # the same with llama-server beside it

Without a terminal it is built as well: a script that has to fail first helps nobody, the sources are pinned by their
sha256, and an interrupted build goes on where it stopped. EDGELLM_NO_BUILD=1 forbids it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgellm.settings import is_true
from edgellm.ui.console import note
from edgellm.ui.progress import progress
from edgellm.workspace import Workspace, require_tools, workspace

if TYPE_CHECKING:
    from edgellm.engine.builds.installed import InstalledEngine

ENGINE, TOOLS = "the engine is not built", "the engine's tools are not built"


def building_workspace(*, offline: bool, quiet: bool) -> Workspace:
    """The user's workspace, which builds what is missing; nothing is said of it with `quiet`."""

    def provide(here: Workspace, tools: bool) -> InstalledEngine:
        from edgellm.engine.builds.installed import obtain, require

        with progress(quiet=quiet) as report:
            found = obtain(here.settings, here.stack, report)
        if found is not None and not tools:
            return found
        from edgellm.engine.builds.builder import build, has_tools

        if found is not None and has_tools(found):
            return found
        if is_true(os.environ.get("EDGELLM_NO_BUILD")):
            return require_tools(here) if tools else require(here.settings, here.stack)
        if not quiet:
            what = TOOLS if found else ENGINE
            note(f"{what} for this CPU yet: building, once, in a few minutes; Ctrl-C stops, the next try goes on")
        with progress(quiet=quiet) as report:
            return build(here.settings, here.stack, tools=tools, report=report)

    return workspace(offline=offline, provide=provide)
