"""The examples in docstrings name things that exist, pass arguments that fit, and state values that are true."""

import ast
from pathlib import Path

import pytest

from edgellm import diagnosis
from tests.docstring_examples import PACKAGE, Example, examples, problems

# Remove a line when its folder's examples are right.
SKIPPED = (
    "serve/",
    "ui/",
    "commands/",
    "batch/",
    "chats/",
    "run/",
    "wire/",
    "api.py",
    "machine/child.py",
)
MODULES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "__main__.py" and not path.relative_to(PACKAGE).as_posix().startswith(SKIPPED)
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_examples_are_right(path: Path) -> None:
    found = [problem for example in examples(path) for problem in problems(example)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("diagnos(settings, stack, store, recipe)", "there is no 'diagnos'"),
        ("diagnose(settings, stack, store, recipe)", "missing a required argument: 'hub'"),
        ("diagnose(settings, stack, store, recipe, hub, quick=True)", "unexpected keyword argument 'quick'"),
        ("settings.engine", "Settings has no 'engine'"),
        ("for check in diagnose(settings, stack, store, recipe, hub): check.okay", "Check has no 'okay'"),
        ("with locked(path) as lock: lock.fileno()\nlocked(path, lambda: None, 1)", "too many positional arguments"),
    ],
)
def test_a_wrong_example_is_found(code: str, problem: str) -> None:
    (found,) = problems(Example(PACKAGE / "diagnosis.py", diagnosis, ast.parse(code)))
    assert problem in found


def test_a_wrong_value_is_found() -> None:
    code, path = 'did_you_mean("smolm2", ["smollm2"])', PACKAGE / "suggest.py"
    (example,) = examples(path)
    assert ast.unparse(example.tree) == ast.unparse(ast.parse(code)) and not problems(example)
    example.values = {example.tree.body[0].lineno: '"smollm3"'}
    assert problems(example) == ["edgellm/suggest.py:3: gives 'smollm2', not 'smollm3'"]


def test_most_modules_have_an_example() -> None:
    """A parser that no longer recognises examples would pass every test above."""
    assert sum(any(True for _ in examples(path)) for path in MODULES) > 0.7 * len(MODULES)
