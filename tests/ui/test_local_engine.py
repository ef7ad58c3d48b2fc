"""An engine that is missing is built when a command needs it: once, with a word about it, or an error that helps."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from edgellm.engine.builds.builder import TOOLS
from edgellm.engine.builds.patches import PatchStack
from edgellm.errors import EngineMissing
from edgellm.files import locked
from edgellm.settings import Settings
from edgellm.ui.local_engine import building_workspace
from edgellm.workspace import Workspace, workspace
from tests.commands.cli import edgellm, error
from tests.engine import tiny_upstream


@pytest.fixture
def tiny_stack(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> PatchStack:
    """An upstream of a few files, whose archive is here; building is allowed."""
    monkeypatch.delenv("EDGELLM_NO_BUILD")
    patches, archive = tiny_upstream.make(tmp_path)
    settings.downloads.mkdir(parents=True)
    shutil.copy(archive, settings.downloads)
    return PatchStack.load(patches)


def builder(stack: PatchStack, *, quiet: bool = False) -> Workspace:
    here = building_workspace(offline=True, quiet=quiet)
    here.stack = stack
    return here


def test_two_at_once_build_once_and_tools_come_when_they_are_needed(
    tiny_stack: PatchStack, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: builder(tiny_stack).installed_engine, range(2))
    assert first == second and not first.tools, "one build: the records have the same time"
    assert "the engine is not built for this CPU yet" in capsys.readouterr().err
    assert builder(tiny_stack).engine_with_tools.tools == sorted(TOOLS)
    assert "the engine's tools are not built" in capsys.readouterr().err
    assert builder(tiny_stack).engine_with_tools.directory == first.directory and not capsys.readouterr().err


def test_quiet_says_nothing_and_python_and_no_build_never_build(
    tiny_stack: PatchStack, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = workspace()
    plain.stack = tiny_stack
    with pytest.raises(EngineMissing):
        _ = plain.installed_engine
    monkeypatch.setenv("EDGELLM_NO_BUILD", "1")
    with pytest.raises(EngineMissing):
        _ = builder(tiny_stack).installed_engine
    monkeypatch.delenv("EDGELLM_NO_BUILD")
    assert builder(tiny_stack, quiet=True).installed_engine and not capsys.readouterr().err
    with pytest.raises(EngineMissing, match="llama-server") as tools:
        _ = plain.engine_with_tools
    assert tools.value.hint == "edgellm engine build --tools"


def test_what_stands_in_the_way_of_a_build_is_named(smollm2: Path, tmp_path: Path) -> None:
    offline = edgellm("run", str(smollm2), "hi", "--offline", "--json", env={"EDGELLM_NO_BUILD": ""})
    assert offline.returncode == 4 and "put the file into" in error(offline)["try"]
    for name in ("git", "make"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    bare = edgellm("serve", str(smollm2), "--json", env={"EDGELLM_NO_BUILD": "", "PATH": str(tmp_path), "CXX": ""})
    assert bare.returncode == 7 and error(bare)["code"] == "tool-missing" and "C++" in error(bare)["what"]


def test_who_waits_for_a_lock_says_so_until_it_is_free(tmp_path: Path) -> None:
    said: list[str] = []
    is_free = Event()

    def hold() -> None:
        with locked(tmp_path / "a.lock"):
            held.set()
            is_free.wait(60)

    def waiting() -> None:
        said.append("waiting")
        if len(said) == 3:
            is_free.set()

    held = Event()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(hold)
        held.wait(60)
        with locked(tmp_path / "a.lock", waiting):
            assert len(said) >= 3
