"""Suites from files: what is read, what is refused and how, and which items a limit takes."""

import json
from collections import Counter
from pathlib import Path

import pytest

from edgellm.errors import FileAccessError, UsageError
from edgellm.evaluation.suite import find_suite, list_suites, read_suite
from tests.evaluation.scripted import sums

GOOD = """
name = "mine"
title = "My questions"
system = "Be brief."
max_tokens = 40

[[items]]
id = "one"
prompt = "What is 1 + 1?"
check = { kind = "number", value = 2 }
category = "sums"
language = "zh"
schema = { type = "object" }
checked = true
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_suite_in_toml_and_its_category(tmp_path: Path) -> None:
    write(tmp_path / "mine.toml", GOOD)
    suite = find_suite("mine", [tmp_path])
    (item,) = suite.items
    assert (suite.title, suite.system, suite.max_tokens, suite.n_checked) == ("My questions", "Be brief.", 40, 1)
    assert (item.id, item.language, item.schema, item.check["value"]) == ("one", "zh", {"type": "object"}, 2)
    assert find_suite("mine/sums", [tmp_path]).items == suite.items
    with pytest.raises(UsageError) as wrong:
        find_suite("mine/sum", [tmp_path])
    assert "did you mean sums?" in wrong.value.why
    with pytest.raises(UsageError) as wrong:
        find_suite("mins", [tmp_path])
    assert "did you mean mine?" in wrong.value.why


def test_a_suite_in_json_lines_is_named_by_its_file(tmp_path: Path) -> None:
    lines = [{"id": f"q{n}", "prompt": "?", "check": {"kind": "finished"}} for n in range(3)]
    path = write(tmp_path / "qs.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n")
    assert (read_suite(path).name, len(read_suite(path).items)) == ("qs", 3)
    assert find_suite(str(path), []).digest == read_suite(path).digest


def test_the_digest_is_that_of_what_shapes_answers(tmp_path: Path) -> None:
    suite = read_suite(write(tmp_path / "mine.toml", GOOD))
    digests = {read_suite(write(tmp_path / "mine.toml", GOOD.replace(*change))).digest for change in (
        ("brief", "kind"), ("1 + 1", "1 + 2"), ("value = 2", "value = 3"), ("= 40", "= 41")
    )}  # fmt: skip
    assert len(digests | {suite.digest}) == 5
    assert read_suite(write(tmp_path / "mine.toml", GOOD.replace("My questions", "Ours"))).digest == suite.digest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (GOOD.replace("prompt", "promt"), "item one: unknown key promt, did you mean prompt?"),
        (GOOD.replace("title", "titel"), "unknown key titel, did you mean title?"),
        (GOOD.replace("[[items]]", "[items]"), "items"),
        (GOOD.replace('id = "one"', ""), "item 1: id"),
        (GOOD.replace('id = "one"', 'id = "a/b"'), "item a/b: id"),
        (GOOD + GOOD[GOOD.index("[[items]]") :], "two items have the id one"),
        ('name = "mine"', "it has no items"),
        ('name = "yours"', "its name is yours, and that of its file mine"),
        ('name = "x"\npasses = ["never"]', "passes"),
        ("name = ", "Invalid value"),
        ("a = " + "[" * 5000, "recursion"),
        ("x = 1979-05-27\nname='y'", "unknown key x"),
        ('name = "x"\nitems = [1]', "item 1"),
    ],
)
def test_a_wrong_suite_is_refused_with_the_place(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError) as wrong:
        read_suite(write(tmp_path / "mine.toml", text))
    assert why in wrong.value.why


@pytest.mark.parametrize(("line", "why"), [("[1]", "item 1"), ("{", "line 1"), ('{"id": "a"}', "item a: prompt")])
def test_wrong_lines_are_refused_with_their_number(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(UsageError) as wrong:
        read_suite(write(tmp_path / "mine.jsonl", line))
    assert why in wrong.value.why


def test_a_list_goes_on_after_a_wrong_file_and_the_users_come_last(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
    write(ours / "mine.toml", GOOD)
    write(theirs / "mine.toml", GOOD.replace("My questions", "Theirs"))
    write(theirs / "broken.toml", "name = 3")
    found = list_suites([ours, theirs, tmp_path / "nowhere"])
    assert [suite.title for suite in found.suites] == ["Theirs"]
    assert len(found.problems) == 1 and "broken.toml" in found.problems[0]
    with pytest.raises(FileAccessError):
        find_suite(str(tmp_path / "absent.toml"), [])


def test_a_limit_is_spread_evenly_and_takes_the_same_items_every_time() -> None:
    suite = sums(40)
    chosen = suite.limited(8)
    assert chosen == suite.limited(8) and len(chosen.items) == 8
    assert set(Counter((item.category, item.language) for item in chosen.items).values()) == {2}
    assert [item.id for item in chosen.items] == [item.id for item in suite.items if item in chosen.items]
    assert suite.limited(None) is suite and suite.limited(99) is suite
    for n_items in (6, 10):
        chosen = suite.limited(n_items)
        assert set(Counter(item.category for item in chosen.items).values()) == {n_items // 2}
        assert set(Counter(item.language for item in chosen.items).values()) == {n_items // 2}
    assert len(sums(4).limited(3).items) == 3
