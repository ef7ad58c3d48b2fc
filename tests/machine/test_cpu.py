"""CPU features as they are read, and the number of threads by default."""

import os

import pytest

from edgellm.machine.cpu import detect, parse_cpuinfo, usable_cores

X86 = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu sse4_2 avx2 avx512_vnni amx_int8\n\nprocessor\t: 1\n"
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp i8mm\nCPU part\t: 0xd0c\n"


def test_features_that_matter() -> None:
    assert parse_cpuinfo(X86, "x86_64").features == ("amx_int8", "avx2", "avx512_vnni", "sse4_2")
    arm = parse_cpuinfo(ARM, "aarch64")
    assert arm.features == ("asimd", "asimddp", "i8mm") and arm.model == "0xd0c" and "fp" in arm.instruction_sets


def test_an_engine_is_keyed_by_features_not_by_name() -> None:
    first = parse_cpuinfo(X86, "x86_64")
    assert parse_cpuinfo(X86.replace("Some CPU", "Other"), "x86_64").key == first.key
    assert parse_cpuinfo(X86.replace("avx2", "avx2 bmi1"), "x86_64").key != first.key
    assert parse_cpuinfo(X86.replace("avx2", "avx2 tsc_known_freq"), "x86_64").key == first.key
    assert first.key.startswith("x86_64-")


def test_never_more_threads_than_we_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
    monkeypatch.setattr("edgellm.machine.cgroup.cpu_quota", lambda: 0.5)
    assert usable_cores() == 1
    assert detect() is detect()
