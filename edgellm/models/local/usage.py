"""Records when each model on this machine was last used, and how fast it was.

    record(settings.usage, path, decode_rate=14.2)
    read_usage(settings.usage)[path].last_used

All models share one small file, written as a whole under a lock. If it cannot be written, the model still works.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgellm.files import locked, write_atomically


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """`decode_rate` is in tokens per second, None before anything was generated."""

    last_used: str
    decode_rate: float | None


def read_usage(path: Path) -> dict[Path, ModelUsage]:
    """Return the usage of each model file; empty when the record is missing or damaged."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {Path(model): ModelUsage(str(entry["last_used"]), _rate(entry)) for model, entry in data.items()}
    except (OSError, ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return {}


def record(path: Path, model: Path, *, decode_rate: float | None) -> None:
    """Record that a model was used now; a rate of None or 0 keeps the previous rate."""
    with contextlib.suppress(OSError), locked(path.with_name(f".{path.name}.lock")):
        known = read_usage(path)
        before = known.get(model.absolute())
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        rate = round(decode_rate, 2) if decode_rate else before.decode_rate if before else None
        known[model.absolute()] = ModelUsage(now, rate)
        # Models that no longer exist are dropped, so that the file stays small.
        kept = {str(each): asdict(usage) for each, usage in known.items() if each.exists()}
        write_atomically(path, json.dumps(kept, indent=2).encode())


def _rate(entry: dict[str, object]) -> float | None:
    rate = entry.get("decode_rate")
    return float(rate) if isinstance(rate, (int, float)) and not isinstance(rate, bool) and rate > 0 else None
