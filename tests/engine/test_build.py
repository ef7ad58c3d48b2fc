"""The build, run for real on an upstream of a few files: its results, and every way to interrupt it."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.engine.builds.builder import TOOLS, build, library_path
from edgellm.engine.builds.installed import find, require
from edgellm.engine.builds.patches import PatchStack
from edgellm.errors import (
    BuildFailed,
    ChecksumMismatch,
    DiskFull,
    EngineMissing,
    NetworkError,
    PatchFailed,
    ToolMissing,
)
from edgellm.progress import Progress
from edgellm.settings import Settings
from tests.engine import tiny_upstream


def prepared(tmp_path: Path, settings: Settings, **changes: str) -> PatchStack:
    """Return the patch stack of a tiny upstream whose archive is already downloaded."""
    patches, archive = tiny_upstream.make(tmp_path, **changes)
    settings.downloads.mkdir(parents=True, exist_ok=True)
    shutil.copy(archive, settings.downloads)
    return PatchStack.load(patches)


def nothing_is_installed(settings: Settings) -> bool:
    return not settings.engines.exists() or not [path for path in settings.engines.iterdir() if path.name[0] != "."]


def test_builds_installs_and_returns_at_once_the_second_time(tmp_path: Path, settings: Settings) -> None:
    stack = prepared(tmp_path, settings)
    seen: list[Progress] = []
    engine = build(settings, stack, report=seen.append)
    assert library_path(engine.libraries, "llama").exists()
    assert (engine.bindings / "llama_cpp" / "llama_cpp.py").exists()
    assert engine.record.stamp == stack.stamp and engine.record.patches == {"answer.patch": "Give the right answer"}
    assert [event for event in seen if event.stage == "building the libraries" and event.total]
    assert require(settings, stack) == engine
    seen.clear()
    assert build(settings, stack, report=seen.append) == engine
    assert seen == []


def test_the_patch_is_in_the_library(tmp_path: Path, settings: Settings) -> None:
    engine = build(settings, prepared(tmp_path, settings))
    probe = "import ctypes, sys; print(ctypes.CDLL(sys.argv[1])._Z6answerv())"
    command = [sys.executable, "-c", probe, str(library_path(engine.libraries, "llama"))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "42"


def test_tools_come_on_demand_and_leave_the_libraries_alone(tmp_path: Path, settings: Settings) -> None:
    stack = prepared(tmp_path, settings)
    engine = build(settings, stack)
    assert engine.tools == []
    before = library_path(engine.libraries, "llama").stat()
    assert build(settings, stack, tools=True).tools == sorted(TOOLS)
    after = library_path(engine.libraries, "llama").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_clean_builds_again_beside_a_loaded_library(tmp_path: Path, settings: Settings) -> None:
    stack = prepared(tmp_path, settings)
    engine = build(settings, stack)
    first = library_path(engine.libraries, "llama").stat().st_ino
    with library_path(engine.libraries, "llama").open("rb") as loaded:
        again = build(settings, stack, clean=True)
        assert again.directory == engine.directory
        assert library_path(again.libraries, "llama").stat().st_ino != first == os.fstat(loaded.fileno()).st_ino


def test_works_offline_once_the_archive_is_there(tmp_path: Path, settings: Settings) -> None:
    stack = prepared(tmp_path, settings)
    assert build(replace(settings, offline=True), stack).directory.exists()


def test_offline_without_the_archive_says_where_to_put_it(tmp_path: Path, settings: Settings) -> None:
    patches, _ = tiny_upstream.make(tmp_path)
    with pytest.raises(NetworkError, match="offline") as caught:
        build(replace(settings, offline=True), PatchStack.load(patches))
    assert str(settings.downloads) in caught.value.hint
    assert nothing_is_installed(settings)


def test_a_wrong_archive_is_refused(tmp_path: Path, settings: Settings) -> None:
    stack = prepared(tmp_path, settings)
    archive = settings.downloads / tiny_upstream.NAME
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    with pytest.raises(ChecksumMismatch, match=tiny_upstream.NAME) as caught:
        build(settings, stack)
    assert caught.value.exit_code == 6 and stack.upstream.archive.sha256 in caught.value.why
    assert nothing_is_installed(settings)


def test_no_network(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    patches, _ = tiny_upstream.make(tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(NetworkError, match=r"tiny-llama==1\.0") as caught:
        build(settings, PatchStack.load(patches))
    assert caught.value.exit_code == 4 and "pip says" in caught.value.why
    assert [path.name for path in settings.downloads.iterdir()] == [f"{tiny_upstream.NAME}.lock"]


def test_an_index_that_cannot_be_reached(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    patches, _ = tiny_upstream.make(tmp_path)
    for name, value in {"CONFIG_FILE": os.devnull, "INDEX_URL": "http://127.0.0.1:1/", "RETRIES": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(NetworkError) as caught:
        build(settings, PatchStack.load(patches))
    assert "Connection refused" in caught.value.why


def test_a_patch_that_does_not_apply_is_named_with_its_file(tmp_path: Path, settings: Settings) -> None:
    stack = prepared(tmp_path, settings, patch=tiny_upstream.PATCH.replace("return 41", "return 40"))
    with pytest.raises(PatchFailed, match=r"answer\.patch does not apply to answer\.cpp"):
        build(settings, stack)
    assert not list(settings.builds.glob("*/src*"))
    assert nothing_is_installed(settings)


def test_a_compiler_error_is_shown_with_the_log(tmp_path: Path, settings: Settings) -> None:
    stack = prepared(tmp_path, settings, slow="int slow() { return nonsense; }\n")
    with pytest.raises(BuildFailed, match="building the libraries failed") as caught:
        build(settings, stack)
    assert "nonsense" in caught.value.why
    assert "nonsense" in Path(str(caught.value.facts["log"])).read_text()
    assert nothing_is_installed(settings)


def test_a_library_of_another_origin_is_never_installed(tmp_path: Path, settings: Settings) -> None:
    stamp = 'extern "C" const char * edgellm_stamp(void) { return "other"; }\n'
    stack = prepared(tmp_path, settings, stamp=stamp)
    with pytest.raises(BuildFailed, match="does not load"):
        build(settings, stack)
    assert nothing_is_installed(settings)


def test_no_compiler(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = prepared(tmp_path, settings)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("git", "make", "cmake"):
        (tools / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ToolMissing, match=r"no C\+\+ compiler") as caught:
        build(settings, stack)
    assert "g++" in caught.value.hint or "xcode" in caught.value.hint
    assert not settings.builds.exists() or not list(settings.builds.glob("*/src"))


def test_too_little_disk(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = prepared(tmp_path, settings)
    monkeypatch.setattr("edgellm.engine.builds.builder.BUILD_SPACE", 1 << 60)
    with pytest.raises(DiskFull, match="is free on the disk"):
        build(settings, stack)


def test_a_disk_that_fills_up_is_distinguished_from_an_error_in_the_code(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = prepared(tmp_path, settings, slow="int slow() { return nonsense; }\n")
    monkeypatch.setattr("edgellm.engine.builds.cmake.FULL_DISK", 1 << 60)
    with pytest.raises(DiskFull, match="full while building the libraries"):
        build(settings, stack)
    assert nothing_is_installed(settings)


@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.soak)])
def test_killed_in_the_middle_the_next_build_waits_for_the_orphans_and_goes_on(
    kills: int, tmp_path: Path, settings: Settings
) -> None:
    # A source that compiles slowly, so that the kill hits while the compiler runs.
    slow = '#include <regex>\nint slow() { return std::regex_search("aab", std::regex("a+b")); }\n'
    stack = prepared(tmp_path, settings, slow=slow)
    code = (
        "from edgellm.engine.builds.builder import build; from edgellm.engine.builds.patches import PatchStack;"
        "from edgellm.settings import Settings; from pathlib import Path; import sys;"
        "build(Settings.from_environment(), PatchStack.load(Path(sys.argv[1])), clean=True,"
        " report=lambda p: print(p.stage, flush=True))"
    )
    for kill in range(kills):
        command = [sys.executable, "-c", code, str(stack.directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            if kill % 3 != 2:
                while "building the libraries" not in child.stdout.readline():
                    assert child.poll() is None
            time.sleep(0.5 if kills == 1 else 1.5 * random.random())
            child.send_signal(signal.SIGKILL)
        assert find(settings, stack) is None
        with pytest.raises(EngineMissing):
            require(settings, stack)
    assert build(settings, stack).record.stamp == stack.stamp


def test_an_engine_for_another_cpu_or_other_patches_is_not_used(tmp_path: Path, settings: Settings) -> None:
    stack = prepared(tmp_path, settings)
    engine = build(settings, stack)
    engine.directory.rename(engine.directory.with_name(f"1.0-{stack.stamp}-other_cpu-000000"))
    with pytest.raises(EngineMissing, match="not built") as caught:
        require(settings, stack)
    assert "another CPU" in caught.value.why and caught.value.hint == "edgellm engine build"
    (stack.directory / "native" / "more.cpp").write_text("// changes the stamp\n")
    with pytest.raises(EngineMissing) as caught:
        require(settings, PatchStack.load(stack.directory))
    assert "other patches" in caught.value.why
