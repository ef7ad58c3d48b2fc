"""The README's table of files, made from the tree: each file with the first sentence that it says of itself.

python -m tests.file_table     # writes the table into README.md; a test fails while it is out of date
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- files: python -m tests.file_table -->", "<!-- end of files -->"
OTHERS = {
    "pyproject.toml": "packaging, dependencies, settings of ruff, mypy and pytest",
    "Makefile": "one-shot setup and everyday tasks; `make help`",
    "recipes/": "models that can be pulled, one TOML file each",
    "patches/": "the pin, the patches and our C and C++; has a table of its own",
    "docs/": "install, chats, batch, serving, models, memory, weights, formats, speed, scoring, engine, reference",
    "tests/": "mirror the modules; run the real engine",
    ".ci/run": "what CI runs on a clean clone",
    ".github/workflows/ci.yml": "smoke jobs on x86 Linux, ARM Linux and macOS",
}


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = " ".join(doc.split("\n\n")[0].split())
    return re.split(r"(?<=[.;])\s", first)[0].rstrip(".;").replace("|", "\\|")


def rows() -> Iterator[tuple[str, str]]:
    """Every module with content, then the rest of the tree."""
    for path in sorted((ROOT / "edgellm").rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), sentence(path)
    yield from OTHERS.items()


def table() -> str:
    """The table between its two marks."""
    lines = [f"| `{name}` | {text} |" for name, text in rows()]
    return "\n".join([BEGIN, "", "| file | what it is |", "|---|---|", *lines, "", END])


def main() -> None:
    """Put the table into the README."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    start, stop = text.index(BEGIN), text.index(END) + len(END)
    readme.write_text(text[:start] + table() + text[stop:])


if __name__ == "__main__":
    main()
