"""The memory of this process, and the memory that is still available."""

import subprocess
import sys

from edgellm.machine import memory


def test_resident_peak_and_total_are_in_order() -> None:
    assert 0 < memory.resident() <= memory.peak_resident() <= memory.total()
    assert 0 < memory.available() <= memory.total()


def test_the_peak_is_our_own_not_the_parents() -> None:
    ballast = bytes(300_000_000)
    code = "from edgellm.machine import memory; print(memory.peak_resident())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < len(ballast) / 2


def test_a_limit_on_the_address_space_counts() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9));"
        "from edgellm.machine import memory; print(memory.available())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(result.stdout) < 10**9
