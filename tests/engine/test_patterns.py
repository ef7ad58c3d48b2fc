"""Rewritten patterns of schemas match the JSON texts of the same strings, and only those."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgellm.engine.grammar.patterns import (
    PatternInvalid,
    PatternUnsupported,
    as_grammar,
    rewrite,
)

CHARACTERS = 'ab19_- ."\\/\n\té{}[]()|^$*+?,'
LITERALS = st.sampled_from([re.escape(each) for each in CHARACTERS])
CLASSES = st.sampled_from(
    [".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[ab1]", "[^ab]", r"[\d\-]", r"[^\w\"]", "[!-~]"]
)
QUANTIFIERS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "{0}"])


def longer(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeated = st.builds("{}{}".format, parts.map("({})".format), QUANTIFIERS)
    return st.one_of(
        repeated, st.builds("{}{}".format, parts, parts), st.builds("(?:{}|{})".format, parts, parts), st.just("()")
    )


ATOMS = st.builds("{}{}".format, st.one_of(LITERALS, CLASSES), QUANTIFIERS)
BODIES = st.recursive(ATOMS, longer, max_leaves=5)
ANCHORS = st.booleans(), st.booleans()


@given(BODIES, *ANCHORS, st.lists(st.text(CHARACTERS, max_size=6), min_size=5, max_size=5))
def test_the_same_strings_match(body: str, begins: bool, ends: bool, texts: list[str]) -> None:
    pattern = f"{'^' * begins}{body}{'$' * ends}"
    new = re.compile(rewrite(pattern))
    # Python's `$` also matches before a line's end.
    old = re.compile("^" * begins + body + r"\Z" * ends, re.ASCII)
    for text in texts:
        said = json.dumps(text, ensure_ascii=False)[1:-1]
        if new.fullmatch(said):
            assert old.search(text), (pattern, text)
        elif text.isprintable() and not {'"', "\\"} & set(text):
            assert not old.search(text), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        (r"^\d{3}-\w+$", ["123-x_9"], ["12-x", "123-", "123-é"]),
        ("b+", ["b", "abba"], ["", "a"]),
        ("^a|b$", ["ax", "xb"], ["xa", "bx"]),
        (r'^say "\w+"$', [r"say \"hi\""], ['say "hi"']),
        (r"^[\\/]$", [r"\\", "/"], ["\\"]),
        (r"^a\nb$", [r"a\nb"], ["a\nb"]),
        (r"^\u00e9\x41(?<n>b)$", ["éAb"], ["Ab"]),
        ("^$", [""], ["a"]),
        ("", ["", "a"], ['"']),
        ("^(a|)$", ["", "a"], ["b"]),
    ],
)
def test_what_matches(pattern: str, matches: list[str], others: list[str]) -> None:
    new = re.compile(rewrite(pattern))
    assert all(map(new.fullmatch, matches)) and not any(map(new.fullmatch, others)), new.pattern


@pytest.mark.parametrize(
    "pattern",
    ["^a{3,1}$", "^[z-a]$", "^[]$", "^[a", "^(a", "a)", "a**", "a{2}{3}", "^*a$", "{3}", "\\"],
)
def test_what_is_wrong(pattern: str) -> None:
    with pytest.raises(PatternInvalid):
        rewrite(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["^(?=a)b$", "(?!a)", "(?<!a)b", r"^\p{L}$", r"\bfoo", r"(a)\1", "a{1000}", "^(a$|b)", "a^b", "(" * 60, r"^\x01$",
     "a" * 5000],
)  # fmt: skip
def test_what_no_grammar_says(pattern: str) -> None:
    with pytest.raises(PatternUnsupported):
        rewrite(pattern)


def test_a_repeated_group_is_a_rule_of_its_own() -> None:
    rules: list[str] = []

    def add(body: str) -> str:
        rules.append(body)
        return f"rule-{len(rules)}"

    assert as_grammar("^(ab){2,30}$", add) == "( rule-1{2,30})"
    assert rules == [r"([\x61][\x62])"]
    assert as_grammar("^$", add) == '""'
