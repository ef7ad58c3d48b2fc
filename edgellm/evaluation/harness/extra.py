"""The packages of the extra `edgellm[eval]`, which is large: imported when benchmarks are asked for, refused kindly.

require_extra()
"""

from __future__ import annotations

import sys
from importlib import import_module

from edgellm.errors import UsageError

# For the Python that runs us: edgellm itself may be a checkout.
EXTRA = f"{sys.executable} -m pip install 'lm-eval>=0.4.13,<0.5' 'datasets>=4'"


def require_extra() -> None:
    """Raise `UsageError` unless lm-eval and datasets can be imported."""
    for package in ("lm_eval", "datasets"):
        try:
            import_module(package)
        except ImportError as error:
            why = f"the package {error.name} is missing; lm-eval with all it needs takes 570 MB, without torch"
            raise UsageError("benchmarks need the extra for lm-eval", why=why, hint=EXTRA) from error
