"""Refuses XML that defines what it later multiplies, before any other parser reads it.

    refuse_entities(archive.open("word/document.xml"), "word/document.xml")

Entities of entities unpack to gigabytes, external ones show files of this machine. Expat sees them in any encoding and
behind any comment; it stops at the first element, after which there can be none.
"""

from __future__ import annotations

import contextlib
from typing import IO
from xml.parsers import expat

from edgellm.errors import CorruptFile

_BLOCK = 4096


def refuse_entities(stream: IO[bytes], name: str, *, doctype: bool = True) -> None:
    """Raise `CorruptFile` if a document defines entities or, with `doctype`, any type: no office program writes one."""
    parser = expat.ParserCreate()
    is_begun = []

    def refuse(*_: object) -> None:
        what = "a document type" if doctype else "entities"
        raise CorruptFile("it is refused", why=f"{name} defines {what}")

    parser.EntityDeclHandler = refuse
    if doctype:
        parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = lambda *_: is_begun.append(True)
    with contextlib.suppress(expat.ExpatError):  # whoever reads it says what is wrong
        while not is_begun and (data := stream.read(_BLOCK)):
            parser.Parse(data)
