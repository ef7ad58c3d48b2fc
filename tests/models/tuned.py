"""Records as `edgellm tune` keeps them."""

from pathlib import Path

from edgellm.models.fit.tuned_plan import Tuning, default_tuning
from edgellm.models.local.tune_records import TunePlace, TuneRecord, TuneTrial, save

TUNING = Tuning(1, 3, 128, flash_attention=False)


def record_of(model: Path, place: TunePlace, tuning: Tuning = TUNING, *, others: float = 0.0) -> TuneRecord:
    """What was found for a model file as it is now."""
    status = model.stat()
    trial = TuneTrial("decode", "1 thread", 30.0, 1.2, 5, 0, chosen=True)
    return TuneRecord(
        model.absolute(), status.st_size, status.st_mtime_ns, place, "2026-11-29T10:00:00+00:00", tuning,
        default_tuning(), 1.2, 1.0, 0.02, others, (trial,),
    )  # fmt: skip


def remember(directory: Path, model: Path, stamp: str, tuning: Tuning = TUNING) -> Path:
    """Keep a record that holds here with the engine of that stamp; returns its file."""
    return save(directory, record_of(model, TunePlace.here(stamp), tuning))
