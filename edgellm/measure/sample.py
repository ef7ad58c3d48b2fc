"""Reads the text to measure models on: the one that ships with edgellm, or a file of the user.

text = read_sample()
text = read_sample(Path("wiki.test.raw"))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import UsageError
from edgellm.text import read_text

SHIPPED = Path(__file__).parent / "text" / "sample.txt"


@dataclass(frozen=True, slots=True)
class Sample:
    """A text with a display name; `n_bytes` is its size in UTF-8."""

    name: str
    text: str
    n_bytes: int


def read_sample(path: Path | None = None) -> Sample:
    """Return the text of a file, or the shipped one.

    Raises:
        UsageError: the file does not exist, is no text, or is too large to measure on.
    """
    name = path.name if path else "edgellm's sample"
    path = path or SHIPPED
    if not path.is_file():
        raise UsageError(f"there is no text file {path}", path=str(path))
    text = read_text(path)
    return Sample(name, text, len(text.encode()))
