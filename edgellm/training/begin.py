"""Begins a fine-tuning. Torch is imported here at the earliest, so that everything else starts without it.

with begin(FineTuneRequest(model, data, output, FineTuneOptions()), engine, codec) as job:
    for step in job.run(): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgellm.progress import Report, silent
from edgellm.training.extra import require_extra
from edgellm.training.options import FineTuneRequest

if TYPE_CHECKING:
    from edgellm.engine.llama import LlamaEngine
    from edgellm.engine.quantize import Quantizer
    from edgellm.training.job import FineTuneJob


def begin(request: FineTuneRequest, engine: LlamaEngine, codec: Quantizer, *, report: Report = silent) -> FineTuneJob:
    """Read and check everything; see `FineTuneJob.prepare` for what it raises.

    Raises:
        UsageError: the extra edgellm[train] is not installed.
    """
    require_extra()
    from edgellm.training.job import FineTuneJob

    return FineTuneJob.prepare(request, engine, codec, report=report)
