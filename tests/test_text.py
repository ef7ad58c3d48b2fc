"""Text from outside: every encoding is understood or refused by name."""

import io
from pathlib import Path

import pytest

from edgellm.errors import CorruptFile, FileAccessError, NotText, UsageError
from edgellm.formats.json_object import parse_object
from edgellm.models.recipe import load_recipe
from edgellm.settings import resource_directory
from edgellm.text import decode_text, read_text, text_lines, typed_text

TEXT = "Grüße, 世界\n😀"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_a_mark_says_how_a_text_is_encoded(encoding: str, tmp_path: Path) -> None:
    mark = "\ufeff" if encoding.endswith(("le", "be")) else ""
    data = (mark + TEXT).encode(encoding)
    path = tmp_path / "text"
    path.write_bytes(data)
    assert decode_text(data, "x") == read_text(path) == TEXT
    assert "".join(text_lines(io.BytesIO(data), "x")) == TEXT


def test_without_text_there_is_none() -> None:
    assert decode_text(b"", "x") == decode_text(b"\xef\xbb\xbf", "x") == decode_text(b"\xff\xfe", "x") == ""
    assert not "".join(text_lines(io.BytesIO(b""), "x"))


@pytest.mark.parametrize(
    ("data", "why", "hint"),
    [
        ("né".encode("latin-1"), "0xe9", "iconv -f LATIN1"),
        ("Hello".encode("utf-16-le"), "UTF-16LE without a byte order mark", "iconv -f UTF-16LE"),
        ("Hello".encode("utf-16-be"), "UTF-16BE without a byte order mark", "iconv -f UTF-16BE"),
        (b"Hello\0there", "zero bytes", "UTF-8"),
        (b"\xff\xfeH", "truncated", "UTF-8"),
        (b"\xff\xfeH\0\0\0", "zero bytes", "UTF-8"),
        (b"GGUF\x03\0\0\0\x92", "zero bytes", "UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, why: str, hint: str) -> None:
    with pytest.raises(NotText) as refused:
        decode_text(data, "notes.txt")
    assert "notes.txt is not a text" in refused.value.what
    assert why in refused.value.why and hint in refused.value.hint


def test_lines_come_as_they_are_read() -> None:
    lines = text_lines(io.BytesIO(b"\xef\xbb\xbfone\ntwo\n\xff\n"), "x")
    assert [next(lines), next(lines)] == ["one\n", "two\n"]
    with pytest.raises(NotText):
        next(lines)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="there is no file"):
        read_text(tmp_path / "nothing")
    with pytest.raises(FileAccessError, match="cannot read"):
        read_text(tmp_path)
    with pytest.raises(UsageError, match="too large"):
        read_text(Path("/dev/zero"), limit=10)


def test_json_and_recipes_of_other_systems(tmp_path: Path) -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        assert parse_object('{"é": 1}'.encode(encoding), name="config.json") == {"é": 1}
    with pytest.raises(CorruptFile, match=r"config\.json is corrupt"):
        parse_object('{"é": 1}'.encode("latin-1"), name="config.json")
    recipe = resource_directory("recipes") / "smollm2.toml"
    copied = tmp_path / "smollm2.toml"
    copied.write_text(recipe.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_recipe(copied) == load_recipe(recipe)
    copied.write_bytes(b'name = "caf\xe9"')
    with pytest.raises(CorruptFile, match="cannot be read"):
        load_recipe(copied)


def test_arguments() -> None:
    assert typed_text("\ufeffGrüße", "x") == "Grüße"
    assert typed_text("Grüße".encode().decode("ascii", "surrogateescape"), "x") == "Grüße"
    for wrong in ("caf\udce9", "\ud800"):
        with pytest.raises(NotText):
            typed_text(wrong, "prompt")
