"""Collects what `edgellm engine status` shows: the source, the patches, and the engines built on this machine.

status(settings, PatchStack.load(...)).engine  ->  InstalledEngine or None
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.engine.builds.installed import InstalledEngine, find, find_all
from edgellm.engine.builds.patches import Patch, PatchStack, UpstreamPin
from edgellm.engine.builds.prebuilt import packaged
from edgellm.machine.cpu import Cpu, detect
from edgellm.settings import Settings


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """`engine` fits this edgellm and this CPU; `others` are the directories of engines that do not.

    `packaged` says whether this edgellm came with an engine, which is unpacked when it is first needed.
    """

    upstream: UpstreamPin
    stamp: str
    patches: tuple[Patch, ...]
    cpu: Cpu
    engine: InstalledEngine | None
    others: tuple[str, ...]
    packaged: bool

    @property
    def built(self) -> bool:
        """Whether there is an engine that can run."""
        return self.engine is not None


def status(settings: Settings, stack: PatchStack) -> EngineStatus:
    """Return the state of the engine; reads the disk, but loads nothing."""
    cpu = detect()
    engine = find(settings, stack, cpu)
    others = tuple(other.directory.name for other in find_all(settings) if engine is None or other != engine)
    is_packaged = packaged(stack, cpu.machine) is not None
    return EngineStatus(stack.upstream, stack.stamp, stack.patches, cpu, engine, others, is_packaged)
