"""Remembers what passes over several tokens cost, for each model file and number of threads.

    records = DraftRecords(settings.draft_costs, TunePlace.here(stamp))
    costs = records.costs(path, n_threads=2)
    records.keep(path, 2, costs)

One small file holds all of it. What is lost or damaged is learnt again while answers are computed.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from edgellm.files import locked, write_atomically
from edgellm.machine.cpu import detect
from edgellm.models.local.tune_records import TunePlace
from edgellm.run.draft_costs import DraftCosts

# Learning from fewer passes changes too little to be kept.
LEAST_OBSERVED = 8
MOST_BYTES = 1 << 20


class DraftRecords:
    """The costs that were learnt or measured; if they cannot be written, each process learns them again."""

    def __init__(self, path: Path, place: TunePlace) -> None:
        """`place` is where they hold: the engine, the machine and its kernels."""
        self._path = path
        self._place = place

    def costs(self, model: Path, n_threads: int) -> DraftCosts:
        """What passes of a model cost with so many threads; a careful guess by the kernels if that is unknown."""
        entry = self._load().get(str(model.absolute()))
        try:
            known = entry["costs"] if isinstance(entry, dict) and entry["key"] == self._key(model) else {}
            return DraftCosts(known[str(n_threads)])
        except (KeyError, TypeError, ValueError, OSError):
            best = "avx512-vnni" if "avx512_vnni" in detect().features else ""
            return DraftCosts.careful(self._place.kernels or best)

    def keep(self, model: Path, n_threads: int, costs: DraftCosts) -> None:
        """Remember what passes cost now."""
        with contextlib.suppress(OSError), locked(self._path.with_name(f".{self._path.name}.lock")):
            key, name = self._key(model), str(model.absolute())
            entries = {path: entry for path, entry in self._load().items() if Path(path).exists()}
            before = entries.get(name)
            same = isinstance(before, dict) and before.get("key") == key and isinstance(before.get("costs"), dict)
            known = before["costs"] if same and isinstance(before, dict) else {}
            entries[name] = {"key": key, "costs": {**known, str(n_threads): costs.table}}
            write_atomically(self._path, json.dumps(entries, indent=1).encode())

    def keep_learnt(self, model: Path, n_threads: int, costs: DraftCosts) -> None:
        """The same, if enough was learnt to be worth it."""
        if costs.n_observed >= LEAST_OBSERVED:
            costs.n_observed = 0
            self.keep(model, n_threads, costs)

    def _key(self, model: Path) -> str:
        status, place = model.stat(), self._place
        return f"{status.st_size} {status.st_mtime_ns} {place.stamp} {place.kernels} {place.machine}"

    def _load(self) -> dict[str, object]:
        try:
            with self._path.open("rb") as file:
                data = json.loads(file.read(MOST_BYTES))
        except (OSError, ValueError, RecursionError):
            return {}
        return data if isinstance(data, dict) else {}
