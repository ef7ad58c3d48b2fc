"""The form of an answer: what is asked for, and holding the answer against it."""

import json
from pathlib import Path

import pytest

from edgellm.engine.installed import InstalledEngine
from edgellm.errors import AnswerMismatch, FileAccessError, UsageError
from edgellm.run.structure import from_options, from_schema

pytestmark = pytest.mark.engine
SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 150}, "name": {"type": "string"}},
    "required": ["age", "name"],
    "additionalProperties": False,
}


@pytest.fixture
def bindings(engine: InstalledEngine) -> Path:
    return engine.bindings


def test_an_answer_is_held_against_the_schema(bindings: Path) -> None:
    structure = from_schema(json.dumps(SCHEMA), bindings)
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


def test_options(bindings: Path, tmp_path: Path) -> None:
    schema, grammar = tmp_path / "s.json", tmp_path / "g.gbnf"
    schema.write_bytes(b"\xef\xbb\xbf" + json.dumps(SCHEMA).encode())
    grammar.write_text('root ::= "是" | "否"', encoding="utf-8")
    assert from_options(None, None, bindings) is None
    whole = from_options("json", None, bindings)
    assert whole is not None and "object" in whole.grammar
    named = from_options(str(schema), None, bindings)
    assert named is not None and "age-kv" in named.grammar
    free = from_options(None, grammar, bindings)
    assert free is not None and free.schema is None and "是" in free.grammar
    free.check("whatever")


def test_what_is_refused(bindings: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_bytes(b"\xff")
    huge = tmp_path / "huge"
    huge.write_bytes(b" " * 3_000_000)
    text = tmp_path / "text"
    text.write_text("not json")
    wrong = tmp_path / "wrong"
    wrong.write_text('{"type": "object", "properties": {"a": {"type": "string"}}, "required": "a"}')
    for path, said in ((bad, "not UTF-8"), (huge, "too large"), (text, "not JSON"), (wrong, "not a JSON schema")):
        with pytest.raises(UsageError, match=said):
            from_options(str(path), None, bindings)
    with pytest.raises(UsageError, match="exclude each other"):
        from_options("json", text, bindings)
    with pytest.raises(FileAccessError, match="cannot read"):
        from_options(str(tmp_path / "nosuch"), None, bindings)


def test_references_to_other_places_are_never_followed(bindings: Path) -> None:
    for schema in ({"$ref": "https://example.org/x"}, {"$dynamicRef": "https://example.org/x", "type": "object"}):
        try:
            structure = from_schema(json.dumps(schema), bindings)
        except UsageError:
            continue
        with pytest.raises(AnswerMismatch, match="cannot be held against"):
            structure.check("{}")
