"""Begins a fine-tuning. Torch is imported here at the earliest, so that everything else starts without it.

with begin(FineTuneRequest(model, data, output, FineTuneOptions()), engine, codec) as job:
    for step in job.run(): ...
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgellm.extras import TRAIN
from edgellm.progress import Report, silent
from edgellm.training.options import FineTuneRequest

if TYPE_CHECKING:
    from edgellm.engine.llama import LlamaEngine
    from edgellm.engine.quantize import Quantizer
    from edgellm.training.job import FineTuneJob


def require_torch() -> None:
    """Raise `UsageError` unless the extra edgellm[train] is installed."""
    # Before torch loads OpenMP, which reads it once. By default a thread that waits for another one keeps its core: on
    # two busy cores a step took 47 s like that, and 5 s where waiting threads sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    TRAIN.require()


def begin(request: FineTuneRequest, engine: LlamaEngine, codec: Quantizer, *, report: Report = silent) -> FineTuneJob:
    """Read and check everything; see `FineTuneJob.prepare` for what it raises.

    Raises:
        UsageError: the extra edgellm[train] is not installed.
    """
    require_torch()
    from edgellm.training.job import FineTuneJob

    return FineTuneJob.prepare(request, engine, codec, report=report)
