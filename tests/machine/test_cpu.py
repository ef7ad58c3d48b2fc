"""Parsing of CPU features, and the default number of threads."""

import os
from pathlib import Path

import pytest

from edgellm.machine.cpu import CoreCounts, core_counts, cpu_list, detect, parse_cpuinfo, usable_cores

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


def sysfs(directory: Path, siblings: dict[int, str], **more: str) -> Path:
    """A tree as below /sys/devices: the hardware threads of each CPU's core, and more files by their path."""
    files = {f"system/cpu/cpu{cpu}/topology/thread_siblings_list": text for cpu, text in siblings.items()} | more
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(f"{text}\n")
    return directory


def capacities(*values: int) -> dict[str, str]:
    return {f"system/cpu/cpu{cpu}/cpu_capacity": str(value) for cpu, value in enumerate(values)}


# Two performance cores with two hardware threads each, and four efficient cores.
HYBRID = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3", 4: "4", 5: "5", 6: "6", 7: "7"}
PLAIN = {cpu: str(cpu) for cpu in range(8)}


@pytest.fixture
def affinity(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The CPUs that this process may use, and no quota."""
    allowed = set(range(8))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: allowed, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("edgellm.machine.cgroup.cpu_quota", lambda: None)
    return allowed


def test_intels_performance_cores_come_first(tmp_path: Path, affinity: set[int]) -> None:
    devices = sysfs(tmp_path, HYBRID, **{"cpu_core/cpus": "0-3", "cpu_atom/cpus": "4-7"})
    assert core_counts(devices) == CoreCounts(fast=2, physical=6, logical=8)
    affinity -= {0, 1, 2, 3}  # taskset to the efficient cores: those are all there are
    assert core_counts(devices) == CoreCounts(fast=4, physical=4, logical=4)


@pytest.mark.parametrize(
    ("values", "fast"),
    [
        ((381, 381, 381, 381, 1024, 1024, 1024, 1024), 4),  # big.LITTLE
        ((250, 250, 250, 250, 870, 870, 870, 1024), 4),  # three kinds: the little ones are left out
        ((1024,) * 8, 8),
    ],
)
def test_arms_big_cores_come_first(tmp_path: Path, affinity: set[int], values: tuple[int, ...], fast: int) -> None:
    devices = sysfs(tmp_path, PLAIN, **capacities(*values))
    assert core_counts(devices) == CoreCounts(fast, physical=8, logical=8)


def test_cores_that_do_not_differ_all_count(tmp_path: Path, affinity: set[int]) -> None:
    assert core_counts(sysfs(tmp_path / "plain", PLAIN)) == CoreCounts(8, 8, 8)
    assert core_counts(sysfs(tmp_path / "threads", {cpu: str(cpu % 4) for cpu in range(8)})) == CoreCounts(4, 4, 8)
    assert core_counts(tmp_path / "nothing") == CoreCounts(8, 8, 8)
    odd = sysfs(tmp_path / "odd", PLAIN, **{"cpu_core/cpus": "0-x", "system/cpu/cpu3/cpu_capacity": "much"})
    assert core_counts(odd) == CoreCounts(8, 8, 8)


def test_a_quota_limits_every_count(tmp_path: Path, affinity: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgellm.machine.cgroup.cpu_quota", lambda: 3.5)
    devices = sysfs(tmp_path, HYBRID, **{"cpu_core/cpus": "0-3"})
    assert core_counts(devices) == CoreCounts(fast=2, physical=3, logical=3)


def test_lists_of_cpus() -> None:
    assert cpu_list("0-3,8") == {0, 1, 2, 3, 8}
    assert cpu_list("") == cpu_list("0-") == cpu_list("a") == cpu_list("999999") == set()
