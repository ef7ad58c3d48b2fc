"""HTML and SVG as text that is safe by construction: only `Markup` is markup, every other text is escaped.

    element("td", "a < b", class_="name")   ->   <td class="name">a &lt; b</td>

Answers of models are hostile text. What would be invisible or would act on the text around it (control characters,
marks that reverse the direction of writing, halves of surrogate pairs) is replaced by something that can be seen.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Elements without an end tag.
VOID = frozenset({"input", "meta", "circle", "line", "path", "rect"})
# Everything that XML or HTML cannot carry, and the marks that override the direction of the text around them.
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def visible(text: str) -> str:
    """Text in which everything can be seen: ESC is [U+001B], a reversing mark is [U+202E]."""
    return UNSEEN.sub(_picture, text.replace("\r\n", "\n"))


def escaped(text: str) -> Markup:
    """Text from anywhere as markup between tags; quotes stay as they are."""
    return Markup(html.escape(visible(text), quote=False))


def joined(parts: Iterable[str]) -> Markup:
    """Several parts as one; those that are no markup are escaped."""
    return Markup("".join(part if isinstance(part, Markup) else escaped(part) for part in parts))


def element(name: str, /, *children: str, **attributes: str | float | bool | None) -> Markup:
    """Return an element. An attribute may end in `_` (class_); None and False leave it out, True gives it no value."""
    found = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{found}/>")
    return Markup(f"<{name}{found}>{joined(children)}</{name}>")


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f' {name}=""'
    text = value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {name}="{html.escape(visible(text))}"'


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    return "\ufffd" if 0xD800 <= code < 0xE000 else f"[U+{code:04X}]"
