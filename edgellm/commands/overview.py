"""`edgellm` alone: where things stand in a few lines, and what to type next."""

from __future__ import annotations

from edgellm.engine.builds.status import EngineStatus
from edgellm.engine.builds.status import status as engine_status
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
    engine = engine_status(here.settings, here.stack)
    names = [model.name for model in here.store.list()]
    cpu = detect()
    print_fields(
        [
            ("edgellm", __version__),
            ("cpu", f"{cpu.model}, {usable_cores()} cores to use"),
            ("memory", f"{size(memory.available())} available of {size(memory.total())}"),
            ("engine", _engine(engine)),
            ("models", ", ".join(names) or "none"),
        ]
    )
    chatting = chat_models(here.store)
    first = "edgellm chat " + chatting[0] if chatting else "edgellm pull smollm2"
    steps = [first if engine.built or engine.packaged else "edgellm engine build", "edgellm doctor", "edgellm --help"]
    note("next: " + "\n      ".join(steps))


def _engine(found: EngineStatus) -> str:
    if found.engine is not None:
        variant = found.engine.record.variant
        return f"out of the wheel: {variant}" if variant else f"built {found.engine.record.built}"
    return "in the wheel, unpacked when it is first needed" if found.packaged else "not built"
