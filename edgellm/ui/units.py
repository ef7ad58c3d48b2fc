"""Numbers as people read them.

size(1_187_801_280) -> "1.19 GB";  duration(0.31) -> "0.31 s";  count(134_515_008) -> "135M"
"""

from __future__ import annotations


def size(n_bytes: float) -> str:
    """Bytes in decimal units, three digits."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            value = n_bytes / factor
            return (
                f"{value:.2f} {unit}" if value < 10 else f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
            )
    return f"{n_bytes:.0f} B"


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def count(number: int) -> str:
    """A count of parameters: 135M, 2.4B."""
    return f"{number / 1e9:.1f}B" if number >= 1e9 else f"{number / 1e6:.0f}M" if number >= 1e6 else f"{number:,}"


def rate(per_second: float) -> str:
    """Tokens per second."""
    return f"{per_second:.1f} tok/s" if per_second < 100 else f"{per_second:.0f} tok/s"
