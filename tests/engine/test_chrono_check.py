"""The check to run after updating the pin: files that use std::chrono without including <chrono>."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.engine.builds.chrono_check import find, uses_chrono_without_include
from edgellm.engine.builds.source import SourceTree


@pytest.mark.parametrize(
    "source",
    [
        "#include <thread>\nvoid f() { std::this_thread::sleep_for(std::chrono::seconds(1)); }\n",
        "auto t = std :: chrono :: steady_clock::now();\n",
        "// #include <chrono>\nusing namespace std::chrono;\n",
        '#include "chrono.h"\nstd::chrono::hours h;\n',
    ],
)
def test_lacks_the_include(source: str) -> None:
    assert uses_chrono_without_include(source)


@pytest.mark.parametrize(
    "source",
    [
        "#include <chrono>\nstd::chrono::seconds s;\n",
        "#ifdef X\n#  include <chrono>\n#endif\nstd::chrono::seconds s;\n",
        "// std::chrono is not used here\nint x;\n",
        "/* std::chrono\n */ int x;\n",
        'const char * s = "std::chrono";\n',
        "std::chronology c;\n",
        "",
    ],
)
def test_has_no_need_of_it(source: str) -> None:
    assert not uses_chrono_without_include(source)


def test_lists_files_of_a_tree_and_leaves_third_parties_out(tmp_path: Path) -> None:
    use = "std::chrono::seconds s;\n"
    for name in ("common/log.cpp", "tools/cli.h", "vendor/lib/x.hpp", "docs/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(use)
    assert [path.as_posix() for path in find(tmp_path)] == ["common/log.cpp", "tools/cli.h"]
    command = [sys.executable, "-m", "edgellm.engine.builds.chrono_check", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.split()) == (1, ["common/log.cpp", "tools/cli.h"])


@pytest.mark.engine
def test_the_patched_tree_has_none_left(source_tree: SourceTree) -> None:
    assert list(find(source_tree.llama_cpp)) == []
