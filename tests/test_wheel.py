"""The wheel: it carries recipes, patches and native sources, and works outside of the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgellm.engine.builds.patches import PatchStack
from edgellm.serve.page.home import SCRIPTS, STYLE

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = directory.glob("*.whl")
    return built


def test_it_carries_all_data(wheel: Path, stack: PatchStack) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = {path.relative_to(stack.directory).as_posix() for path in stack.directory.rglob("*") if path.is_file()}
    assert {f"edgellm/_data/patches/{name}" for name in data} <= names
    assert "edgellm/_data/recipes/smollm2.toml" in names
    assert {"edgellm/py.typed", "edgellm/serve/examples/edgellm.service"} <= names
    assert {f"edgellm/serve/page/{name}" for name in ("page.html", STYLE, *SCRIPTS)} <= names
    assert not [name for name in names if name.startswith("tests/")]


def test_it_works_elsewhere_and_says_what_to_type_first(wheel: Path, tmp_path: Path, stack: PatchStack) -> None:
    target = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target), "PYTHONSAFEPATH": "1"}

    def installed(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgellm", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    where = "import edgellm; print(edgellm.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(target))
    status = json.loads(installed("engine", "status", "--json").stdout)["data"]
    assert status["stamp"] == stack.stamp and status["built"] is False
    assert "smollm2" in installed("list", "--available").stdout
    assert "next: edgellm engine build" in installed().stderr
