"""What `edgellm engine status` tells: the source, the patches, and what is built from them on this machine.

status(settings, PatchStack.load(...)).engine  ->  InstalledEngine or None
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.engine.installed import InstalledEngine, every, find
from edgellm.engine.patches import Patch, PatchStack, Upstream
from edgellm.machine.cpu import Cpu, detect
from edgellm.settings import Settings


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """`engine` is the one that fits this edgellm and this CPU; `others` are directories of engines that do not."""

    upstream: Upstream
    stamp: str
    patches: tuple[Patch, ...]
    cpu: Cpu
    engine: InstalledEngine | None
    others: tuple[str, ...]

    @property
    def built(self) -> bool:
        """Whether there is an engine to run."""
        return self.engine is not None


def status(settings: Settings, stack: PatchStack) -> EngineStatus:
    """Look at what is installed."""
    cpu = detect()
    engine = find(settings, stack, cpu)
    others = tuple(other.directory.name for other in every(settings) if engine is None or other != engine)
    return EngineStatus(stack.upstream, stack.stamp, stack.patches, cpu, engine, others)
