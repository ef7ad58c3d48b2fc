"""What a verb imports before it works: a test cannot trust a clock, but it can count modules."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.settings import Settings
from tests.weights.gguf_maker import write_llama

SHOWN = """
import atexit, sys
atexit.register(lambda: sys.stderr.write(" ".join(["loaded:", *sys.modules])))
from edgellm.cli import main
main()
"""
# Each takes a tenth of a second or megabytes.
NETWORK = {"huggingface_hub", "httpx2", "asyncio"}
SERVER = {"starlette", "uvicorn", "aiohttp", "edgellm.serve.server"}
DOCUMENTS = {"edgellm.library", "edgellm.documents.answers.question", "edgellm.documents.index"}
CACHE = {"edgellm.cache.answer_cache", "edgellm.cache.facts"}
HEAVY = NETWORK | SERVER | DOCUMENTS | CACHE | {"jsonschema", "edgellm.engine.builds.builder"}
# What computes, and nothing that only looks or explains itself.
COMPUTES = {"numpy", "jinja2", "llama_cpp", "edgellm.engine.llama", "sqlite3", "prompt_toolkit"}
# What only a verb needs.
VERB = {"rich", "pydantic", "edgellm.workspace", "edgellm.ui.console"}


def loaded_by(*arguments: str) -> set[str]:
    """The modules that are imported when `edgellm` ends."""
    command = [sys.executable, "-c", SHOWN, *arguments]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stderr.rpartition("loaded: ")[2].split())
    assert "edgellm.cli" in loaded
    return loaded


def n_own(loaded: set[str]) -> int:
    """How many of them are ours."""
    return sum(name.startswith("edgellm.") for name in loaded)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["chats", "--help"]])
def test_help_imports_no_verb(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    # typer itself takes pydantic for the options of `edgellm`, once a verb follows them.
    assert not loaded & ((HEAVY | COMPUTES | VERB) - ({"pydantic"} if arguments[0] == "chats" else set()))
    assert not [name for name in loaded if name.startswith("edgellm.commands.")]
    assert n_own(loaded) <= 20


def test_what_only_looks_imports_nothing_that_computes(settings: Settings, tmp_path: Path) -> None:
    path = write_llama(tmp_path / "mine.gguf")
    for arguments, most in ((["list"], 46), (["ps"], 40), (["fit", str(path)], 78)):
        loaded = loaded_by(*arguments)
        assert not loaded & (HEAVY | COMPUTES), arguments
        assert n_own(loaded) <= most, arguments


@pytest.mark.parametrize(("verb", "more"), [("run", set()), ("chat", {"sqlite3", "prompt_toolkit"})])
def test_a_verb_that_answers_starts_with_little(verb: str, more: set[str]) -> None:
    loaded = loaded_by(verb, "--help")
    assert not loaded & ((HEAVY | COMPUTES) - more)
    assert n_own(loaded) <= 108


def test_an_answer_needs_no_documents_no_cache_and_no_network(with_engine: Settings) -> None:
    loaded = loaded_by("run", "smollm2", "hi", "-n", "1", "-c", "256", "-t", "1")
    assert {"edgellm.engine.llama", "jinja2", "numpy"} <= loaded
    assert not loaded & (HEAVY | {"sqlite3"})
    assert n_own(loaded) <= 133
