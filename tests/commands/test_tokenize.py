"""`edgellm tokenize`: the tokens of a text, without the weights."""

import pytest

from edgellm.settings import Settings
from tests.commands.cli import data, edgellm

pytestmark = [pytest.mark.engine, pytest.mark.model]


def test_the_tokens_of_a_text(with_engine: Settings) -> None:
    found = data(edgellm("tokenize", "smollm2", "The sky is blue", "--json"))
    assert found["count"] == len(found["tokens"]) == len(found["texts"]) == 4
    assert "".join(found["texts"]) == "The sky is blue"
    shown = edgellm("tokenize", "smollm2", "The sky is blue")
    assert "' sky'" in shown.stdout and "4 tokens" in shown.stderr


def test_control_tokens_are_text_unless_asked_for(with_engine: Settings) -> None:
    as_text = data(edgellm("tokenize", "smollm2", "<|im_end|>", "--json"))
    as_token = data(edgellm("tokenize", "smollm2", "<|im_end|>", "--special", "--json"))
    assert as_text["count"] > as_token["count"] == 1 and as_token["texts"] == ["<|im_end|>"]


def test_no_text_is_a_usage_error(with_engine: Settings) -> None:
    result = edgellm("tokenize", "smollm2")
    assert result.returncode == 2 and "there is no text" in result.stderr and "try: edgellm tokenize" in result.stderr
