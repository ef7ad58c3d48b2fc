"""A missing tool is reported before anything is downloaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.engine.builds.toolchain import compiler
from edgellm.errors import ToolMissing

CHECK = [sys.executable, "-m", "edgellm.engine.builds.toolchain"]


def run_with(tools: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the check with only these tools on PATH."""
    for name in tools:
        (directory / name).symlink_to(shutil.which(name) or name)
    environment = {**os.environ, "PATH": str(directory)}
    return subprocess.run(CHECK, capture_output=True, text=True, env=environment, check=False)


def test_all_is_there() -> None:
    result = subprocess.run(CHECK, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("present", "missing"),
    [(["make"], "C++ compiler"), (["c++", "cc", "as", "ld"], "make")],
)
def test_each_missing_tool_is_named_with_what_to_install(present: list[str], missing: str, tmp_path: Path) -> None:
    result = run_with(present, tmp_path)
    assert result.returncode == 7
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert any(missing in line for line in errors)
    assert result.stderr.count("try:") == len(errors)
    assert "Traceback" not in result.stderr


def test_a_compiler_that_does_not_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\necho 'no such target' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(ToolMissing, match="cannot compile") as caught:
        compiler()
    assert caught.value.why == "no such target"
