"""Earlier benchmarks: one JSON file each, whole or not there, and the figures of a model out of all of them.

    save(settings.benchmarks, result)
    earlier(settings.benchmarks, {fingerprint}).records

A file that cannot be read, whatever is in it, is counted and left alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm.files import write_atomically
from edgellm.measure.bench_result import Benchmark, Contestant, Measurement, Test

VERSION = 1
# Far more than a benchmark of twenty contenders takes.
MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One contender in one test of an earlier benchmark; rates are tokens per second."""

    date: str
    cpu: str
    engine: str
    stamp: str
    contender: str
    fingerprint: str
    kernels: str
    peer: str | None
    depth: int
    test: Test
    median: float
    lowest: float
    highest: float


@dataclass(frozen=True, slots=True)
class History:
    """The records of some models, oldest first, and how many files could not be read."""

    records: tuple[Record, ...]
    n_unreadable: int


def save(directory: Path, result: Benchmark) -> Path:
    """Keep a result; a crash leaves the whole file or none."""
    moment = result.setting.date.replace(":", "-")
    path = directory / f"{moment}-{os.getpid()}.json"
    write_atomically(path, json.dumps({"version": VERSION, **asdict(result)}, default=str).encode())
    return path


def earlier(directory: Path, fingerprints: Set[str]) -> History:
    """All records of the models with these fingerprints."""
    records: list[Record] = []
    n_unreadable = 0
    for path in sorted(directory.glob("*.json")):
        try:
            found = list(_records(_read(path)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            n_unreadable += 1
            continue
        records += [record for record in found if record.fingerprint in fingerprints]
    return History(tuple(sorted(records, key=lambda record: record.date)), n_unreadable)


def previous(history: History, result: Benchmark, contender: Contestant, measurement: Measurement) -> Record | None:
    """The last record of the same model, kernels and test on the same CPU."""
    peer = str(contender.peer) if contender.peer else None
    wanted = (contender.fingerprint, contender.kernels, peer, result.depth, measurement.test, result.setting.cpu)
    for record in reversed(history.records):
        if wanted == (record.fingerprint, record.kernels, record.peer, record.depth, record.test, record.cpu):
            return record
    return None


def _read(path: Path) -> Any:
    if path.stat().st_size > MOST_BYTES:
        raise ValueError("too large")
    data = json.loads(path.read_bytes())
    if data["version"] != VERSION:
        raise ValueError("another version's")
    return data


def _records(data: Any) -> Iterator[Record]:
    setting = data["setting"]
    contenders = {str(contender["name"]): contender for contender in data["contenders"]}
    for measurement in data["measurements"]:
        contender = contenders[measurement["contender"]]
        values = sorted(float(value) for value in measurement["rate"]["values"])
        if not 0 < values[0] <= values[-1] < float("inf"):
            raise ValueError("a rate that cannot be")
        test = measurement["test"]
        middle = len(values) // 2
        yield Record(
            date=str(setting["date"]),
            cpu=str(setting["cpu"]),
            engine=str(setting["engine"]),
            stamp=str(setting["stamp"]),
            contender=str(contender["name"]),
            fingerprint=str(contender["fingerprint"]),
            kernels=str(contender["kernels"]),
            peer=None if contender["peer"] is None else str(contender["peer"]),
            depth=int(data["depth"]),
            test=Test(test["kind"], int(test["n_tokens"]), int(test["n_seq"]), int(test["n_threads"])),
            median=values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2,
            lowest=values[0],
            highest=values[-1],
        )
