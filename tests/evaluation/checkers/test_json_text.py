"""JSON in answers: strict, lenient, against a schema and against values."""

from typing import Any

import pytest

from tests.evaluation.checkers.grade import right, verdict

PERSON: dict[str, Any] = {
    "kind": "json",
    "schema": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
    "values": {"age": 36, "tags[1]": "b", "home.city": "北京"},
}
TEXT = '{"name": "李", "age": 36, "tags": ["a", "b"], "home": {"city": "北京"}}'


def test_json_that_matches() -> None:
    assert right(PERSON, f" {TEXT}\n")
    assert right(PERSON, TEXT.replace("36", "36.0"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (TEXT.replace("36", "37"), "age is 37, 36 is right"), (TEXT.replace("36", '"36"'), 'age is "36", 36 is right'),
        (TEXT.replace('["a", "b"]', '["a"]'), "there is no tags[1]"), (TEXT.replace("李", "李\\").replace("\\",
        ""), ""),
        (TEXT.replace('"李"', "5"), "5 is not of type 'string' at $.name"), ("{}", "'name' is a required property"),
        (f"```json\n{TEXT}\n```", "it is not JSON, but has JSON in it"), ("NaN", "it is not JSON"), ("",
        "it is not JSON"),
        ("[" * 100_000, "it is not JSON"), (TEXT.replace("36", "true"), "age is true, 36 is right"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(text: str, why: str) -> None:
    found = verdict(PERSON, text)
    assert found.why.startswith(why)
    assert found.score == (0 if why else 1)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"```json\n{TEXT}\n```",
        f"```\n{TEXT}```",
        f"Here: {TEXT} Good?",
        f"Not {{this}}, but\n{TEXT}",
        f"```\nx\n```\n{TEXT}",
    ],
)
def test_a_lenient_check_finds_json_in_a_text(text: str) -> None:
    assert right({**PERSON, "lenient": True}, text)


def test_a_lenient_check_still_needs_json() -> None:
    assert not right({**PERSON, "lenient": True}, "name: 李, age: 36")
    assert not right({"kind": "json", "lenient": True}, "5 apples")
