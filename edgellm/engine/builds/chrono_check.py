"""Finds C++ files that use std::chrono but do not include <chrono> themselves.

    python -m edgellm.engine.builds.chrono_check path/to/llama.cpp

Run it after updating the pin. Such a file compiles only while another header happens to include <chrono>, and
MSVC's library stopped doing so in 17.13. `patches/chrono-includes.patch` is made from its output.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = frozenset({".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp"})
USE = re.compile(r"\bstd\s*::\s*chrono\b")
INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<chrono>", re.MULTILINE)
# Comments and string literals: a mention of std::chrono in one of them is not a use.
NOT_CODE = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"", re.DOTALL)


def uses_chrono_without_include(source: str) -> bool:
    """Whether the text of a file uses std::chrono without its own #include <chrono>."""
    return INCLUDE.search(source) is None and USE.search(NOT_CODE.sub(" ", source)) is not None


def find(tree: Path) -> Iterator[Path]:
    """Yield these files below `tree`, sorted and relative to it, except third-party code under vendor/."""
    for path in sorted(tree.rglob("*")):
        relative = path.relative_to(tree)
        if path.suffix not in SUFFIXES or relative.parts[0] == "vendor" or not path.is_file():
            continue
        if uses_chrono_without_include(path.read_text(encoding="utf-8", errors="replace")):
            yield relative


def main(arguments: list[str]) -> int:
    """List the files; return 1 if there are any, else 0."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m edgellm.engine.builds.chrono_check LLAMA_CPP_TREE\n")
        return 2
    found = list(find(Path(arguments[0])))
    sys.stdout.writelines(f"{path}\n" for path in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
