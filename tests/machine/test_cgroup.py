"""Container limits, read from files in the kernel's format."""

from pathlib import Path

import pytest

from edgellm.machine import cgroup


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def membership(tmp_path: Path) -> Path:
    return tmp_path / "membership"


def test_version_2_takes_the_tightest_level(tmp_path: Path, membership: Path) -> None:
    membership.write_text("0::/a/b\n")
    write(
        tmp_path,
        {
            "a/memory.max": "1000\n",
            "a/memory.current": "700\n",
            "a/memory.stat": "inactive_file 200\nactive_file 5\n",
            "a/b/memory.max": "max\n",
            "a/cpu.max": "max 100000\n",
            "a/b/cpu.max": "150000 100000\n",
        },
    )
    assert cgroup.memory_limit(tmp_path, membership) == 1000
    assert cgroup.memory_available(tmp_path, membership) == 505
    assert cgroup.cpu_quota(tmp_path, membership) == 1.5


def test_version_1(tmp_path: Path, membership: Path) -> None:
    membership.write_text("4:memory:/x\n2:cpu,cpuacct:/x\n1:name=systemd:/y\n")
    write(
        tmp_path,
        {
            "memory/x/memory.limit_in_bytes": "2000\n",
            "memory/x/memory.usage_in_bytes": "2500\n",
            "memory/x/memory.stat": "total_inactive_file 0\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cpu/x/cpu.cfs_quota_us": "-1\n",
            "cpu/x/cpu.cfs_period_us": "100000\n",
        },
    )
    assert cgroup.memory_limit(tmp_path, membership) == 2000
    assert cgroup.memory_available(tmp_path, membership) == 0


@pytest.mark.parametrize("text", ["", "0::/nowhere\n"])
def test_no_limit(text: str, tmp_path: Path, membership: Path) -> None:
    membership.write_text(text)
    assert cgroup.memory_limit(tmp_path, membership) is None
    assert cgroup.memory_available(tmp_path, membership) is None
    assert cgroup.cpu_quota(tmp_path, membership) is None
    assert cgroup.memory_limit(tmp_path, tmp_path / "absent") is None
