"""Chunks: nothing is lost, nothing is too long, tables keep their header, and each knows its place."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.documents.chunks import TextChunk, cut
from edgellm.documents.elements import Element, Note
from edgellm.documents.language import is_english, is_foreign_script
from edgellm.documents.words import indexed, terms


def count(text: str) -> int:
    return len(text.split())


def chunks(*elements: Element | Note, size: int = 20) -> list[TextChunk]:
    return [chunk for chunk in cut(elements, count, size=size) if isinstance(chunk, TextChunk)]


def test_short_elements_share_a_chunk_under_the_path_of_headings() -> None:
    (chunk,) = chunks(
        Element("heading", "Guide", 1, line=1), Element("heading", "Setup", 2, line=2),
        Element("text", "Plug it in.", line=4), Element("list", "- one\n- two", line=6),
    )  # fmt: skip
    assert chunk.text == "Guide\n\nSetup\n\nPlug it in.\n\n- one\n- two" and chunk.heading == "Guide"
    assert chunk.lines == (1, 7)


def test_a_heading_ends_a_chunk_that_is_long_enough() -> None:
    first, second = chunks(
        Element("heading", "A", 1), Element("text", "word " * 15), Element("heading", "B", 1), Element("text", "b " * 9)
    )
    assert first.heading == "A" and second.heading == "B" and second.text.startswith("B\n")


def test_a_long_table_is_cut_between_rows_and_repeats_its_header() -> None:
    rows = [f"row {number} | {number * 10}" for number in range(12)]
    found = chunks(Element("table", "\n".join(["name | value", *rows]), line=1))
    assert len(found) > 2 and all(chunk.text.startswith("name | value\n") for chunk in found)
    lines = [line for chunk in found for line in chunk.text.splitlines()[1:]]
    assert lines == rows and found[1].lines[0] == found[0].lines[1] + 1


def test_sentences_are_not_cut_and_overlap() -> None:
    text = " ".join(f"Sentence number {number} stands here." for number in range(30))
    found = chunks(Element("text", text), size=60)
    assert all(chunk.text.endswith(".") and chunk.n_tokens <= 60 for chunk in found)
    for before, after in pairwise(found):
        assert after.n_repeated and before.text.endswith(after.text[: after.n_repeated].strip())


def test_pages_are_not_mixed() -> None:
    found = chunks(Element("text", "one two.", page=1), Element("text", "three four.", page=2))
    assert [(chunk.page, chunk.text) for chunk in found] == [(1, "one two."), (2, "three four.")]


def test_notes_are_passed_on() -> None:
    assert list(cut([Note("page 8 is an image")], count)) == [Note("page 8 is an image")]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["text", "list", "table", "code", "heading"]),
            st.text(st.sampled_from("ab .\n|é汉"), min_size=1, max_size=300),
        ),
        max_size=8,
    )
)
def test_no_word_is_lost(drawn: list[tuple[str, str]]) -> None:
    elements = [Element(kind, text, level=1, line=1) for kind, text in drawn if text.strip()]  # type: ignore[arg-type]
    found = chunks(*elements, size=10)
    # Words longer than a chunk may be divided: compare characters.
    kept = "".join("".join(chunk.text.split()) for chunk in found)
    for element in elements:
        for word in element.text.split():
            assert all(part in kept for part in word)
    assert all(chunk.n_tokens <= 25 for chunk in found)


def test_ideographs_go_in_pairs() -> None:
    assert indexed("重置密码now").split() == ["重置", "置密", "密码", "now"]
    assert terms("如何重置密码？") == ["何重", "重置", "置密", "密码"]
    assert terms("How do I reset the password?") == ["reset", "password"]
    assert terms("what is it") == ["what", "is", "it"]
    assert is_foreign_script("保修期 24") and not is_foreign_script("the 保 warranty of the device is long")


@pytest.mark.parametrize(
    ("text", "english"),
    [
        ("The warranty is 24 months from the date of purchase.", True), ("x = 1\nprint(x)", True), ("12,5;13,0", True),
        ("", True), ("Die Garantie ist auf zwei Jahre begrenzt und gilt nicht für den Akku.", False),
        ("La garantie est de deux ans et ne couvre pas les accessoires.", False), ("保修期是二十四个月", False),
        ("Гарантия действует два года", False), ("ضمان لمدة عامين", False),
        ("De garantie is niet van toepassing op het glas.", False),
    ],
)  # fmt: skip
def test_english_is_told_from_other_languages(text: str, english: bool) -> None:
    assert is_english(text) == english
