"""Describes the CPU: its name, the features that matter to the engine, and the cores this process may use.

usable_cores()  ->  2
core_counts()   ->  CoreCounts(fast=2, physical=2, logical=4)
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edgellm.machine import cgroup

# The features that affect the engine's speed, for display.
NOTABLE = frozenset(
    {"sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vbmi", "avx512_vnni"}
    | {"avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"}
    | {"asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme"}
)
# All x86 instruction sets that a compiler may use for this CPU.
X86_ISA = re.compile(
    r"(sse|ssse|avx|amx|bmi|sha)\w*|abm|adx|aes|clflushopt|clwb|clzero|f16c|fma4?|fsgsbase|gfni|lahf_lm|movbe|movdir\w+"
    r"|pclmulqdq|pku|popcnt|pni|rdpid|rdrand|rdseed|serialize|tbm|vaes|vpclmulqdq|wbnoinvd|xop|xsave\w*|3dnowprefetch"
)
# Where Linux describes the cores, and how it writes a range of them.
SYSTEM_DEVICES = Path("/sys/devices")
CPU_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cpu:
    """A CPU as seen by the engine; `instruction_sets` are those that a compiler may use for it."""

    machine: str
    model: str
    instruction_sets: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """The instruction sets that affect the engine's speed."""
        return tuple(name for name in self.instruction_sets if name in NOTABLE)

    @property
    def key(self) -> str:
        """The architecture and a short hash of the instruction sets, as in `x86_64-1f3a9c`; part of engine names."""
        digest = hashlib.sha256(" ".join(self.instruction_sets).encode()).hexdigest()
        return f"{self.machine}-{digest[:6]}"


@lru_cache(maxsize=1)
def detect() -> Cpu:
    """Return this machine's CPU."""
    if sys.platform == "darwin":
        brand = _sysctl("machdep.cpu.brand_string")
        # All Apple CPUs with the same brand string have the same features, so the name identifies them.
        return Cpu(platform.machine(), brand, (brand,))
    return parse_cpuinfo(Path("/proc/cpuinfo").read_text(encoding="utf-8"), platform.machine())


def parse_cpuinfo(text: str, machine: str) -> Cpu:
    """Parse the first processor in the text of Linux's /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    # On ARM, every entry of "Features" is an instruction set; on x86, most flags are something else.
    flags = (
        filter(X86_ISA.fullmatch, fields["flags"].split()) if "flags" in fields else fields.get("Features", "").split()
    )
    model = fields.get("model name") or fields.get("CPU part") or machine
    return Cpu(machine, model, tuple(sorted(flags)))


def _sysctl(name: str) -> str:
    result = subprocess.run(
        ["sysctl", "-n", name], capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    return result.stdout.strip() or platform.machine()


@dataclass(frozen=True, slots=True)
class CoreCounts:
    """How many threads can run at once: on the fast cores, on all cores, on all of their hardware threads."""

    fast: int
    physical: int
    logical: int


def usable_cores() -> int:
    """Return the default number of threads: the fast cores within the affinity mask and the CPU quota, at least 1.

    ggml's threads meet at spin barriers many times per token, and a thread without its own core makes all of them
    wait. Hyperthreads and cores beyond the quota are therefore not counted, nor are slow cores beside fast ones.
    """
    return core_counts().fast


def core_counts(devices: Path = SYSTEM_DEVICES) -> CoreCounts:
    """Count the cores within the affinity mask and the cgroup's CPU quota, at least 1 of each.

    Args:
        devices: the directory where Linux describes them.
    """
    counts = _mac_cores() if sys.platform == "darwin" else _linux_cores(os.sched_getaffinity(0), devices)
    quota = cgroup.cpu_quota()
    most = max(counts) if quota is None else max(1, math.floor(quota))
    return CoreCounts(*(max(1, min(count, most)) for count in counts))


def _mac_cores() -> tuple[int, int, int]:
    names = ("hw.perflevel0.physicalcpu", "hw.physicalcpu", "hw.logicalcpu")
    fast, physical, logical = (int(text) if (text := _sysctl(name)).isdigit() else 0 for name in names)
    everything = os.cpu_count() or 1
    return fast or physical or everything, physical or everything, logical or everything


def _linux_cores(allowed: Set[int], devices: Path) -> tuple[int, int, int]:
    core = {cpu: _read(devices / f"system/cpu/cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed}
    fast = _fast_cpus(allowed, devices)
    return len({core[cpu] for cpu in fast}), len({*core.values()}), len(allowed)


def _fast_cpus(allowed: Set[int], devices: Path) -> Set[int]:
    """Those of the allowed CPUs that are on fast cores; all of them where cores do not differ.

    Intel lists its performance cores. Elsewhere each CPU has a capacity, 1024 for the fastest: big cores have more than
    half of it, little ones less.
    """
    listed = cpu_list(_read(devices / "cpu_core/cpus"))
    if not listed:
        capacity = {cpu: _read(devices / f"system/cpu/cpu{cpu}/cpu_capacity") for cpu in allowed}
        if all(text.isascii() and text.isdigit() for text in capacity.values()):
            most = max(map(int, capacity.values()))
            listed = {cpu for cpu, text in capacity.items() if 2 * int(text) >= most}
    return listed & allowed or allowed


def cpu_list(text: str) -> set[int]:
    """Parse the kernel's lists of CPUs, as in `0-3,8`; empty for anything else."""
    found: set[int] = set()
    for part in text.split(","):
        match = CPU_RANGE.fullmatch(part)
        if match is None:
            return set()
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
