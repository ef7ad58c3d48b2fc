"""Code in answers, which really runs in the sandbox."""

from typing import Any

import pytest

from edgellm.evaluation.checkers.program import last_block
from tests.evaluation.checkers.grade import right, verdict

COUNT: dict[str, Any] = {"kind": "python", "stdout": "1\n2\n"}
SQUARE: dict[str, Any] = {"kind": "python", "cases": {"f(2)": 4, "f(0)": 0, "pair": [1, "a"]}}
SQUARE_CODE = "pair = (1, 'a')\ndef f(x):\n    return x * x\n"


def test_what_code_prints() -> None:
    assert right(COUNT, "Sure:\n```python\nfor i in range(1, 3):\n    print(i)\n```\nDone.")
    assert right(COUNT, "```py\nprint('1 ')\nprint(2)\n\n")
    assert not right(COUNT, "print(1)")
    assert verdict(COUNT, "That is easy.").why == "SyntaxError: invalid syntax"
    assert verdict(COUNT, "").why == "there is no code"
    assert right({"kind": "python", "stdin": "4\n5\n", "stdout": "9"}, "print(int(input()) + int(input()))")


def test_values_of_expressions() -> None:
    assert right(SQUARE, f"```python\n{SQUARE_CODE}```")
    assert verdict(SQUARE, SQUARE_CODE.replace("x * x", "x")).why == "f(2) is 2, 4 is right"
    assert verdict(SQUARE, SQUARE_CODE.replace("x * x", "1 / 0")).why.startswith("f(2) is ZeroDivisionError")


def test_assertions() -> None:
    check = {"kind": "python", "assertions": ["f(2) == 4", "assert f(3) == 9"]}
    assert right(check, SQUARE_CODE)
    assert not right(check, SQUARE_CODE.replace("x * x", "4"))


@pytest.mark.parametrize(
    "cheat",
    [
        "import os\nos._exit(0)",
        "import sys\nsys.exit(0)",
        "class Anything:\n    def __eq__(self, other): return True\ndef f(x): return Anything()",
        "print('4\\n0\\n(1, \"a\")')\nraise SystemExit",
    ],
)
def test_code_cannot_pass_without_the_right_values(cheat: str) -> None:
    assert not right(SQUARE, cheat)


def test_statements_and_imports_without_a_run() -> None:
    check = {"kind": "python", "uses": ["while", "def"], "imports": ["pygame"]}
    assert right(check, "import pygame\ndef main():\n    while True:\n        pass\nmain()")
    assert verdict(check, "def main(): pass").why == "it does not use while, import pygame"
    assert verdict(check, "def main(").why.startswith("SyntaxError")


def test_endless_code_is_stopped() -> None:
    found = verdict({**COUNT, "seconds": 0.5}, "print(1)\nwhile True: pass")
    assert (found.seen, found.why) == ("1", "it took more than 0.5 s")


def test_the_last_python_block_counts() -> None:
    assert last_block("```python\na\n```\nand\n```python\nb\n```\n```sh\nc\n```") == "b\n"
    assert last_block("```\na\n```\n```sh\nc\n```") == "a\n"
    assert last_block("```sh\nc\n```") == ""
    assert last_block("a") == "a"
