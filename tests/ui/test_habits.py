"""Options that may stand alone: their value is the next word only if it looks like one."""

import pytest

from edgellm.cli import RAY_ADDRESS
from edgellm.ui.habits import value_given


@pytest.mark.parametrize(
    ("typed", "parsed"),
    [
        ("in.jsonl --ray", "in.jsonl --ray auto"),
        ("--ray in.jsonl -o out.jsonl", "--ray auto in.jsonl -o out.jsonl"),
        ("--ray -o out.jsonl", "--ray auto -o out.jsonl"),
        ("--ray auto in.jsonl", "--ray auto in.jsonl"),
        ("--ray 10.0.0.1:6379 in.jsonl", "--ray 10.0.0.1:6379 in.jsonl"),
        ("--ray [::1]:6379 in.jsonl", "--ray [::1]:6379 in.jsonl"),
        ("--ray ray://head:10001", "--ray ray://head:10001"),
        ("--ray=head:1 in.jsonl", "--ray=head:1 in.jsonl"),
        ("in.jsonl -- --ray", "in.jsonl -- --ray"),
    ],
)
def test_an_address_is_taken_and_a_file_is_not(typed: str, parsed: str) -> None:
    assert value_given(typed.split(), "--ray", "auto", RAY_ADDRESS) == parsed.split()
