"""llama.cpp's own unit tests against our engine: what the patches touch must not break the rest.

Each program is compiled from the patched tree and linked with the very libraries that a chat uses.
"""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from edgellm.engine.builds.source import SourceTree
from edgellm.engine.builds.toolchain import CXX_CANDIDATES

pytestmark = [pytest.mark.soak, pytest.mark.engine]

PROGRAMS = (
    "test-quantize-fns",
    "test-grammar-parser",
    "test-grammar-integration",
    "test-llama-grammar",
    "test-json-schema-to-grammar",
    "test-json-schema",
    "test-sampling",
    "test-chat",
    "test-chat-template",
    "test-rope",
    "test-barrier",
    "test-tiled-mulmat",
)
VOCABULARIES = ("bert-bge", "falcon", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder")
INCLUDED = ("include", "ggml/include", "ggml/src", "src", "common", "vendor", "tools/mtmd", "")
LINKED = ("llama-server-impl", "mtmd", "llama-common", "llama", "ggml", "ggml-cpu", "ggml-base")
MINUTES = 60


class Units:
    """Compiles upstream's test programs, each when it is first needed, and runs them."""

    def __init__(self, tree: SourceTree, libraries: Path, directory: Path) -> None:
        self._llama_cpp, self._libraries, self._directory = tree.llama_cpp, libraries, directory

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program where it finds its templates; everything that it says is in `stdout`."""
        return self._call([str(self._compiled(name)), *arguments])

    def vocabulary(self, name: str) -> str:
        return str(self._llama_cpp / "models" / f"ggml-vocab-{name}.gguf")

    def _compiled(self, name: str) -> Path:
        program = self._directory / name
        if not program.exists():
            compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(shutil.which, CXX_CANDIDATES))]
            command = [*compiler, "-O1", "-std=c++17", str(self._llama_cpp / "tests" / f"{name}.cpp")]
            command += ["-o", str(program), *(f"-I{self._llama_cpp / folder}" for folder in INCLUDED)]
            command += [f"-L{self._libraries}", f"-Wl,-rpath,{self._libraries}", *(f"-l{each}" for each in LINKED)]
            made = self._call([*command, "-lpthread"])
            assert made.returncode == 0, made.stdout[-4000:]
        return program

    def _call(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self._llama_cpp,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=60 * MINUTES,
            check=False,
        )


@pytest.fixture(scope="module")
def units(
    source_tree: SourceTree, engine_lib_dir: Path, tools: Path, tmp_path_factory: pytest.TempPathFactory
) -> Units:
    """`tools` is there because the libraries of llama-server come with them, which some programs test."""
    return Units(source_tree, engine_lib_dir, tmp_path_factory.mktemp("units"))


@pytest.mark.parametrize("name", PROGRAMS)
def test_unit(units: Units, name: str) -> None:
    result = units.run(name)
    assert result.returncode == 0, result.stdout[-4000:]


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_tokenizer(units: Units, vocabulary: str) -> None:
    result = units.run("test-tokenizer-0", units.vocabulary(vocabulary))
    assert result.returncode == 0, result.stdout[-4000:]


def test_operations_on_the_cpu(units: Units) -> None:
    result = units.run("test-backend-ops", "test", "-b", "CPU")
    assert result.returncode == 0, result.stdout[-4000:]
    assert "FAIL" not in result.stdout


def test_gguf_differs_only_where_tensors_have_a_tail(units: Units) -> None:
    """It writes a tensor of every type, and takes rows times the size of a row for the size of a tensor.

    I2_S has 32 bytes more at the end of a tensor, so its offsets differ from those that the test computes, and so do
    those of all tensors behind it: 18 of 101 checks, all of files with tensor data.
    """
    counts = re.findall(r"(\d+)/(\d+) tests passed", units.run("test-gguf").stdout)
    assert counts == [("83", "101")]
