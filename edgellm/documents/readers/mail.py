"""Mail (.eml): subject, sender, date and text; attachments are named, not read."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage

from edgellm.documents.elements import Element, Note, Part
from edgellm.documents.readers import html, text
from edgellm.errors import CorruptFile

MOST_PARTS = 200


def read(data: bytes) -> Iterator[Part]:
    """The elements of a message.

    Raises:
        CorruptFile: it has parts in parts in parts, for which the parser's time grows without bounds.
    """
    if data.count(b"boundary=") > MOST_PARTS:
        raise CorruptFile("it is refused", why=f"more than {MOST_PARTS} of its parts are nested")
    message: EmailMessage = message_from_bytes(data, _class=EmailMessage, policy=policy.default)
    yield Element("heading", " ".join(str(message["Subject"] or "mail without a subject").split()), level=1)
    about = [f"{name}: {' '.join(str(message[name]).split())}" for name in ("From", "To", "Date") if message[name]]
    if about:
        yield Element("text", "\n".join(about))
    body = message.get_body(("plain", "html"))
    if body is not None:
        try:
            content = body.get_content()
        except LookupError:  # it names an encoding that there is not
            content = bytes(body.get_payload(decode=True)).decode("utf-8", "replace")
        if body.get_content_subtype() == "html":
            yield from html.read(content.encode(), "utf-8")
        else:
            for element in text.read(content.splitlines()):
                yield Element(element.kind, element.text, element.level)
    for attachment in message.iter_attachments():
        yield Note(f"the attachment {attachment.get_filename() or 'without a name'} is not read")
