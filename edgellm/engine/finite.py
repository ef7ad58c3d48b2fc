"""Refuses results that are not numbers, wherever an engine hands them out.

require_finite(logits, "model.gguf")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgellm.errors import NotFinite

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def require_finite(rows: npt.NDArray[np.floating[Any]], name: str = "the model") -> None:
    """Raise `NotFinite`, with the model's name, unless each row of logits [..., n_vocab] has a finite maximum.

    A single logit may be minus infinity: that token never comes. NaN spreads to the maximum.
    """
    import numpy as np

    if not np.isfinite(rows.max(axis=-1)).all():
        raise not_finite(name)


def not_finite(name: str) -> NotFinite:
    """The error of a model whose results are not numbers."""
    why = "NaN or infinity came out: the file is damaged, or its weights overflow"
    return NotFinite(f"{name} computes no numbers", why=why, hint="edgellm verify")
