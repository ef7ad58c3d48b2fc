"""Keeps earlier benchmarks, one JSON file each, and finds the results of a model in all of them.

    save(settings.benchmarks, result)
    earlier(settings.benchmarks, {fingerprint}).records

A file that cannot be read is counted and otherwise ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgellm.files import write_atomically
from edgellm.measure.bench.result import Benchmark, Contestant, Measurement, Test

VERSION = 1
# Far more than the file of a benchmark with twenty contenders takes.
MOST_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """The result of one contender in one test of an earlier benchmark; rates are in tokens per second."""

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

    records: tuple[HistoryRecord, ...]
    n_unreadable: int


def save(directory: Path, result: Benchmark) -> Path:
    """Save a result, and return its path; a crash leaves the complete file or none."""
    moment = result.setting.date.replace(":", "-")
    path = directory / f"{moment}-{os.getpid()}.json"
    write_atomically(path, json.dumps({"version": VERSION, **asdict(result)}, default=str).encode())
    return path


def earlier(directory: Path, fingerprints: Set[str]) -> History:
    """Return all records of the models with these fingerprints."""
    kept: list[HistoryRecord] = []
    n_unreadable = 0
    for path in sorted(directory.glob("*.json")):
        try:
            found = list(_records(_read(path)))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            n_unreadable += 1
            continue
        kept += [record for record in found if record.fingerprint in fingerprints]
    return History(tuple(sorted(kept, key=lambda record: record.date)), n_unreadable)


def records(result: Benchmark) -> Iterator[HistoryRecord]:
    """A result as the records that it will be among."""
    setting = result.setting
    contenders = {contender.name: contender for contender in result.contenders}
    for measurement in result.measurements:
        contender = contenders[measurement.contender]
        yield HistoryRecord(
            date=setting.date,
            cpu=setting.cpu,
            engine=setting.engine,
            stamp=setting.stamp,
            contender=contender.name,
            fingerprint=contender.fingerprint,
            kernels=contender.kernels,
            peer=str(contender.peer) if contender.peer else None,
            depth=result.depth,
            test=measurement.test,
            median=measurement.rate.median,
            lowest=measurement.rate.lowest,
            highest=measurement.rate.highest,
        )


def previous(
    history: History, result: Benchmark, contender: Contestant, measurement: Measurement
) -> HistoryRecord | None:
    """Return the last record of the same model, kernels and test on the same CPU, or None."""
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


def _records(data: Any) -> Iterator[HistoryRecord]:
    setting = data["setting"]
    contenders = {str(contender["name"]): contender for contender in data["contenders"]}
    for measurement in data["measurements"]:
        contender = contenders[measurement["contender"]]
        values = sorted(float(value) for value in measurement["rate"]["values"])
        if not 0 < values[0] <= values[-1] < float("inf"):
            raise ValueError("an impossible rate")
        test = measurement["test"]
        middle = len(values) // 2
        yield HistoryRecord(
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
