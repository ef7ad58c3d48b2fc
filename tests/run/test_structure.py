"""The form of an answer: what is asked for, and holding the answer against it."""

import json
from pathlib import Path

import pytest

from edgellm.errors import AnswerMismatch, FileAccessError, UsageError
from edgellm.run.structure import choose_structure, from_options, from_schema

SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 150}, "name": {"type": "string"}},
    "required": ["age", "name"],
    "additionalProperties": False,
}


def test_an_answer_is_held_against_the_schema() -> None:
    structure = from_schema(json.dumps(SCHEMA))
    structure.check('{"age": 5, "name": "Ann"}')
    for answer, said in (
        ('{"age": 500, "name": "Ann"}', "500 is greater than the maximum of 150 at $.age"),
        ('{"age": 5}', "'name' is a required property"),
        ('{"age": 5, "name": "A', "Unterminated string"),
        ("[" * 100_000, ""),
        ("", "Expecting value"),
    ):
        with pytest.raises(AnswerMismatch) as caught:
            structure.check(answer)
        assert said in caught.value.why
    assert caught.value.exit_code == 1


def test_options(tmp_path: Path) -> None:
    schema, grammar = tmp_path / "s.json", tmp_path / "g.gbnf"
    schema.write_bytes(b"\xef\xbb\xbf" + json.dumps(SCHEMA).encode())
    grammar.write_text('root ::= "是" | "否"', encoding="utf-8")
    assert from_options(None, None) is None
    whole = from_options("json", None)
    assert whole is not None and "object" in whole.grammar
    named = from_options(str(schema), None)
    assert named is not None and "age" in named.grammar
    free = from_options(None, grammar)
    assert free is not None and free.schema is None and "是" in free.grammar
    free.check("whatever")


def test_what_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff")
    huge = tmp_path / "huge"
    huge.write_bytes(b" " * 5_000_000)
    text = tmp_path / "text"
    text.write_text("not json")
    wrong = tmp_path / "wrong"
    wrong.write_text('{"type": "object", "properties": {"a": {"type": "string"}}, "required": "a"}')
    for path, said in ((bad, "not a text"), (huge, "too large"), (text, "not JSON"), (wrong, "not a JSON schema")):
        with pytest.raises(UsageError, match=said):
            from_options(str(path), None)
    with pytest.raises(UsageError, match="exclude each other"):
        from_options("json", text)
    with pytest.raises(FileAccessError, match="there is no file"):
        from_options(str(tmp_path / "nosuch"), None)


def test_references_to_other_places_are_never_followed() -> None:
    for keyword in ("$ref", "$dynamicRef"):
        with pytest.raises(UsageError, match="leads nowhere") as caught:
            from_schema(json.dumps({keyword: "https://example.org/x", "type": "object"}))
        assert "never fetched" in caught.value.why


def test_a_schema_may_be_true_or_false() -> None:
    structure = choose_structure(True, None)
    assert structure is not None
    structure.check("[1, null]")
    with pytest.raises(AnswerMismatch):
        structure.check("NaN")
    with pytest.raises(UsageError, match="no grammar"):
        choose_structure(False, None)
