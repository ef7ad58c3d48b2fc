"""Measures the energy that the processors use, with the RAPL counters (Linux, Intel and AMD) where readable.

    meter = EnergyMeter()
    ...
    meter.joules()  ->  41.7, or None where the counters cannot be read

The counters cover whole packages, including everything else that runs on them. They wrap around every few minutes or
hours, so call `tick` in between. On most systems only root can read them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
# A package. The zones of its cores and memory (intel-rapl:0:0) are already included in it.
ZONE = re.compile(r"intel-rapl:\d+")
NAME = re.compile(r"package-\d+")
TICK_SECONDS = 1.0


class EnergyMeter:
    """Counts joules from its creation on; if a counter becomes unreadable, the total stays unknown."""

    def __init__(self, root: Path = POWERCAP, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._used = 0
        self._last: dict[Path, int] | None = {}
        for zone in _packages(root):
            counter = _number(zone / "energy_uj")
            if counter is None:
                self._last = None
                break
            self._last[zone] = counter
        self._looked = clock()

    def joules(self) -> float | None:
        """Return the joules used by all packages since creation; None when unknown."""
        self._look()
        return self._used / 1e6 if self._last else None

    def tick(self) -> None:
        """Read the counters, unless they were read a moment ago."""
        if self._last and self._clock() - self._looked >= TICK_SECONDS:
            self._look()

    def _look(self) -> None:
        self._looked = self._clock()
        for zone, before in (self._last or {}).items():
            now, most = _number(zone / "energy_uj"), 0
            if now is not None and now < before:
                most = _number(zone / "max_energy_range_uj") or 0
            if now is None or (now < before and most < before):
                self._last = None
                return
            self._used += now - before if now >= before else most - before + now
            if self._last:
                self._last[zone] = now


def _packages(root: Path) -> list[Path]:
    """Return the directories of the zones of whole packages."""
    try:
        zones = [zone for zone in root.iterdir() if ZONE.fullmatch(zone.name)]
        return [zone for zone in zones if NAME.match((zone / "name").read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []


def _number(path: Path) -> int | None:
    """Return the number in a counter's file, or None when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None
