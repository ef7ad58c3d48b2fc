"""Remembers what `edgellm tune` found, one small JSON file for each model file.

    save(settings.tunings, record)
    known_tuning(settings.tunings, path, stamp)

A record holds for one model file, one engine and one machine. Whatever else lies in its place is no record.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from edgellm.engine.kernels import VARIABLE
from edgellm.files import write_atomically
from edgellm.machine.cpu import core_counts, detect
from edgellm.models.fit.tuned_plan import Tuning

Goal = Literal["decode", "prefill"]
VERSION = 1
# Far more than a record takes, and far more threads and tokens at once than make sense.
MOST_BYTES = 1 << 18
MOST_THREADS, MOST_BATCH = 1024, 1 << 16
# From here on, something else was running: cores in use, or their share of ours, and how far rounds differ.
QUIET_CORES, QUIET_SHARE, QUIET_NOISE = 0.5, 0.1, 0.15


@dataclass(frozen=True, slots=True)
class TunePlace:
    """Where something was measured: the engine's stamp, the machine with the cores that we may use, and the kernels
    that were forced, if any."""

    stamp: str
    machine: str
    kernels: str = ""

    @classmethod
    def here(cls, stamp: str) -> TunePlace:
        """This machine, now."""
        cores = core_counts()
        counted = f"{cores.fast} fast, {cores.physical} physical, {cores.logical} logical cores"
        return cls(stamp, f"{detect().model}, {counted}", os.environ.get(VARIABLE, ""))


@dataclass(frozen=True, slots=True)
class TuneTrial:
    """One thing that was tried: tokens per second for a goal, and how often it was as fast as the best until then.

    `ratio` is the median over the rounds. `rounds` is 0 where a first look was enough. `depth` are the tokens in the
    context before it. `chosen` says whether it was taken, which a cache type, for information only, never is.
    """

    goal: Goal
    tried: str
    rate: float
    ratio: float
    rounds: int
    depth: int
    chosen: bool


@dataclass(frozen=True, slots=True)
class TuneRecord:
    """What was found for a model; `size` and `modified` (nanoseconds) tell its file from another one at its path.

    `decode_gain` and `prefill_gain` are how often as fast as the default the whole choice is. `noise` is how far the
    rounds of one and the same thing differed: largest minus smallest over the median. `others` is how many cores other
    programs used before it began. `draft_costs` is what passes over 2, 4, 8 and 16 tokens cost, in passes over one, at
    an empty context and at a full one.
    """

    model: Path
    size: int
    modified: int
    place: TunePlace
    date: str
    tuning: Tuning
    default: Tuning
    decode_gain: float
    prefill_gain: float
    noise: float
    others: float
    trials: tuple[TuneTrial, ...]
    draft_costs: tuple[tuple[float, ...], ...] = ()

    @property
    def doubt(self) -> str:
        """Why to measure again when the machine has nothing else to do; empty if it was quiet."""
        if self.others > max(QUIET_CORES, QUIET_SHARE * self.default.n_threads):
            return f"other programs used {self.others:.1f} cores"
        return f"the rounds differ by {100 * self.noise:.0f} %" if self.noise > QUIET_NOISE else ""

    def obstacle(self, place: TunePlace) -> str:
        """Why the record does not hold for its model here and now; empty if it does."""
        try:
            status = self.model.stat()
        except OSError:
            return "the model's file is gone"
        if (status.st_size, status.st_mtime_ns) != (self.size, self.modified):
            return "the model's file has changed since"
        if place.stamp != self.place.stamp:
            return "it was measured with another engine"
        if place.kernels != self.place.kernels:
            return "it was measured with other kernels"
        return "" if place == self.place else f"it was measured on another machine: {self.place.machine}"


def record_path(directory: Path, model: Path) -> Path:
    """Where the record of a model file lies."""
    digest = hashlib.sha256(os.fsencode(model.absolute())).hexdigest()[:12]
    return directory / f"{model.stem[:40]}-{digest}.json"


def save(directory: Path, record: TuneRecord) -> Path:
    """Keep a record in place of an older one of the same model; a crash leaves one of them whole."""
    path = record_path(directory, record.model)
    write_atomically(path, json.dumps({"version": VERSION, **asdict(record)}, default=str, indent=1).encode())
    return path


def read(path: Path) -> TuneRecord:
    """Read a record.

    Raises:
        FileNotFoundError: there is none.
        ValueError: not all of it makes sense.
    """
    with path.open("rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError("too large")
    try:
        data = json.loads(text)
        if data["version"] != VERSION:
            raise ValueError("another version's")
        return TuneRecord(
            model=Path(_text(data["model"])),
            size=_whole(data["size"]),
            modified=_whole(data["modified"]),
            place=TunePlace(*(_text(data["place"][name]) for name in ("stamp", "machine", "kernels"))),
            date=_text(data["date"]),
            tuning=_tuning(data["tuning"]),
            default=_tuning(data["default"]),
            decode_gain=_number(data["decode_gain"]),
            prefill_gain=_number(data["prefill_gain"]),
            noise=_number(data["noise"]),
            others=_number(data["others"]),
            trials=tuple(_trial(each) for each in data["trials"]),
            draft_costs=tuple(tuple(map(_number, side)) for side in data.get("draft_costs", ())),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("not a record") from error


def find(directory: Path, model: Path) -> TuneRecord | None:
    """The record of a model file; None if there is none.

    Raises:
        ValueError: what lies there is no record of it.
    """
    path = record_path(directory, model)
    try:
        found = read(path)
    except FileNotFoundError:
        return None
    if found.model != model.absolute():
        raise ValueError("the record of another model")
    return found


def known_tuning(directory: Path, model: Path, stamp: str) -> Tuning | None:
    """What runs a model file fastest here with the engine of that stamp; None unless there is a record that holds."""
    try:
        record = find(directory, model)
    except (OSError, ValueError):
        return None
    return None if record is None or record.obstacle(TunePlace.here(stamp)) else record.tuning


def all_records(directory: Path) -> Iterator[tuple[Path, TuneRecord | None]]:
    """Every file of the directory with its record; None where it is none."""
    for path in sorted(directory.glob("*.json")):
        try:
            yield path, read(path)
        except (OSError, ValueError):
            yield path, None


def forget(directory: Path, model: Path) -> bool:
    """Delete the record of a model file; return whether there was one."""
    path = record_path(directory, model)
    is_there = path.exists()
    path.unlink(missing_ok=True)
    return is_there


def _tuning(data: Any) -> Tuning:
    attention = data["flash_attention"]
    if attention is not None and not isinstance(attention, bool):
        raise ValueError("neither on nor off")
    n_threads, n_threads_batch = (_whole(data[name], 1, MOST_THREADS) for name in ("n_threads", "n_threads_batch"))
    return Tuning(n_threads, n_threads_batch, _whole(data["n_batch"], 1, MOST_BATCH), attention)


def _trial(data: Any) -> TuneTrial:
    goal = data["goal"]
    if goal not in ("decode", "prefill"):
        raise ValueError("no such goal")
    rate, ratio = _number(data["rate"]), _number(data["ratio"])
    rounds, depth = _whole(data["rounds"]), _whole(data["depth"])
    return TuneTrial(goal, _text(data["tried"]), rate, ratio, rounds, depth, data["chosen"] is True)


def _whole(value: Any, least: int = 0, most: int = 1 << 63) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError("no such number")
    return value


def _number(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError("no such number")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("no text")
    return value
