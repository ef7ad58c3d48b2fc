"""The CPU variants of the portable engine that wheels carry: what each is compiled for, and which of them suit a CPU.

    [variant.name for variant in suitable(detect())]  ->  ["avx2", "avx", "x64"]

Only libggml-cpu exists once for each variant; everything else is compiled for the baseline. A variant's flags concern
upstream's code: our own kernels are in every variant, at every level, and choose at run time (patches/native/cpu.cpp).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from edgellm.machine.cpu import Cpu

# Upstream's switches for x86; a variant turns all of them off that it does not name.
X86_SWITCHES = (
    *("SSE42", "AVX", "AVX2", "BMI2", "AVX_VNNI", "FMA", "F16C", "AVX512", "AVX512_VBMI", "AVX512_VNNI"),
    *("AVX512_BF16", "AMX_TILE", "AMX_INT8", "AMX_BF16"),
)


@dataclass(frozen=True, slots=True)
class CpuVariant:
    """One libggml-cpu.

    `needs` are instruction sets as Linux calls them in /proc/cpuinfo. `level` is the least that our kernels must find
    on the CPU, in the words of `edgellm_kernels`; they ask the CPU itself, of which an emulator's /proc/cpuinfo may say
    something else. `options` are those of cmake.
    """

    name: str
    needs: frozenset[str] = frozenset()
    level: str = "scalar"
    options: dict[str, str] = field(default_factory=dict, hash=False)


# In the order of patches/native/cpu.h: whoever finds a later one could also use those before it.
LEVELS = ("scalar", "avx2", "avx-vnni", "avx512-vnni", "amx", "neon-dotprod", "neon-i8mm")


def _x86(name: str, switches: str, needs: str, level: str = "scalar") -> CpuVariant:
    on = switches.split()
    options = {f"GGML_{switch}": "ON" if switch in on else "OFF" for switch in X86_SWITCHES}
    return CpuVariant(name, frozenset(needs.split()), level, options)


_AVX2 = "SSE42 AVX F16C FMA AVX2 BMI2"
_HAS_AVX2 = "sse4_2 avx f16c fma avx2 bmi2"
_HAS_AVX512 = f"{_HAS_AVX2} avx512f avx512cd avx512vl avx512dq avx512bw"

# Lowest first. AVX-512 without VNNI is Skylake's; AMX came with the sets that are named beside it.
X86 = (
    _x86("x64", "", ""),
    _x86("avx", "SSE42 AVX", "sse4_2 avx"),
    _x86("avx2", _AVX2, _HAS_AVX2, "avx2"),
    _x86("avx-vnni", f"{_AVX2} AVX_VNNI", f"{_HAS_AVX2} avx_vnni", "avx-vnni"),
    _x86("avx512", f"{_AVX2} AVX512", _HAS_AVX512, "avx2"),
    _x86("avx512-vnni", f"{_AVX2} AVX512 AVX512_VNNI", f"{_HAS_AVX512} avx512_vnni", "avx512-vnni"),
    _x86(
        "amx",
        f"{_AVX2} AVX512 AVX512_VBMI AVX512_VNNI AVX512_BF16 AMX_TILE AMX_INT8",
        f"{_HAS_AVX512} avx512_vnni avx512vbmi avx512_bf16 amx_tile amx_int8",
        "amx",
    ),
)
ARM = (
    CpuVariant("armv8", options={"GGML_CPU_ARM_ARCH": "armv8-a"}),
    CpuVariant("dotprod", frozenset(), "neon-dotprod", {"GGML_CPU_ARM_ARCH": "armv8.2-a+dotprod"}),
    CpuVariant("i8mm", frozenset(), "neon-i8mm", {"GGML_CPU_ARM_ARCH": "armv8.2-a+dotprod+i8mm"}),
)
BY_MACHINE = {"x86_64": X86, "aarch64": ARM}


def variants(machine: str) -> tuple[CpuVariant, ...]:
    """Return the variants for an architecture as `platform.machine()` spells it, lowest first; () for unknown ones."""
    return BY_MACHINE.get(machine, ())


def suitable(cpu: Cpu) -> list[CpuVariant]:
    """Return the variants whose instruction sets the system reports for this CPU, best first."""
    found = set(cpu.instruction_sets)
    return [variant for variant in reversed(variants(cpu.machine)) if variant.needs <= found]


def reaches(level: str, needed: str) -> bool:
    """Whether kernels of `level` are at least those of `needed`; False for names that nobody knows."""
    return level in LEVELS and LEVELS.index(level) >= LEVELS.index(needed)
