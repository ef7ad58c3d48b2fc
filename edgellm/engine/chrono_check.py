"""Find C++ files that use std::chrono and do not include <chrono> themselves.

    python -m edgellm.engine.chrono_check path/to/llama.cpp

Run it after a bump of the pin: such a file compiles only while some other header happens to include <chrono>,
and MSVC's library 17.13 once stopped doing so. `patches/chrono-includes.patch` is made from what it finds.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

SUFFIXES = frozenset({".c", ".cc", ".cpp", ".cxx", ".h", ".hh", ".hpp"})
USE = re.compile(r"\bstd\s*::\s*chrono\b")
INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<chrono>", re.MULTILINE)
# Comments and string literals, so that a mention of std::chrono in either is not a use.
NOT_CODE = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"", re.DOTALL)


def uses_chrono_without_include(source: str) -> bool:
    """Whether the text of one file uses std::chrono and has no #include <chrono> of its own."""
    return INCLUDE.search(source) is None and USE.search(NOT_CODE.sub(" ", source)) is not None


def find(tree: Path) -> Iterator[Path]:
    """Such files below `tree`, relative to it, sorted; third-party code under vendor/ is upstream's upstream's."""
    for path in sorted(tree.rglob("*")):
        relative = path.relative_to(tree)
        if path.suffix not in SUFFIXES or relative.parts[0] == "vendor" or not path.is_file():
            continue
        if uses_chrono_without_include(path.read_text(encoding="utf-8", errors="replace")):
            yield relative


def main(arguments: list[str]) -> int:
    """List the files; 1 if there are any."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m edgellm.engine.chrono_check LLAMA_CPP_TREE\n")
        return 2
    found = list(find(Path(arguments[0])))
    sys.stdout.writelines(f"{path}\n" for path in found)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
