"""The ternary kernels, each built alone for its instruction set and held against plain sums in 64-bit integers.

AMX runs on a model of its tiles in plain C++ (amx_model.h), AVX-VNNI in AVX-512's encoding where the CPU has only
that, NEON on an emulator: the logic is tested everywhere, the instructions where there are any.
"""

from pathlib import Path

import pytest

from tests.engine.native_check import HERE, NATIVE, SANITIZERS, require_cpu, run_arm_check, run_check

TERNARY = NATIVE / "ternary"
AVX512 = ("avx512f", "avx512bw", "avx512vl", "avx512_vnni")

# name: (source, flags of the compiler, CPU features that running it needs)
X86 = {
    "scalar": ("scalar.cpp", [], ()),
    "avx2": ("avx2.cpp", ["-march=haswell"], ("avx2", "fma")),
    "avx-vnni": ("avx_vnni.cpp", ["-march=haswell", "-mavxvnni"], ("avx_vnni",)),
    "avx-vnni-evex": ("avx_vnni.cpp", ["-march=cascadelake", "-DEDGELLM_EVEX"], AVX512),
    "avx512-vnni": ("avx512_vnni.cpp", ["-march=cascadelake"], AVX512),
    "amx-model": ("amx.cpp", ["-march=cascadelake", "-include", str(HERE / "amx_model.h")], AVX512),
}
ARM = {
    "scalar": ("scalar.cpp", []),
    "neon-dotprod": ("neon_dotprod.cpp", ["-march=armv8.2-a+dotprod"]),
    "neon-i8mm": ("neon_i8mm.cpp", ["-march=armv8.2-a+dotprod+i8mm"]),
}


def sources(kernel: str) -> list[Path]:
    return [TERNARY / kernel, TERNARY / "activations.cpp", HERE / "ternary_check.cpp"]


def check_of(kernel: str) -> str:
    return f"-DCHECK_ONLY={kernel.removesuffix('.cpp')}_kernels"


@pytest.mark.parametrize("sanitizers", [[], SANITIZERS], ids=["plain", "sanitizers"])
@pytest.mark.parametrize("name", X86)
def test_x86(tmp_path: Path, name: str, sanitizers: list[str]) -> None:
    source, flags, features = X86[name]
    require_cpu(*features)
    printed = run_check(tmp_path, sources(source), [*flags, *sanitizers, check_of(source)])
    assert name.startswith(printed.strip())


@pytest.mark.parametrize("name", ARM)
def test_arm(tmp_path: Path, name: str) -> None:
    source, flags = ARM[name]
    assert run_arm_check(tmp_path, sources(source), [*flags, check_of(source)]).strip() == name
