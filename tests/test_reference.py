"""The reference page is what the program says of itself."""

import pytest

from tests.reference import PAGES, PARTS, page
from tests.shapes import commands, lazy, mismatch, returned


@pytest.mark.parametrize("name", PARTS)
def test_the_reference_is_up_to_date(name: str) -> None:
    assert page(name) == (PAGES / name).read_text(), "run: python -m tests.reference"


@pytest.mark.parametrize("command", list(commands()))
def test_every_verb_takes_json_and_says_what_it_returns(command: str) -> None:

    flags = [flag for parameter in lazy(command).load().params for flag in parameter.opts]
    assert "--json" in flags and returned(command) is not None


def test_a_document_that_breaks_its_promise_is_found() -> None:
    good = {"client": "curl", "target": None, "text": "x"}
    assert mismatch(good, returned("connect")) == ""
    assert "text" in mismatch({"client": "curl", "target": None}, returned("connect"))
    assert "data.text" in mismatch(good | {"text": 1}, returned("connect"))
    assert mismatch([], returned("ps")) == "" and mismatch([], returned("env")) == "data is no object"
    assert "data[0].id" in mismatch([{"id": None}], returned("chats rm"))
