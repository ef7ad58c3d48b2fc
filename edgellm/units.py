"""Numbers as people read them.

size(1_187_801_280) -> "1.19 GB";  duration(0.31) -> "0.31 s";  count(134_515_008) -> "135M"
parse_size("1.5GiB", "--ram") -> 1610612736
"""

from __future__ import annotations

import re

from edgellm.errors import UsageError

_FACTORS = {
    "": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?([KMGT]I?)?B?", re.IGNORECASE)


def three_digits(value: float) -> str:
    """A number above 1 as far as it matters: 1.19, 42.6, 187."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def size(n_bytes: float) -> str:
    """Bytes in decimal units, three digits."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{three_digits(n_bytes / factor)} {unit}"
    return f"{n_bytes:.0f} B"


def speed(bytes_per_second: float) -> str:
    """A bandwidth: 11.4 GB/s."""
    return f"{size(bytes_per_second)}/s"


def duration(seconds: float) -> str:
    """Seconds, or minutes and seconds."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    return f"{seconds:.0f} s" if seconds < 60 else f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def clock(seconds: float) -> str:
    """Time that is left: 0:09, 18:02, 2:00:00."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def count(number: int) -> str:
    """A count of parameters: 135M, 2.4B."""
    return f"{number / 1e9:.1f}B" if number >= 1e9 else f"{number / 1e6:.0f}M" if number >= 1e6 else f"{number:,}"


def threads(number: int) -> str:
    """A number of threads, such as "1 thread" or "8 threads"."""
    return f"{number} thread" + ("s" if number > 1 else "")


def rate(per_second: float) -> str:
    """Tokens per second."""
    return f"{per_second:.1f} tok/s" if per_second < 100 else f"{per_second:.0f} tok/s"


def consumption(cores: float, joules: float | None, n_tokens: int) -> str:
    """CPU use and, where it is known, energy: 1.9 cores in use, 41 J (0.32 J a token)."""
    used = f"{cores:.1f} cores in use"
    if joules is None:
        return used
    return f"{used}, {joules:,.0f} J" + (f" ({joules / n_tokens:.2g} J a token)" if n_tokens else "")


def parse_size(text: str, option: str) -> int:
    """Return "1.8GB", "900M" or "1.5GiB" in bytes; UsageError when it is no size."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or not float(match[1]):
        raise UsageError(f"{text!r:.60} is no size", hint=f"{option} 1.8GB")
    return round(float(match[1]) * _FACTORS[(match[2] or "").upper()])
