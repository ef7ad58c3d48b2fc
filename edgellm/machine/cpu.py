"""The CPU: its name, the features that matter to the engine, and the cores that this process may use.

usable_cores()  ->  2
"""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edgellm.machine import cgroup

# What decides how fast the engine is; shown to people.
NOTABLE = frozenset(
    {"sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vbmi", "avx512_vnni"}
    | {"avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"}
    | {"asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme"}
)
# All instruction sets of x86 that a compiler may use when it compiles for this CPU.
X86_ISA = re.compile(
    r"(sse|ssse|avx|amx|bmi|sha)\w*|abm|adx|aes|clflushopt|clwb|clzero|f16c|fma4?|fsgsbase|gfni|lahf_lm|movbe|movdir\w+"
    r"|pclmulqdq|pku|popcnt|pni|rdpid|rdrand|rdseed|serialize|tbm|vaes|vpclmulqdq|wbnoinvd|xop|xsave\w*|3dnowprefetch"
)


@dataclass(frozen=True, slots=True)
class Cpu:
    """One CPU as the engine sees it; `instruction_sets` are all that its compiler may use."""

    machine: str
    model: str
    instruction_sets: tuple[str, ...]

    @property
    def features(self) -> tuple[str, ...]:
        """The instruction sets that decide how fast the engine is."""
        return tuple(name for name in self.instruction_sets if name in NOTABLE)

    @property
    def key(self) -> str:
        """Architecture and a short hash of the instruction sets, e.g. `x86_64-1f3a9c`: the name of engines for it."""
        digest = hashlib.sha256(" ".join(self.instruction_sets).encode()).hexdigest()
        return f"{self.machine}-{digest[:6]}"


@lru_cache(maxsize=1)
def detect() -> Cpu:
    """This machine's CPU."""
    if sys.platform == "darwin":
        brand = _sysctl("machdep.cpu.brand_string")
        # Every Apple CPU of one brand string has the same features, so the name stands for them.
        return Cpu(platform.machine(), brand, (brand,))
    return parse_cpuinfo(Path("/proc/cpuinfo").read_text(), platform.machine())


def parse_cpuinfo(text: str, machine: str) -> Cpu:
    """Read the first processor of Linux's /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    # On ARM every entry of "Features" is an instruction set; on x86 most flags are something else.
    flags = (
        filter(X86_ISA.fullmatch, fields["flags"].split()) if "flags" in fields else fields.get("Features", "").split()
    )
    model = fields.get("model name") or fields.get("CPU part") or machine
    return Cpu(machine, model, tuple(sorted(flags)))


def _sysctl(name: str) -> str:
    result = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return result.stdout.strip() or platform.machine()


def usable_cores() -> int:
    """Physical cores within the affinity mask and the cgroup's CPU quota, at least 1.

    ggml's threads meet at spin barriers many times per token: a thread without a core of its own makes all of
    them wait, so hyperthreads and quota that is not there are never counted.
    """
    cores = _physical_cores()
    quota = cgroup.cpu_quota()
    return max(1, min(cores, math.floor(quota))) if quota is not None else cores


def _physical_cores() -> int:
    if sys.platform == "darwin":
        performance = _sysctl("hw.perflevel0.physicalcpu")
        return int(performance) if performance.isdigit() else (os.cpu_count() or 1)
    allowed = os.sched_getaffinity(0)
    siblings = {_siblings(cpu) for cpu in allowed}
    return max(1, len(siblings))


def _siblings(cpu: int) -> str:
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text().strip()
    except OSError:
        return str(cpu)
