"""Energy that the processors use, from the counters of RAPL (Linux, Intel and AMD), where they may be read.

    meter = EnergyMeter()
    ...
    meter.joules()  ->  41.7, or None where nobody tells

The counters are those of whole packages, with everything else that runs there. Each begins anew some minutes or hours
after it did before: call `tick` meanwhile. Most systems let only root read them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
# A package; its cores and memory have zones of their own below it (intel-rapl:0:0), which it counts already.
ZONE = re.compile(r"intel-rapl:\d+")
NAME = re.compile(r"package-\d+")
TICK_SECONDS = 1.0


class EnergyMeter:
    """Counts from when it is made; once a counter is lost, nothing is known any more."""

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
        """What all packages used since then; None where it cannot be known."""
        self._look()
        return self._used / 1e6 if self._last else None

    def tick(self) -> None:
        """Look at the counters if that was not done just now."""
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
    """The zones of whole packages."""
    try:
        zones = [zone for zone in root.iterdir() if ZONE.fullmatch(zone.name)]
        return [zone for zone in zones if NAME.match((zone / "name").read_text())]
    except (OSError, ValueError):
        return []


def _number(path: Path) -> int | None:
    """What a counter's file says, or None."""
    try:
        text = path.read_text().strip()
    except (OSError, ValueError):
        return None
    return int(text) if re.fullmatch(r"[0-9]{1,19}", text) else None
