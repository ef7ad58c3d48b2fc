"""`make install` and `make uninstall`: a link that never overwrites another program, and what to type next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.errors import FileAccessError
from edgellm.machine import path_link


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """`edgellm` of a checkout's environment."""
    program = tmp_path / "checkout" / ".venv" / "bin" / "edgellm"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho it is me\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the link goes; neither pipx nor an `edgellm` is on PATH."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PIPX_BIN_DIR", str(tmp_path / "bin"))
    monkeypatch.setenv("SHELL", "/bin/zsh")
    return tmp_path / "bin" / "edgellm"


def test_it_is_linked_once_found_and_removed(place: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "make install" in path_link.hint(place, program)
    for _ in range(2):
        path_link.install(place, program)
        assert subprocess.run([place], capture_output=True, text=True, check=True).stdout == "it is me\n"
    assert f"{place.parent}:$PATH" in path_link.hint(place, program) and "~/.zshrc" in path_link.hint(place, program)
    monkeypatch.setenv("PATH", str(place.parent))
    assert path_link.hint(place, program) == ""
    path_link.uninstall(place, program)
    assert not os.path.lexists(place) and "there is no" in path_link.uninstall(place, program)


def test_another_program_stays_and_a_link_to_nothing_does_not(place: Path, program: Path, tmp_path: Path) -> None:
    place.parent.mkdir()
    place.write_text("theirs")
    with pytest.raises(FileAccessError, match="another program"):
        path_link.install(place, program)
    assert "stays" in path_link.uninstall(place, program) and place.read_text() == "theirs"
    place.unlink()
    (tmp_path / "other").write_text("theirs")
    place.symlink_to(tmp_path / "other")
    with pytest.raises(FileAccessError, match="another program"):
        path_link.install(place, program)
    (tmp_path / "other").unlink()
    path_link.install(place, program)
    assert place.resolve() == program


def test_pipx_is_used_where_it_is(place: Path, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program in the place of pipx does what pipx does: a link from its environment."""
    tools = tmp_path / "tools"
    tools.mkdir()
    made = tmp_path / "pipx" / "venvs" / "edgellm" / "bin" / "edgellm"
    script = f'#!/bin/sh\n[ "$1" = install ] && ln -s {made} {place} || rm {place}\n'
    (tools / "pipx").write_text(script)
    (tools / "pipx").chmod(0o755)
    made.parent.mkdir(parents=True)
    made.write_text("")
    made.chmod(0o755)
    path_link.install(place, program)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    assert "pipx" in path_link.install(place, program) and place.resolve() == made
    assert "pipx" in path_link.install(place, program), "the same again updates it"
    assert "pipx" in path_link.uninstall(place, program) and not os.path.lexists(place)


def test_it_runs_as_the_makefile_runs_it(place: Path, program: Path) -> None:
    command = [sys.executable, "-m", "edgellm.machine.path_link", "install", str(program)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and result.stdout == "" and str(place) in result.stderr
    place.unlink()
    place.mkdir()
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "another program" in result.stderr and "Traceback" not in result.stderr
