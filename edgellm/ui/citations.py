"""What stands below an answer from documents: its citations, and what of it could not be confirmed.

show_answer(stream, live=True)
print_checked(found)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgellm.documents.answers.citation import beginning, place
from edgellm.ui.console import note, print_line

if TYPE_CHECKING:
    from edgellm.chats.chat import Chat
    from edgellm.documents.answers.dialogue import Consultation
    from edgellm.documents.answers.question import DocumentAnswer

# Characters of a passage, or of a quotation, that is shown; and lines of a passage below an answer.
SHOWN, SHOWN_LINES = 200, 3
# Spaces before it.
INDENT = 4


def print_checked(found: DocumentAnswer) -> None:
    """Print what stands below an answer: its citations and what nothing bears, or why it is refused."""
    if found.correction:
        print_line(found.correction)
    if not found.refused:
        print_line("")
    for citation in found.citations:
        print_line(f"[{citation.number}] {place(citation)}")
        if found.basis != "quotation":  # it is the answer
            print_line(f"    “{beginning(citation.quote, SHOWN)}”", indent=INDENT)
    if found.basis == "draft":
        for sentence in found.sentences:
            if sentence.citation is None:
                print_line(f"not in the documents: {sentence.text}")
    if found.unknown_numbers:
        print_line(f"numbers that stand nowhere in the passages: {', '.join(found.unknown_numbers)}")
    for nearest in found.nearest:
        print_line(f"nearest: {place(nearest)}")
        print_line(f"    {beginning(excerpt(nearest.text, found.question, SHOWN_LINES), SHOWN)}", indent=INDENT)
    if found.orders:
        print_line(f"not shown to the model, because it gives orders: {beginning(' '.join(found.orders), SHOWN)}")


def excerpt(text: str, question: str, n_lines: int) -> str:
    """The lines of a passage, so many at most, that have most words of the question; "…" for what is left out."""
    from edgellm.documents.answers.evidence import word_stems
    from edgellm.documents.answers.lines import line_spans

    spans, asked = list(line_spans(text)), set(word_stems(question).values())
    if len(spans) <= n_lines:
        return text.strip()
    has = [asked & set(word_stems(text[start:end]).values()) for start, end in spans]
    places = range(len(spans))
    best = max(places, key=lambda at: (len(set().union(*has[at : at + n_lines])), len(has[at]), -at))
    # The line before may be its heading.
    first = min(max(0, best - 1), len(spans) - n_lines)
    last = first + n_lines - 1
    shown = text[spans[first][0] : spans[last][1]]
    return f"{'… ' * (first > 0)}{shown}{' …' * (last + 1 < len(spans))}"


def citation_fields(found: DocumentAnswer | None) -> dict[str, Any]:
    """What the JSON of an answer says of documents, beside its text."""
    if found is None:
        return {"refused": False, "basis": "", "citations": [], "unknown_numbers": []}
    return {name: getattr(found, name) for name in ("refused", "basis", "citations", "unknown_numbers")}


def print_below(chat: Chat, *, quiet: bool) -> None:
    """Print what stands below the last answer of a chat, if it came from documents."""
    if chat.found is not None:
        print_checked(chat.found)
    if chat.consultation is not None and not quiet:
        _note_left_out(chat.consultation)


def _note_left_out(asked: Consultation) -> None:
    """Say what of the passages that were found, and of the chat before, is not in the prompt."""
    prompt, n_chunks = asked.question.prompt, sum(map(len, asked.question.groups))
    parts = []
    if asked.messages and prompt.n_left_out:
        parts.append(f"{prompt.n_left_out} of the {n_chunks} chunks found")
    if asked.n_forgotten:
        parts.append(f"{asked.n_forgotten} earlier messages")
    if parts:
        note(f"[left out of the prompt, for want of room: {' and '.join(parts)}]")
