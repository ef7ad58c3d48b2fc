"""Sets up stdin, stdout and stderr once, so that every text can be written on every console and into every pipe.

    prepare_streams()

What the encoding of a console lacks appears as its nearest ASCII form, or as a question mark. A standard stream that
the caller has closed is replaced by /dev/null: otherwise the next file would take its number.
"""

from __future__ import annotations

import codecs
import io
import os
import sys

SUBSTITUTE = "edgellm.substitute"
# What models write most that ASCII and the old code pages lack, and what edgellm's own lines are made of.
NEAREST = {
    "“": '"', "”": '"', "„": '"', "‘": "'", "’": "'", "–": "-", "—": "-", "−": "-", "…": "...", "•": "*", "→": "->",
    "\u00a0": " ", "\u202f": " ", "━": "-", "─": "-", "╸": "-", "│": "|", "×": "x",
}  # fmt: skip


def prepare_streams() -> None:
    """Replace closed streams, and let stdout and stderr substitute what they cannot encode."""
    codecs.register_error(SUBSTITUTE, substitute)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123, it stays open
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SUBSTITUTE)


def substitute(error: UnicodeError) -> tuple[str, int]:
    """The error handler: what stands in place of characters that cannot be encoded, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(NEAREST.get(character, "?") for character in missing), error.end
