"""The table of files in docs/developer/files.md, made from the tree: each file with its first sentence.

python -m tests.file_table     # writes the table; a test fails while it is out of date
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "developer" / "files.md"
BEGIN, END = "<!-- files: python -m tests.file_table -->", "<!-- end of files -->"
OTHERS = {
    "pyproject.toml": "packaging, dependencies, settings of ruff, mypy and pytest",
    "Makefile": "one-shot setup and everyday tasks; `make help`",
    "README.md": "what it is, how to install it, what it can do",
    "ARCHITECTURE.md": "the idea, the layers, two walks through the code",
    "CONTRIBUTING.md": "how to set up, the rules, how to add something",
    "SECURITY.md": "what is trusted, and how to report a vulnerability",
    "CHANGELOG.md": "what changed, by version",
    "recipes/": "models that can be pulled, one TOML file each",
    "patches/": "the pin, the patches and our C and C++; its README has a table of its own",
    "docs/": "tutorial, how-to, reference, explanation, developer; begin at docs/index.md",
    "tests/": "mirror the modules; run the real engine",
    ".ci/run": "what CI runs on a clean clone",
    ".github/workflows/ci.yml": "smoke jobs on x86 Linux, ARM Linux and macOS",
    ".github/workflows/release.yml": "builds, tries and publishes the files of a release when a tag comes",
    ".github/ISSUE_TEMPLATE/": "forms for bugs, models and speed",
    ".github/PULL_REQUEST_TEMPLATE.md": "what a pull request says",
    ".pre-commit-config.yaml": "ruff, mypy and the documents before each commit",
}


def sentence(path: Path) -> str:
    """The first sentence of a module's docstring, on one line."""
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = " ".join(doc.split("\n\n")[0].split())
    return re.split(r"(?<=[.;])\s", first)[0].rstrip(".;:").replace("|", "\\|")


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
    """Put the table into its page."""
    text = PAGE.read_text()
    start, stop = text.index(BEGIN), text.index(END) + len(END)
    PAGE.write_text(text[:start] + table() + text[stop:])


if __name__ == "__main__":
    main()
