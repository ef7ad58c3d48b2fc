"""What edgellm tells people to type: every command in its messages is one that its own parser takes."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import edgellm as edgellm_package
from edgellm.cli import VERBS, Family
from edgellm.settings import Settings
from tests.commands.cli import edgellm
from tests.shapes import commands, lazy

PACKAGE = Path(edgellm_package.__file__ or "").parent
# A command in a message: up to the end of it, or to what is certainly no more part of it.
COMMAND = re.compile(r"(?:^|(?<=[\s`'\"(]))edgellm ([a-z-][^;`]*)")
END = re.compile(r",? or | and |, |: |;|\. |\.$| [|>] | (?:begins|shows|lists|tells|ends|compute|offers) |`|\)|\n|  +")


def texts() -> Iterator[tuple[str, str]]:
    """Every string of the package that is no docstring, with its place; values that it is made of are X."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        for node in ast.walk(tree):
            place = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                parts = [str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values]
                yield place, "".join(parts)
            elif (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and id(node) not in {*documented, *inside}
            ):
                yield place, node.value


def named() -> list[tuple[str, str]]:
    """Every command of ours that a message names, with its place."""
    found = []
    for place, text in texts():
        for match in COMMAND.finditer(text):
            command = END.split(match[1])[0].strip()
            first = command.split()[0] if command.split() else ""
            if first in VERBS or first in ("--help", "--version"):
                found.append((place, command))
    return found


NAMED = named()


def words_of(command: str) -> list[str]:
    return shlex.split(command.replace("'", '"') if command.count("'") % 2 else command)


def parse(command: str) -> None:
    """Let the parser of the verb have the words; what is missing of its arguments is no matter here."""
    words = words_of(command)
    if words == ["--help"]:
        return
    verb = VERBS.get(words[0])
    assert verb is not None, f"there is no verb {words[0]}"
    name, rest = words[0], words[1:]
    if isinstance(verb, Family):
        if not rest:
            return
        name, rest = f"{words[0]} {rest[0]}", rest[1:]
        assert name in commands(), f"there is no verb {name}"
    if name not in commands():  # an alias
        return
    options = {flag for parameter in lazy(name).load().params for flag in (*parameter.opts, *parameter.secondary_opts)}
    flags = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)} - {"--help", "-h"}
    assert flags <= options, f"edgellm {name} has no {flags - options}"
    try:
        lazy(name).make_context(name, [*rest], resilient_parsing=True)
    except typer.TyperException as error:
        raise AssertionError(f"edgellm {command}: {error}") from error


@pytest.mark.parametrize(("place", "command"), NAMED, ids=lambda value: value.replace("/", ".")[:60])
def test_every_command_in_a_message_can_be_typed(place: str, command: str) -> None:
    parse(command)


def test_commands_are_found() -> None:
    found = {command for _, command in NAMED}
    assert len(NAMED) > 60 and {"engine build", "pull X", "doctor", "list --available"} <= found
    for wrong in ("nosuch", "pull X --nonsense", "chats nosuch"):
        with pytest.raises(AssertionError):
            parse(wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "smolm2"], ["show", "user/repo"], ["run", "smolm2", "hi"], ["chat", "bge-micro"],
        ["chat", "bitnet-large"],
        ["run", "bge-micro", "hi"], ["pull", "mistral", "--dry-run"], ["rm", "nosuch"], ["rm", "nosuch model"],
        ["fit", "nosuch7b"], ["chats", "rm"], ["chats", "show", "zz"], ["run", "smollm2"], ["quantize", "smollm2"],
        ["stop"], ["connect", "nosuch"], ["bench"], ["verify", "nosuch"], ["import", "nosuch.gguf"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_an_error_says_to_try(arguments: list[str], settings: Settings) -> None:
    result = edgellm(*arguments, env={"EDGELLM_OFFLINE": "1"})
    assert result.returncode != 0
    tried = re.findall(r"^  try: (.*)$", result.stderr, re.MULTILINE)
    for line in tried:
        for match in COMMAND.finditer(line):
            parse(END.split(match[1])[0].strip())
