"""`edgellm` alone: where things stand in a few lines, and what to type next."""

from __future__ import annotations

from edgellm.engine.builds.installed import find
from edgellm.machine import memory
from edgellm.machine.cpu import detect, usable_cores
from edgellm.models.local.description import chat_models
from edgellm.ui.console import note, print_fields
from edgellm.units import size
from edgellm.version import __version__
from edgellm.workspace import workspace


def overview() -> None:
    """Show what is here and what to type next; never fails."""
    here = workspace()
    engine = find(here.settings, here.stack)
    names = [model.name for model in here.store.list()]
    cpu = detect()
    print_fields(
        [
            ("edgellm", __version__),
            ("cpu", f"{cpu.model}, {usable_cores()} cores to use"),
            ("memory", f"{size(memory.available())} available of {size(memory.total())}"),
            ("engine", f"built {engine.record.built}" if engine else "not built"),
            ("models", ", ".join(names) or "none"),
        ]
    )
    chatting = chat_models(here.store)
    first = "edgellm chat " + chatting[0] if chatting else "edgellm pull smollm2"
    steps = [first if engine else "edgellm engine build", "edgellm doctor", "edgellm --help"]
    note("next: " + "\n      ".join(steps))
