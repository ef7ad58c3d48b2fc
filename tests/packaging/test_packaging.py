"""Wheels with the engine inside: what goes into them, and that one answers where nothing else is."""

import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.builds.variants import variants
from edgellm.errors import BuildFailed
from edgellm.settings import Settings
from tests.conftest import REAL
from tests.packaging.portable import refuse_cpu_flags, shared_libraries
from tests.packaging.sample import write_sample
from tests.packaging.wheel import write_wheel

RULES = """
build src/llama.cpp.o: CXX /src/llama.cpp
  FLAGS = -O3 -DNDEBUG -fPIC{}
build ggml/src/CMakeFiles/ggml-cpu.dir/ops.cpp.o: CXX /src/ops.cpp
  FLAGS = -O3 -march=native
"""


@pytest.mark.parametrize("flags", ["", " -m64 -mno-red-zone", " -fopenmp"])
def test_only_the_cpu_library_may_depend_on_the_cpu(flags: str) -> None:
    refuse_cpu_flags(RULES.format(flags))


@pytest.mark.parametrize("flag", ["-march=native", "-mavx2", "-mcpu=neoverse-n1", "-mtune=znver3"])
def test_another_object_for_one_cpu_is_refused_by_name(flag: str) -> None:
    with pytest.raises(BuildFailed) as caught:
        refuse_cpu_flags(RULES.format(f" {flag} -Wall"))
    assert f"src/llama.cpp.o is compiled with {flag}" in caught.value.why


def test_libraries_go_by_the_names_that_others_load(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("libllama.so.0.5.0", "libggml-cpu.so.0.25", "libllama-server-impl.so", "llama-server"):
        (tmp_path / "bin" / name).touch()
    for link, target in (
        ("libllama.so.0", "libllama.so.0.5.0"),
        ("libllama.so", "libllama.so.0"),
        ("libggml-cpu.so.0", "libggml-cpu.so.0.25"),
    ):
        (tmp_path / "bin" / link).symlink_to(target)
    assert [path.name for path in shared_libraries(tmp_path)] == ["libllama-server-impl.so", "libllama.so.0"]


@pytest.mark.engine
@pytest.mark.model
@pytest.mark.skipif(not variants(platform.machine()), reason="no wheel is made for this architecture")
def test_an_installed_wheel_answers_with_the_engine_that_it_carries(
    engine: InstalledEngine, stack: PatchStack, settings: Settings, smollm2: Path, tmp_path: Path
) -> None:
    write_sample(tmp_path / "_engine", engine, stack)
    wheel = write_wheel(tmp_path, tmp_path / "_engine", platform.machine(), tmp_path / "dist")
    assert "-py3-none-manylinux_2_" in wheel.name and wheel.name.endswith(f"_{platform.machine()}.whl")
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
    assert {"edgellm/_engine/lib/libllama.so.0", "edgellm/_data/patches/series", "edgellm/cli.py"} <= names

    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    settings.models.parent.mkdir(parents=True)
    settings.models.symlink_to(REAL.models)
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "EDGELLM_OFFLINE": "1"}

    def edgellm(*arguments: str) -> str:
        command = [sys.executable, "-m", "edgellm", *arguments]
        result = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert "in the wheel" in edgellm("engine", "status")
    assert "Paris" in edgellm("run", "smollm2", "--temp", "0", "What is the capital of France?")
    status = edgellm("engine", "status")
    assert "out of the wheel: " in status and "the best one for this CPU" in status
    assert "out of the wheel: " in edgellm()
