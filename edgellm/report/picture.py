"""Turns SVG into a PNG picture, by resvg (the extra `edgellm[png]`).

require_rasteriser()
data = png(sheet(title, subtitle, charts, is_for_screens=False))
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from edgellm.errors import UsageError

LIBRARY = "resvg_py"
# Pictures are for screens of twice the usual density.
ZOOM = 2.0
# resvg does not look for a font by itself. These are common; characters that one lacks are taken from others.
FAMILIES = (
    "Noto Sans", "DejaVu Sans", "Liberation Sans", "Arial", "Helvetica Neue", "Helvetica", "Segoe UI", "Roboto",
    "Ubuntu", "Cantarell", "FreeSans", "Open Sans", "Noto Sans CJK SC", "WenQuanYi Micro Hei", "PingFang SC",
)  # fmt: skip


def require_rasteriser() -> None:
    """Refuse pictures where they cannot be made.

    Raises:
        UsageError: the package or every usual font is missing.
    """
    if find_spec(LIBRARY) is None:
        raise UsageError(
            "a report cannot be written as PNG",
            why="the package resvg-py is not installed",
            hint="pip install 'edgellm[png]', or --report FILE.svg",
        )
    if not _family():
        raise UsageError(
            "a report cannot be written as PNG",
            why="no usual font is installed, so its text would be missing",
            hint="apt-get install fonts-dejavu-core, or --report FILE.svg",
        )


def png(svg: str) -> bytes:
    """The picture of an SVG document.

    Raises:
        UsageError: see `require_rasteriser`.
    """
    require_rasteriser()
    return _rendered(svg, _family(), ZOOM)


@cache
def _family() -> str:
    """The first family of `FAMILIES` that is installed, or "": a letter in it leaves a mark."""
    letter = '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20">{}</svg>'
    written = letter.format('<text x="2" y="16" font-family="sans-serif">M</text>')
    blank = _rendered(letter.format(""), "", 1.0)
    return next((family for family in FAMILIES if _rendered(written, family, 1.0) != blank), "")


def _rendered(svg: str, family: str, zoom: float) -> bytes:
    import resvg_py

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, sans_serif_family=family or None, zoom=zoom))
