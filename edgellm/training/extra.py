"""The packages of the extra `edgellm[train]`, which is large: imported when a model is trained, refused kindly.

require_extra()
"""

from __future__ import annotations

import sys
from importlib import import_module

from edgellm.errors import UsageError

# For the Python that runs us: edgellm itself may be a checkout. The CPU's wheel, without gigabytes of CUDA.
EXTRA = (
    f"{sys.executable} -m pip install safetensors && "
    f"{sys.executable} -m pip install torch --index-url https://download.pytorch.org/whl/cpu"
)


def require_extra() -> None:
    """Raise `UsageError` unless torch and safetensors can be imported."""
    for package in ("torch", "safetensors"):
        try:
            import_module(package)
        except ImportError as error:
            why = f"the package {error.name} is missing; torch for the CPU takes 750 MB, with CUDA over 4 GB"
            raise UsageError("fine-tuning needs the extra edgellm[train]", why=why, hint=EXTRA) from error
