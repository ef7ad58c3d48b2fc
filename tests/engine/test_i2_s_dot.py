"""The kernels of i2_s_dot.h, each built alone for its instruction set and held against a plain sum."""

from pathlib import Path

import pytest

from tests.engine.native_check import HERE, SANITIZERS, require_cpu, run_arm_check, run_check

CHECK = [HERE / "i2_s_dot_check.cpp"]


@pytest.mark.parametrize("sanitizers", [[], SANITIZERS])
@pytest.mark.parametrize("features", [(), ("avx2",)], ids=["baseline", "avx2"])
def test_x86(tmp_path: Path, features: tuple[str, ...], sanitizers: list[str]) -> None:
    require_cpu(*features)
    run_check(tmp_path, CHECK, [*sanitizers, *(f"-m{feature}" for feature in features)])


@pytest.mark.parametrize("level", ["armv8-a", "armv8.2-a+dotprod"])
def test_arm(tmp_path: Path, level: str) -> None:
    run_arm_check(tmp_path, CHECK, [f"-march={level}"])
