"""The machine and the engine that something is measured on, now.

setting = current_setting(here.installed_engine)
"""

from __future__ import annotations

from datetime import datetime, timezone

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.machine.cpu import detect
from edgellm.measure.bench.result import Setting


def current_setting(engine: InstalledEngine) -> Setting:
    """Return this machine and an engine, with the time in UTC."""
    record = engine.record
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Setting(date, detect().model, record.version, record.stamp, record.compiler)
