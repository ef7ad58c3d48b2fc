"""Which variants of the portable engine suit a CPU."""

import pytest

from edgellm.engine.builds.variants import ARM, LEVELS, X86, X86_SWITCHES, reaches, suitable, variants
from edgellm.machine.cpu import parse_cpuinfo

CORE2 = "fpu sse sse2 ssse3"
SANDY_BRIDGE = f"{CORE2} sse4_1 sse4_2 avx"
HASWELL = f"{SANDY_BRIDGE} f16c fma avx2 bmi1 bmi2"
ALDER_LAKE = f"{HASWELL} avx_vnni"
SKYLAKE_X = f"{HASWELL} avx512f avx512cd avx512vl avx512dq avx512bw"
CASCADE_LAKE = f"{SKYLAKE_X} avx512_vnni"
SAPPHIRE_RAPIDS = f"{CASCADE_LAKE} avx_vnni avx512vbmi avx512_bf16 amx_bf16 amx_tile amx_int8"


@pytest.mark.parametrize(
    ("flags", "best"),
    [
        (CORE2, "x64"),
        (SANDY_BRIDGE, "avx"),
        (HASWELL, "avx2"),
        (ALDER_LAKE, "avx-vnni"),
        (SKYLAKE_X, "avx512"),
        (CASCADE_LAKE, "avx512-vnni"),
        (SAPPHIRE_RAPIDS, "amx"),
        (f"{HASWELL} avx512f", "avx2"),
    ],
)
def test_the_best_of_a_cpu_comes_first_and_the_baseline_last(flags: str, best: str) -> None:
    found = suitable(parse_cpuinfo(f"model name : A CPU\nflags : {flags}\n\n", "x86_64"))
    assert found[0].name == best
    assert found[-1].name == "x64"


def test_a_cpu_that_nobody_knows_has_none() -> None:
    assert suitable(parse_cpuinfo("model name : A CPU\n\n", "riscv64")) == []


def test_on_arm_the_kernels_ask_the_cpu() -> None:
    found = suitable(parse_cpuinfo("Features : fp asimd\n\n", "aarch64"))
    assert [variant.name for variant in found] == ["i8mm", "dotprod", "armv8"]
    assert not reaches("neon-dotprod", found[0].level) and reaches("neon-dotprod", found[1].level)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_variant_is_complete(machine: str) -> None:
    for lower, higher in zip(variants(machine), variants(machine)[1:], strict=False):
        assert reaches(higher.level, lower.level) or (lower.name, higher.name) == ("avx-vnni", "avx512")
    assert {variant.level for variant in (*X86, *ARM)} <= set(LEVELS)
    for variant in X86:
        assert set(variant.options) == {f"GGML_{switch}" for switch in X86_SWITCHES}


def test_levels_are_ordered_and_unknown_ones_reach_nothing() -> None:
    assert reaches("amx", "avx2") and reaches("avx2", "avx2") and not reaches("scalar", "avx2")
    assert not reaches("stock", "scalar") and not reaches("", "scalar")
