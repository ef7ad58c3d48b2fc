"""Without a compiler on the machine: one is offered, fetched, and builds."""

import os
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pexpect
import pytest

from edgellm.engine.builds import fetched_compiler
from edgellm.engine.builds.builder import build, library_path
from edgellm.engine.builds.fetched_compiler import COMMAND, choose, is_missing
from edgellm.errors import ChecksumMismatch, NetworkError, ToolMissing
from edgellm.files import sha256_of
from edgellm.package_index import Archive
from edgellm.settings import Settings
from tests.engine.test_build import nothing_is_installed, prepared

pytestmark = pytest.mark.skipif(not fetched_compiler.can_fetch(), reason="there is none to fetch for this machine")
# Zig's command line in front of the compiler of this machine.
ZIG = """\
#!/bin/sh
verb=$1; shift
PATH={path}; export PATH
case $verb in cc|c++) echo "$verb" >> "$0.log";; esac
exec "$verb" "$@"
"""


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Nothing but cmake and a shell's tools is on PATH; returns what was."""
    before = os.environ["PATH"]
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("cmake", "sh", "uname"):
        (programs / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(programs))
    return before


@pytest.fixture
def stand_in(no_compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheels in the shape of Zig's and ninja's, of this machine's programs, which pip finds in a directory."""
    ninja = shutil.which("ninja", path=no_compiler)
    if ninja is None:
        pytest.skip("there is no ninja to make a wheel of")
    index = tmp_path / "index"
    index.mkdir()
    script = ZIG.format(path=no_compiler).encode()
    files = {"ziglang": ("ziglang/zig", script), "ninja": ("ninja-1.0.data/scripts/ninja", Path(ninja).read_bytes())}
    wheels = []
    for package, (name, data) in files.items():
        path = index / f"{package}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(name, data)
            wheel.writestr(
                f"{package}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
            )
            wheel.writestr(f"{package}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheels.append(Archive(package, "1.0", path.name, path.stat().st_size, sha256_of(path)))
    monkeypatch.setattr(fetched_compiler, "WHEELS", dict.fromkeys(fetched_compiler.WHEELS, tuple(wheels)))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))


@pytest.mark.usefixtures("no_compiler")
def test_the_error_says_how_to_fetch_one(tmp_path: Path, settings: Settings) -> None:
    with pytest.raises(ToolMissing, match="no C\\+\\+ compiler") as caught:
        build(settings, prepared(tmp_path, settings))
    assert COMMAND in caught.value.hint and "g++" in caught.value.hint
    assert is_missing(settings) and nothing_is_installed(settings)


@pytest.mark.usefixtures("no_compiler")
def test_a_compiler_that_somebody_has_named_is_not_replaced(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "nosuch++")
    with pytest.raises(ToolMissing, match="nosuch") as caught:
        choose(settings, fetch=True)
    assert caught.value.hint == "unset CXX" and not is_missing(settings)


def test_the_compiler_of_the_system_comes_first(settings: Settings) -> None:
    assert choose(settings, fetch=True).programs is None
    assert not (settings.cache / "tools").exists()


@pytest.mark.usefixtures("stand_in")
def test_it_is_fetched_once_and_builds(tmp_path: Path, settings: Settings) -> None:
    stack = prepared(tmp_path, settings)
    engine = build(settings, stack, fetch_compiler=True)
    assert library_path(engine.libraries, "llama").exists()
    assert engine.record.compiler.startswith("zig ")
    used = (settings.cache / "tools" / f"zig-{fetched_compiler.ZIG}" / "ziglang" / "zig.log").read_text()
    assert "c++" in used
    # Without the option, and offline: what was fetched stays.
    offline = replace(settings, offline=True)
    assert not is_missing(offline)
    assert build(offline, stack, tools=True).tools


@pytest.mark.usefixtures("stand_in")
def test_another_file_under_its_name_is_refused(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = {
        machine: tuple(replace(wheel, sha256="0" * 64) for wheel in wheels)
        for machine, wheels in fetched_compiler.WHEELS.items()
    }
    monkeypatch.setattr(fetched_compiler, "WHEELS", wheels)
    with pytest.raises(ChecksumMismatch):
        choose(settings, fetch=True)
    assert is_missing(settings)


@pytest.mark.usefixtures("no_compiler")
def test_offline_nothing_is_fetched(settings: Settings) -> None:
    with pytest.raises(NetworkError, match="offline"):
        choose(replace(settings, offline=True), fetch=True)


@pytest.mark.usefixtures("no_compiler")
def test_on_a_terminal_it_is_offered_and_a_no_changes_nothing(settings: Settings) -> None:
    child = pexpect.spawn(sys.executable, ["-m", "edgellm", "engine", "build"], encoding="utf-8", timeout=60)
    child.expect(r"Fetch Zig's, as a Python package \(\d+ MB to download, 450 MB on the disk\)\? \[y/N\]")
    child.sendline("n")
    child.expect("no C\\+\\+ compiler is installed")
    child.expect(COMMAND)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 7 and nothing_is_installed(settings)


@pytest.mark.soak
@pytest.mark.usefixtures("no_compiler")
def test_the_real_one_builds(tmp_path: Path, settings: Settings) -> None:
    """Downloads a hundred megabytes."""
    try:
        engine = build(settings, prepared(tmp_path, settings), tools=True, fetch_compiler=True)
    except NetworkError as error:
        pytest.skip(f"{error.what}: {error.why}")
    assert "clang" in engine.record.compiler and engine.tools
