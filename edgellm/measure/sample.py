"""The text that models are measured on: the one that ships with edgellm, or a file of the user's.

text = read_sample()
text = read_sample(Path("wiki.test.raw"))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import UsageError

SHIPPED = Path(__file__).parent / "text" / "sample.txt"
# Some four million tokens, hours on a CPU; a larger file is a mistake, and must not be read into memory.
LARGEST = 16_000_000


@dataclass(frozen=True, slots=True)
class Sample:
    """A text with a name for people; `n_bytes` is its size in UTF-8."""

    name: str
    text: str
    n_bytes: int


def read_sample(path: Path | None = None) -> Sample:
    """The text of a file, or the shipped one.

    Raises:
        UsageError: no such file, not UTF-8, or too large to measure on.
    """
    name = path.name if path else "edgellm's sample"
    path = path or SHIPPED
    if not path.is_file():
        raise UsageError(f"there is no text file {path}", path=str(path))
    size = path.stat().st_size
    if size > LARGEST:
        why = f"it has {size / 1e6:.0f} MB, the limit is {LARGEST / 1e6:.0f} MB"
        raise UsageError(f"{name} is too large to measure on", why=why, hint=f"head -c 1M {name} > part.txt", size=size)
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is not a UTF-8 text", why=str(error), hint="a plain text file") from error
    return Sample(name, text, size)
