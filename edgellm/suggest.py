"""Suggests the known word that is closest to a mistyped one.

did_you_mean("smolm2", ["smollm2"])  ->  "smollm2"
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the most similar known word, or None when none is similar."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), None)
