"""Optional packages that are too large for everybody: imported when a verb needs them, refused kindly where missing.

TRAIN.require()
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from edgellm.errors import UsageError


@dataclass(frozen=True, slots=True)
class Extra:
    """Packages for one purpose: `packages` are requirements by module, `size` says what they take on the disk."""

    name: str
    packages: Mapping[str, str]
    size: str
    purpose: str

    @property
    def command(self) -> str:
        """What installs them for the Python that runs us; edgellm itself may be a checkout."""
        return " ".join([sys.executable, "-m pip install", *(f"'{each}'" for each in self.packages.values())])

    def require(self, *, load: bool = True) -> None:
        """Raise `UsageError` unless all packages can be imported; without `load` they are only looked for."""
        for module in self.packages:
            try:
                if load:
                    import_module(module)
                elif find_spec(module) is None:
                    raise ModuleNotFoundError(name=module)
            except ImportError as error:
                is_missing = isinstance(error, ModuleNotFoundError) and error.name
                trouble = f"{error.name} is missing" if is_missing else f"{module} cannot be imported: {error}"
                why = f"the package {trouble}; {self.size}"
                raise UsageError(f"{self.purpose} needs {self.name}", why=why, hint=self.command) from error


TRAIN = Extra(
    "the extra edgellm[train]",
    {"torch": "torch>=2.6", "safetensors": "safetensors>=0.4"},
    "torch takes 750 MB as its build for CPUs, over 4 GB with CUDA",
    "fine-tuning",
)
BENCHMARKS = Extra(
    "the extra for lm-eval",
    {"lm_eval": "lm-eval>=0.4.13,<0.5", "datasets": "datasets>=4"},
    "lm-eval with all it needs takes 570 MB, without torch",
    "a published benchmark",
)
RAY = Extra("the extra edgellm[ray]", {"ray": "ray>=2.50"}, "Ray with what it needs takes 290 MB", "--ray")
