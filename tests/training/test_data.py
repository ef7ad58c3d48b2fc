"""Examples are read, and every fault is named with its line."""

import json
from pathlib import Path

import pytest

from edgellm.errors import EdgellmError, FileAccessError, UsageError
from edgellm.training import data
from edgellm.training.data import read_examples

CHAT = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


def written(tmp_path: Path, content: str | bytes, name: str = "x.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_the_three_forms_of_lines(tmp_path: Path) -> None:
    lines = [CHAT, '{"prompt": "a", "completion": "b"}', "", '{"text": "once"}']
    chat, pair, text = read_examples(written(tmp_path, "\n".join(lines)))
    assert chat.messages == pair.messages and [each["role"] for each in chat.messages] == ["user", "assistant"]
    assert (text.text, text.line) == ("once", 4)


def test_another_file_is_one_text(tmp_path: Path) -> None:
    assert [each.text for each in read_examples(written(tmp_path, "a\nb\n", "book.txt"))] == ["a\nb\n"]


def messages(*roles: str) -> str:
    return json.dumps({"messages": [{"role": role, "content": "x"} for role in roles]})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("[1]", "not an object"),
        ("{", "JSON is wrong"),
        ('{"promt": "a", "completion": "b"}', "did you mean prompt?"),
        ('{"prompt": "a"}', "it has the keys prompt"),
        ('{"text": ""}', "text is empty"),
        ('{"text": 3}', "text is empty or no text"),
        ('{"text": "\\ud800"}', "surrogate"),
        ('{"text": "a", "text": "b"}', "twice"),
        ('{"messages": []}', "not a list of messages"),
        ('{"messages": [{"role": "user"}]}', "a role and a content"),
        ('{"messages": [{"role": "asistant", "content": "x"}]}', "assistant?"),
        (messages("user"), "assistant last"),
        (messages("assistant"), "take turns"),
        (messages("system", "assistant"), "take turns"),
        (messages("user", "user", "assistant"), "take turns"),
        (messages("system"), "take turns"),
    ],
    ids=range(16),
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(UsageError, match="line 2") as caught:
        read_examples(written(tmp_path, f"{CHAT}\n{line}\n{CHAT}\n"))
    assert why in caught.value.what


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 2"):
        read_examples(written(tmp_path, CHAT.encode() + b'\n{"text": "\xff\xfe"}\n'))


def test_a_line_without_an_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "MOST_LINE_BYTES", 1 << 10)
    with pytest.raises(UsageError, match="line 2: it is longer"):
        read_examples(written(tmp_path, f'{CHAT}\n{{"text": "{"x" * 5000}"}}'))


@pytest.mark.parametrize("content", ["", "\n\n"])
@pytest.mark.parametrize("name", ["x.jsonl", "x.txt"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str, name: str) -> None:
    with pytest.raises(UsageError, match="no examples"):
        read_examples(written(tmp_path, content, name))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl", tmp_path / "none.txt"):
        with pytest.raises(FileAccessError):
            read_examples(path)
    with pytest.raises(EdgellmError):
        read_examples(written(tmp_path, b"\xff\xfe\x00", "x.txt"))
