"""The examples to learn from: JSON Lines of chats, of prompts with completions, or of texts; or one plain text.

    found = read_examples(path)

Lines are {"messages": [{"role": "user", "content": "..."}, ...]}, {"prompt": "...", "completion": "..."} or
{"text": "..."}; a file that does not end in .jsonl is one text.

Everything is checked before training starts, and every fault is named with its line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from edgellm.errors import CorruptFile, FileAccessError, UsageError
from edgellm.formats.json_object import parse_object
from edgellm.run.message import Message
from edgellm.suggest import did_you_mean
from edgellm.text import read_text

MOST_LINE_BYTES = 16 << 20
MOST_FILE_BYTES = 1 << 30
# A million take about 2 GB of memory.
MOST_EXAMPLES = 1_000_000
JSON_LINES = (".jsonl", ".ndjson")
_ROLES = ("system", "user", "assistant")
_FORMS = 'lines are {"messages": [...]}, {"prompt": "...", "completion": "..."} or {"text": "..."}'
_KEYS = (frozenset({"messages"}), frozenset({"prompt", "completion"}), frozenset({"text"}))


@dataclass(frozen=True, slots=True)
class Example:
    """One example and its line: `messages` of a chat, or a `text` that is learnt as a whole."""

    line: int
    messages: tuple[Message, ...] = ()
    text: str = ""


def read_examples(path: Path) -> list[Example]:
    """Read and check a file of examples; one that does not end in .jsonl is a plain text.

    Raises:
        FileAccessError: it cannot be read.
        UsageError: it is empty, too large, or a line is wrong; the message has its number.
        NotText: it is not UTF-8.
    """
    if path.is_dir():
        raise FileAccessError(f"{path} is a directory", hint="the path of a .jsonl or .txt file", path=str(path))
    if path.suffix.lower() not in JSON_LINES:
        text = read_text(path, limit=MOST_FILE_BYTES)
        examples = [Example(1, text=text)] if text.strip() else []
    else:
        found = (_example(path, number, line) for number, line in _lines(path) if line.strip())
        examples = list(islice(found, MOST_EXAMPLES + 1))
        if len(examples) > MOST_EXAMPLES:
            hint = "a part of it: what comes out can be trained on the next part"
            raise UsageError(f"{path} holds over {MOST_EXAMPLES:,} examples", why="they are held in memory", hint=hint)
    if not examples:
        raise UsageError(f"{path} holds no examples", why=_FORMS, path=str(path))
    return examples


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines with their numbers; none is read further than the limit."""
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise UsageError(f"{path} is too large", why=f"the limit is {MOST_FILE_BYTES >> 30} GiB of examples")
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MOST_LINE_BYTES + 1):
                number += 1
                if len(line) > MOST_LINE_BYTES:
                    _wrong(path, number, f"it is longer than {MOST_LINE_BYTES >> 20} MiB")
                yield number, line
    except OSError as error:
        raise FileAccessError(f"cannot read {path}", why=error.strerror or str(error), path=str(path)) from error


def _example(path: Path, number: int, line: bytes) -> Example:
    try:
        found = parse_object(line, name=path.name)
    except CorruptFile as error:
        _wrong(path, number, error.why)
    keys = frozenset(found)
    if keys not in _KEYS:
        _wrong(path, number, _wrong_keys(found))
    if "messages" in found:
        return Example(number, messages=_messages(path, number, found["messages"]))
    texts = {key: _text(path, number, key, value) for key, value in found.items()}
    if "text" in texts:
        return Example(number, text=texts["text"])
    prompt, answer = texts["prompt"], texts["completion"]
    return Example(number, (Message(role="user", content=prompt), Message(role="assistant", content=answer)))


def _wrong_keys(found: Mapping[str, Any]) -> str:
    known = sorted({key for keys in _KEYS for key in keys})
    strange = next((key for key in found if key not in known), None)
    if strange is None:
        return f"it has the keys {', '.join(sorted(found)) or 'of nothing'}; {_FORMS}"
    guess = did_you_mean(strange, known)
    return f"it has an unknown key {strange[:40]!r}" + (f"; did you mean {guess}?" if guess else f"; {_FORMS}")


def _messages(path: Path, number: int, value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        _wrong(path, number, "messages is not a list of messages")
    messages = tuple(_message(path, number, each) for each in value)
    turns = [message["role"] for message in messages]
    spoken = turns[1:] if turns[0] == "system" else turns
    expected = [("user", "assistant")[i % 2] for i in range(len(spoken))]
    if spoken != expected or not spoken or spoken[-1] != "assistant":
        _wrong(path, number, f"the roles are {', '.join(turns)[:80]}: user and assistant take turns, assistant last")
    return messages


def _message(path: Path, number: int, value: object) -> Message:
    if not isinstance(value, dict) or set(value) != {"role", "content"}:
        _wrong(path, number, "a message has a role and a content, and nothing else")
    role = value["role"]
    if role not in _ROLES:
        guess = did_you_mean(role, _ROLES) if isinstance(role, str) else None
        _wrong(path, number, f"the role {role!r:.40} is not {', '.join(_ROLES)}" + (f"; {guess}?" if guess else ""))
    return Message(role=role, content=_text(path, number, f"the content of {role}", value["content"]))


def _text(path: Path, number: int, what: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        _wrong(path, number, f"{what} is empty or no text")
    return value


def _wrong(path: Path, number: int, why: str) -> NoReturn:
    raise UsageError(f"{path}, line {number}: {why}", hint="correct the line, or leave it out", line=number)
