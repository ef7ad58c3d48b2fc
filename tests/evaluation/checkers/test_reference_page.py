"""The page about suites: it has every kind and every parameter, and its examples are true."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.evaluation.checkers import KINDS, checker
from edgellm.evaluation.suite import read_suite
from edgellm.evaluation.verdict import GivenAnswer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "evaluation-suites.md"
TEXT = PAGE.read_text(encoding="utf-8")
FENCE = re.compile(r"^```toml\n(.*?)^```\n(.*?)(?=^```|^## |\Z)", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(.*)` \| (right|wrong) \|$", re.MULTILINE)


def examples() -> Iterator[Any]:
    for block, rest in FENCE.findall(TEXT):
        if block.startswith("check = "):
            check = tomllib.loads(block)["check"]
            yield pytest.param(check, ROW.findall(rest), id=check["kind"])


def section(kind: str) -> str:
    name = "all, any, not" if kind in ("all", "any", "not") else kind
    return TEXT.partition(f"\n## {name}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(("check", "rows"), list(examples()))
def test_the_examples_are_true(check: dict[str, Any], rows: list[tuple[str, str]]) -> None:
    assert rows
    if "equation" in check:
        pytest.importorskip("sympy")
    for text, expected in rows:
        found = checker(check).check(GivenAnswer(text.replace("\\n", "\n")))
        assert found.score == (expected == "right"), (text, found)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_parameter_is_described(kind: str) -> None:
    text = section(kind)
    assert f'kind = "{kind}"' in text
    names = [field.alias or name for name, field in KINDS[kind].model_fields.items()]
    assert not [name for name in names if f"`{name}" not in text]


def test_the_file_on_the_page_is_a_suite(tmp_path: Path) -> None:
    (block,) = [block for block, _ in FENCE.findall(TEXT) if "[[items]]" in block]
    (tmp_path / "mine.toml").write_text(block, encoding="utf-8")
    for item in read_suite(tmp_path / "mine.toml").items:
        checker(item.check)
