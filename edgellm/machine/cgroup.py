"""Reads the limits that a container or a service manager sets for this process (cgroup v2 and v1).

cgroup.memory_limit()  ->  4294967296 or None
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
# cgroup v1 writes "no limit" as the largest multiple of the page size below 2**63.
UNLIMITED = 1 << 60


def _directories(controller: str, root: Path, membership: Path) -> Iterator[Path]:
    """Yield this process's cgroup for a controller, then its ancestors; limits apply at every level."""
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, names, path = line.split(":", 2)
        if names == "":
            base = root / "unified" if (root / "unified").is_dir() else root
        elif controller in names.split(","):
            base = root / controller
        else:
            continue
        relative = Path(path.lstrip("/"))
        yield from (base / part for part in (relative, *relative.parents))


def _numbers(name: str, controller: str, root: Path, membership: Path) -> Iterator[tuple[Path, list[str]]]:
    for directory in _directories(controller, root, membership):
        try:
            yield directory, (directory / name).read_text(encoding="utf-8").split()
        except OSError:
            continue


def memory_limit(root: Path = ROOT, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the smallest memory limit in bytes, or None."""
    found = [limit for limit, _ in _memory(root, membership)]
    return min(found, default=None)


def memory_available(root: Path = ROOT, membership: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the bytes left below the tightest limit, or None; reclaimable file cache counts as free."""
    found = [limit - used for limit, used in _memory(root, membership)]
    return max(0, min(found)) if found else None


def _memory(root: Path, membership: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, bytes in use that cannot be reclaimed) for every level that has a limit."""
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for directory, words in _numbers(limit_name, "memory", root, membership):
            if not words or not words[0].isdigit() or int(words[0]) >= UNLIMITED:
                continue
            try:
                usage = int((directory / usage_name).read_text(encoding="utf-8"))
                stat = dict(
                    line.split() for line in (directory / "memory.stat").read_text(encoding="utf-8").splitlines()
                )
            except (OSError, ValueError):
                yield int(words[0]), 0
                continue
            yield int(words[0]), max(0, usage - _reclaimable(stat))


def _reclaimable(stat: dict[str, str]) -> int:
    """Return the bytes of file cache, active or not: the kernel reclaims them before it kills a process."""
    names = ("inactive_file", "active_file")
    return sum(int(stat.get(f"total_{name}", stat.get(name, "0"))) for name in names)


def cpu_quota(root: Path = ROOT, membership: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the CPU quota of this process in CPUs, or None when it is unlimited."""
    quotas = []
    for _, words in _numbers("cpu.max", "cpu", root, membership):
        if len(words) == 2 and words[0].isdigit() and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
    for directory, words in _numbers("cpu.cfs_quota_us", "cpu", root, membership):
        try:
            quota, period = int(words[0]), int((directory / "cpu.cfs_period_us").read_text(encoding="utf-8"))
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            quotas.append(quota / period)
    return min(quotas, default=None)
