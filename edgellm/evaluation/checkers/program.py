"""The kind `python`: the code of an answer is run in the sandbox, and does what it should.

PythonChecker(stdout="1\\n2\\n").check(GivenAnswer("for n in (1, 2): print(n)")).score  ->  1.0
"""

from __future__ import annotations

import ast
import math
import re
import secrets
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edgellm.evaluation.checkers.base import MOST_TEXT, CheckerModel, right, shown, verdict, wrong
from edgellm.evaluation.verdict import GivenAnswer, Verdict
from edgellm.sandbox.run import CodeLimits, Ran, require_closed, run

Expression = Annotated[str, Field(min_length=1, max_length=2000)]
Statement = Literal["async", "class", "def", "for", "lambda", "return", "try", "while", "with", "yield"]
_NODES = {
    "async": "AsyncFunctionDef", "class": "ClassDef", "def": "FunctionDef", "for": "For", "lambda": "Lambda",
    "return": "Return", "try": "Try", "while": "While", "with": "With", "yield": "Yield",
}  # fmt: skip
_BLOCK = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+.-]*)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
# Characters of a value that are compared.
MOST_VALUE = 20_000
# What runs in the sandbox. The mark before a value keeps it apart from what the code prints.
_VALUES = """
import sys
out, scope = sys.stdout, {"__name__": "answer"}
try:
    exec(compile(CODE, "answer.py", "exec"), scope)
except SystemExit:
    pass
for each in EXPRESSIONS:
    try:
        value = repr(eval(each, scope))
    except BaseException as error:
        value = "!" + type(error).__name__ + ": " + str(error)
    out.write("\\n" + MARK + value[:MOST].replace("\\n", " ") + "\\n")
"""
_NAMES = """
import ast
tree = ast.parse(CODE, "answer.py")
nodes = {type(node).__name__ for node in ast.walk(tree)}
imports = {alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
imports |= {(node.module or "").split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
print(" ".join(sorted(nodes | {"import:" + name for name in imports})))
"""


class PythonChecker(CheckerModel):
    """Whether the last Python block of the answer (without blocks: all of it) does what it should.

    Given `stdin`, it prints `stdout`. After it has run, each expression of `cases` has that value, and each of
    `assertions` is true. It has the statements of `uses` and imports the modules of `imports`. If nothing of this is
    to be run, the code must only be Python. `seconds` is the most time for one run.
    """

    stdin: Annotated[str, Field(max_length=MOST_TEXT)] = ""
    stdout: Annotated[str, Field(max_length=MOST_TEXT)] | None = None
    cases: dict[Expression, Any] = Field(default_factory=dict, max_length=200)
    assertions: Annotated[tuple[Expression, ...], Field(max_length=200)] = ()
    uses: tuple[Statement, ...] = ()
    imports: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    seconds: Annotated[float, Field(gt=0, le=60)] = 5.0

    @model_validator(mode="after")
    def _can_run(self) -> PythonChecker:
        for each in (*self.cases, *map(_condition, self.assertions)):
            try:
                ast.parse(each, mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                raise ValueError(f"{each[:80]!r} is no Python expression") from None
        require_closed()
        return self

    def check(self, answer: GivenAnswer) -> Verdict:
        """Run the code."""
        code = last_block(answer.text[-MOST_TEXT:])
        if not code.strip():
            return wrong("there is no code", answer.text[-100:])
        steps = [self._check_names(code)] if self.uses or self.imports or not self._is_run else []
        steps += [self._check_output(code)] if self.stdout is not None and _passed(steps) else []
        steps += [self._check_values(code)] if (self.cases or self.assertions) and _passed(steps) else []
        return steps[-1]

    @property
    def _is_run(self) -> bool:
        return bool(self.stdout is not None or self.cases or self.assertions)

    def _run(self, program: str, stdin: str = "") -> Ran:
        return run(program, stdin, CodeLimits(seconds=self.seconds))

    def _check_names(self, code: str) -> Verdict:
        ran = self._run(f"CODE = {code!r}\n{_NAMES}")
        if ran.exit != 0:
            return wrong(_fault(ran), code)
        names = set(ran.stdout.split())
        missing: list[str] = [each for each in self.uses if _NODES[each] not in names]
        missing += [f"import {each}" for each in self.imports if f"import:{each}" not in names]
        return verdict(not missing, f"it does not use {', '.join(missing)}", code)

    def _check_output(self, code: str) -> Verdict:
        ran = self._run(code, self.stdin)
        if ran.exit != 0:
            return wrong(_fault(ran), ran.stdout or code)
        return verdict(_lines(ran.stdout) == _lines(self.stdout or ""), f"{self.stdout!r} is right", ran.stdout)

    def _check_values(self, code: str) -> Verdict:
        """Compare values out here: the expected ones of `cases` are unknown to the code."""
        expected = {**self.cases, **{_condition(each): True for each in self.assertions}}
        mark = secrets.token_hex(16)
        data = f"CODE, EXPRESSIONS, MARK, MOST = {code!r}, {list(expected)!r}, {mark!r}, {MOST_VALUE}"
        ran = self._run(f"{data}\n{_VALUES}", self.stdin)
        found = [line.removeprefix(mark) for line in ran.stdout.split("\n") if line.startswith(mark)]
        if len(found) != len(expected):
            return wrong(_fault(ran) if ran.exit != 0 else "it ends before it can be tried", code)
        for (expression, value), said in zip(expected.items(), found, strict=True):
            if not _equal(_read(said), value):
                return wrong(f"{expression} is {shown(said)[:100].lstrip('!')}, {value!r} is right", code)
        return right(code)


def last_block(text: str) -> str:
    """The last code block that is marked as Python, else the last one without a language, else the whole text."""
    blocks = [(found[2].lower(), found[3]) for found in _BLOCK.finditer(text)]
    python = [code for language, code in blocks if language in ("python", "py", "python3")]
    unmarked = [code for language, code in blocks if not language]
    return (python or unmarked or ["" if blocks else text])[-1]


def _passed(steps: list[Verdict]) -> bool:
    return all(step.score == 1 for step in steps)


def _condition(assertion: str) -> str:
    return f"bool({assertion.removeprefix('assert ')})"


def _lines(text: str) -> list[str]:
    """The lines of an output, without the space at the end of each and of the whole."""
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _fault(ran: Ran) -> str:
    """Why code failed: the last line of its traceback, or the limit that it reached."""
    last = [line for line in ran.stderr.splitlines() if line.strip()][-1:]
    return last[0].strip() if last and (ran.exit or 0) > 0 else ran.why


def _read(said: str) -> Any:
    """The value of a literal; the text itself if it is none."""
    try:
        return ast.literal_eval(said)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return _NotLiteral(said)


class _NotLiteral(str):
    """What is equal to no value."""


def _equal(value: Any, expected: Any) -> bool:
    """Equality of Python's values and those of a suite, where a list stands for tuples and sets too."""
    if isinstance(value, _NotLiteral) or isinstance(value, bool) != isinstance(expected, bool):
        return False
    if isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        return value == expected or (isinstance(value, float) and math.isclose(value, expected, rel_tol=1e-9))
    if isinstance(value, (set, frozenset)) and isinstance(expected, (list, tuple)):
        value, expected = sorted(map(repr, value)), sorted(map(repr, expected))
    if isinstance(value, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(value) == len(expected) and all(map(_equal, value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        # A suite's keys are strings.
        named = {str(key): each for key, each in value.items()}
        return named.keys() == expected.keys() and all(_equal(named[key], expected[key]) for key in named)
    return bool(value == expected)
