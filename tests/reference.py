"""The generated parts of the pages in docs/reference: exit and error codes, variables, JSON, help texts, recipes.

python -m tests.reference     # writes them; a test fails while a page is out of date

A part stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; everything around the parts is written by hand.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgellm.cli import VERBS, Family, VerbSettings
from edgellm.errors import EdgellmError
from edgellm.exit_codes import ExitCode
from edgellm.models.recipe import load_recipes
from edgellm.settings import VARIABLES, resource_directory
from tests.shapes import Shapes, commands, help_of, keys_of, returned

PAGES = Path(__file__).parent.parent / "docs" / "reference"
PACKAGE = Path(__file__).parent.parent / "edgellm"
WIDTH = 100


def exit_codes() -> Iterator[str]:
    """A row for each code."""
    yield from ("| code | meaning |", "|---|---|")
    yield from (f"| {code.value} | {code.meaning} |" for code in ExitCode)


def kinds_of_errors() -> list[type[EdgellmError]]:
    """Every error that has a code of its own."""
    for path in PACKAGE.rglob("*.py"):
        if re.search(r"^    code = \"", path.read_text(), re.MULTILINE):
            importlib.import_module(".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts))

    def below(kind: type[EdgellmError]) -> Iterator[type[EdgellmError]]:
        for each in kind.__subclasses__():
            yield each
            yield from below(each)

    by_code = {kind.code: kind for kind in (EdgellmError, *below(EdgellmError)) if "code" in vars(kind)}
    return sorted(by_code.values(), key=lambda kind: (kind.exit_code, kind.code))


def error_codes() -> Iterator[str]:
    """A row for each error that has a code of its own."""
    yield from ("| code | exit code | meaning |", "|---|---|---|")
    for kind in kinds_of_errors():
        meaning = "any other failure" if kind is EdgellmError else _text(kind)
        yield f"| `{kind.code}` | {kind.exit_code.value} | {meaning} |"


def variables() -> Iterator[str]:
    """A row for each variable that is no option."""
    yield from ("| variable | meaning |", "|---|---|")
    yield from (f"| `{name}` | {meaning} |" for name, meaning in VARIABLES.items())


def environment() -> Iterator[str]:
    """A row for each variable that stands for an option."""
    found: dict[str, tuple[str, list[str]]] = {}
    verbs = VerbSettings()
    for command, settings in verbs.items():
        for each in settings:
            found.setdefault(each.variable, (each.flag, []))[1].append(command)
    yield from ("| variable | option | of |", "|---|---|---|")
    for name, (flag, commands_with_it) in sorted(found.items()):
        where = "all" if len(commands_with_it) == len(verbs) else ", ".join(commands_with_it)
        yield f"| `{name}` | `{flag}` | {where} |"


def json_shapes() -> Iterator[str]:
    """A row for each verb, then the keys of everything that they name."""
    shapes = Shapes()
    yield from ("| command | `data` |", "|---|---|")
    for command in commands():
        shape = shapes.describe(returned(command)).removesuffix(" or null")
        yield f"| `{command}` | {shape}{', one a line' if command == 'chat' else ''} |"
    done: set[str] = set()
    while todo := [name for name in shapes.objects if name not in done]:
        for name in todo:
            done.add(name)
            yield from ("", *_object(shapes, name))


def _object(shapes: Shapes, name: str) -> Iterator[str]:
    """A heading, what the type says of itself, and its keys."""
    kind = shapes.objects[name]
    yield from (f"#### {name}", "")
    if about := " ".join(_text(each) for each in reversed(kind.__mro__) if _has_docstring(each)):
        yield from (about, "")
    keys, computed = [], []
    for key, its in keys_of(kind).items():
        keys.append(f"`{key}` {shapes.describe(its)}")
        item = inspect.getattr_static(kind, key, None)
        if isinstance(item, property):
            computed.append(f"- `{key}`: {_text(item)}")
    yield "Keys: " + ", ".join(keys) + "."
    yield from ("", *computed) if computed else ()


def _has_docstring(kind: type[Any]) -> bool:
    """Whether a type has a docstring of its own, and not the signature that a dataclass is given without one."""
    text = vars(kind).get("__doc__") or ""
    return kind.__module__.startswith("edgellm") and bool(text) and not text.startswith(f"{kind.__name__}(")


def _text(item: Any) -> str:
    """A docstring on one line, in JSON's words."""
    text = " ".join((inspect.getdoc(item) or "").split()).replace("|", "\\|")
    return re.sub(r"\b(None|True|False)\b", lambda word: {"None": "null"}.get(word[0], word[0].lower()), text)


def recipes() -> Iterator[str]:
    """A row for each recipe of ours."""
    yield from ("| recipe | types | parameters | context | licence | |", "|---|---|---|---|---|---|")
    for recipe in load_recipes([resource_directory("recipes")]).values():
        parameters = f"{recipe.parameters:,}" if recipe.parameters else ""
        context = f"{recipe.context:,}" if recipe.context else ""
        model = f"[{recipe.name}]({recipe.homepage})"
        checked = "" if recipe.checked else "not checked yet"
        yield f"| {model} | {', '.join(recipe.choices)} | {parameters} | {context} | {recipe.licence} | {checked} |"


def help_texts() -> Iterator[str]:
    """The help of every verb, as it is printed."""
    for name, verb in VERBS.items():
        if isinstance(verb, Family):
            yield from (f"### {name}", "", verb.line, "")
            for member, its in verb.verbs.items():
                if not its.hidden:
                    yield from _help(f"{name} {member}", "####")
        elif not verb.hidden:
            yield from _help(name, "###")


def _help(command: str, heading: str) -> Iterator[str]:
    lines = [line.rstrip() for line in help_of(command, WIDTH).splitlines()]
    yield from (f"{heading} {command}", "", "```", *lines, "```", "")


PARTS: dict[str, dict[str, Callable[[], Iterator[str]]]] = {
    "command-line.md": {
        "exit codes": exit_codes,
        "error codes": error_codes,
        "json": json_shapes,
        "help": help_texts,
    },
    "environment.md": {"variables": variables, "environment": environment},
    "recipes.md": {"recipes": recipes},
}


def page(name: str) -> str:
    """The page with every part made anew."""
    text = (PAGES / name).read_text()
    for part, lines in PARTS[name].items():
        begin, end = f"<!-- begin {part} -->", f"<!-- end {part} -->"
        made = "\n".join([begin, *lines(), end]).replace(f"\n\n{end}", f"\n{end}")
        text, n = re.subn(f"{begin}.*?{end}", lambda _, made=made: made, text, flags=re.DOTALL)  # type: ignore[misc]
        assert n == 1, f"the page has {n} parts called {part}"
    return text


if __name__ == "__main__":
    for name in PARTS:
        (PAGES / name).write_text(page(name))
