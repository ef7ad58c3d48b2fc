"""The documents against the tree and the program: tables, exit codes, links, and words that must not be there."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from edgellm import errors
from tests.file_table import OTHERS, table

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "patches" / "README.md",
]


def test_the_readme_lists_every_file() -> None:
    assert table() in (ROOT / "README.md").read_text(), "run: python -m tests.file_table"
    assert all((ROOT / name).exists() for name in OTHERS)


def test_every_exit_code_is_documented() -> None:
    reference = (ROOT / "docs" / "reference.md").read_text()
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", reference, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgellmError)]
    assert {kind.exit_code for kind in kinds} <= documented


def test_error_codes_are_distinct() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.EdgellmError)]
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        assert target.startswith("http") or (document.parent / target).exists(), target


def test_make_help_prints_every_target() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", "--no-print-directory", "help"]
    listed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert phony is not None
    assert {line.split()[1] for line in listed.splitlines()} == set(phony[1].split())


def test_ci_keeps_its_cache_at_a_path_that_the_cache_action_takes() -> None:
    """It refuses `..`, and would say so only in a warning."""
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    home = re.search(r"EDGELLM_HOME: (\S.*)", workflow)
    assert home is not None and ".." not in home[1] and "path: ${{ env.EDGELLM_HOME }}" in workflow
