"""The log of an evaluation: a header, then one line an item, as JSON Lines.

    write_log(path, header, items)
    header, items = read_log(path)

A log holds all that was asked, answered and judged, so it can be read, compared and judged again without the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from edgellm.errors import CorruptFile, FileAccessError
from edgellm.evaluation.verdict import GivenAnswer
from edgellm.files import write_atomically

VERSION = 1
MARK = "edgellm_eval"
# A full log of all suites takes a few megabytes.
LARGEST_LOG = 1 << 30
LONGEST_LINE = 64 << 20
# No count and no time is as large, and sums of them stay exact.
LARGEST_NUMBER = 1e12


@dataclass(frozen=True, slots=True)
class LogHeader:
    """What was evaluated, and how.

    `date` is ISO 8601 in UTC. `fingerprint` is the sha256 of the model's content. `engine` is llama.cpp's version,
    `stamp` that of our patches, `machine` the CPU. `settings` has the options that shape answers, by name; `suites`
    the digest of each suite.
    """

    date: str
    model: str
    fingerprint: str
    engine: str
    stamp: str
    machine: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    suites: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoggedItem:
    """One answer and its verdict.

    `pass_name` is empty unless the suite asks every item in several ways; the file calls it "pass". `finish_reason` is
    stop, length, repetition, or error: then `why` says what failed, and there is no answer. Times are in seconds;
    `prefill_seconds` is the time to the first token.
    """

    suite: str
    item: str
    category: str
    language: str
    pass_name: str
    messages: tuple[Mapping[str, str], ...]
    answer: str
    finish_reason: str
    check: Mapping[str, Any]
    seen: str
    score: float
    why: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    def key(self) -> tuple[str, str, str]:
        """What it is in every log: suite, item, pass."""
        return self.suite, self.item, self.pass_name

    @property
    def is_right(self) -> bool:
        """Whether it has the full score."""
        return self.score >= 1

    def given(self) -> GivenAnswer:
        """The answer as a checker takes it."""
        return GivenAnswer(
            self.answer, self.finish_reason, self.prompt_tokens, self.completion_tokens, self.prefill_seconds,
            self.decode_seconds,
        )  # fmt: skip


def is_log(path: Path) -> bool:
    """Whether a file is a log, by its first bytes."""
    try:
        with path.open("rb") as file:
            return file.read(len(MARK) + 2).startswith(f'{{"{MARK}'.encode())
    except OSError:
        return False


def write_log(path: Path, header: LogHeader, items: Iterable[LoggedItem]) -> None:
    """Write a whole log, or nothing."""
    lines = [{MARK: VERSION, **asdict(header)}, *map(_as_line, items)]
    write_atomically(path, b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))


def _as_line(item: LoggedItem) -> dict[str, Any]:
    return {"pass" if name == "pass_name" else name: value for name, value in asdict(item).items()}


def read_log(path: Path) -> tuple[LogHeader, tuple[LoggedItem, ...]]:
    """The header and the items of a log.

    Raises:
        FileAccessError: there is no such file, or it cannot be read.
        CorruptFile: it is no log of edgellm eval, or a line of it is damaged.
    """
    items: dict[tuple[str, str, str], LoggedItem] = {}
    header = None
    try:
        if path.stat().st_size > LARGEST_LOG:
            raise _corrupt(path, 1, f"it has more than {LARGEST_LOG >> 30} GiB")
        with path.open("rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), 1):
                data = _object(path, number, line)
                if header is None:
                    header = _header(path, data)
                    continue
                item = _item(path, number, data)
                if item.key() in items:
                    raise _corrupt(path, number, f"{item.suite}/{item.item} stands there twice")
                items[item.key()] = item
    except OSError as error:
        raise FileAccessError(f"cannot read {path}", why=str(error.strerror), path=str(path)) from error
    if header is None:
        raise _corrupt(path, 1, "it is empty")
    return header, tuple(items.values())


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise _corrupt(path, number, f"the line has more than {LONGEST_LINE >> 20} MiB")
    if not line.endswith(b"\n"):
        raise _corrupt(path, number, "the line is cut off")
    try:
        data = json.loads(line)
        if b"\\ud" in line.lower():  # half a character would be an error only when it is written or shown
            json.dumps(data, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, number, str(error)) from error
    if not isinstance(data, dict):
        raise _corrupt(path, number, "the line is no JSON object")
    return data


def _header(path: Path, data: dict[str, Any]) -> LogHeader:
    if MARK not in data:
        raise _corrupt(path, 1, f"its first line has no {MARK}")
    if (version := data.pop(MARK)) != VERSION:
        raise _corrupt(path, 1, f"its version is {version!r:.20}, and this edgellm reads {VERSION}")
    found: LogHeader = _made(path, 1, LogHeader, data)
    return found


def _item(path: Path, number: int, data: dict[str, Any]) -> LoggedItem:
    data["pass_name"] = data.pop("pass", "")
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise _corrupt(path, number, "messages is no list of messages")
    data["messages"] = tuple(messages)
    item: LoggedItem = _made(path, number, LoggedItem, data)
    if item.score > 1:
        raise _corrupt(path, number, f"score is from 0 to 1, not {item.score!r:.20}")
    return item


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("role", "content"))


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": (int, float), "Mapping[str, Any]": dict, "Mapping[str, str]": dict,
    "tuple[Mapping[str, str], ...]": tuple,
}  # fmt: skip


def _made(path: Path, number: int, kind: type[Any], data: dict[str, Any]) -> Any:
    """A line as what it stands for; keys that a later edgellm may add are ignored."""
    known = {each.name: each for each in fields(kind)}
    for name, each in known.items():
        value = data.get(name)
        if not isinstance(value, _KINDS[str(each.type)]) or isinstance(value, bool):
            raise _corrupt(path, number, f"{name} is absent" if value is None else f"{name} is {value!r:.40}")
        if isinstance(value, (int, float)) and not 0 <= value <= LARGEST_NUMBER:
            raise _corrupt(path, number, f"{name} is out of range")
    return kind(**{name: data[name] for name in known})


def _corrupt(path: Path, number: int, why: str) -> CorruptFile:
    what = f"{path} is no log of edgellm eval" if number == 1 else f"line {number:,} of {path} is damaged"
    return CorruptFile(what, why=why, hint="edgellm eval MODEL writes one", path=str(path), line=number)
