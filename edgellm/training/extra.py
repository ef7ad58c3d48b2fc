"""The packages of the extra `edgellm[train]`, which is large: imported when a model is trained, refused kindly.

require_extra()
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from edgellm.errors import UsageError

# For the Python that runs us: edgellm itself may be a checkout.
EXTRA = f"{sys.executable} -m pip install 'torch>=2.6' 'safetensors>=0.4'"


def require_extra() -> None:
    """Raise `UsageError` unless torch and safetensors can be imported."""
    # Before torch loads OpenMP, which reads it once. By default a thread that waits for another one keeps its core: on
    # two busy cores a step took 47 s like that, and 5 s where waiting threads sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for package in ("torch", "safetensors"):
        try:
            import_module(package)
        except ImportError as error:
            why = f"the package {error.name} is missing; torch takes 750 MB as its build for CPUs, over 4 GB with CUDA"
            raise UsageError("fine-tuning needs the extra edgellm[train]", why=why, hint=EXTRA) from error
