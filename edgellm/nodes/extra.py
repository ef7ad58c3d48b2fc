"""The package of the extra `edgellm[ray]`, which is large: looked for before a batch begins, refused kindly.

require_ray()
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from edgellm.errors import UsageError

# For the Python that runs us: edgellm itself may be a checkout.
EXTRA = f"{sys.executable} -m pip install 'ray>=2.50'"


def require_ray() -> None:
    """Raise `UsageError` unless Ray is installed; it is not imported."""
    if find_spec("ray") is None:
        why = "Ray is not installed; with what it needs it takes 290 MB"
        raise UsageError("--ray needs the extra edgellm[ray]", why=why, hint=EXTRA)
