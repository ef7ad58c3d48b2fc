"""The usage of this process and of child processes, which may end at any moment."""

import os
import subprocess
import sys
import threading
import time

import pytest

from edgellm.machine.process import cpu_seconds, usage

WORK = """
import sys, time
ballast = b"x" * 200_000_000
ballast = None
while time.process_time() < 0.5: pass
print("done", flush=True)
sys.stdin.read()
"""


def test_another_process_by_its_number() -> None:
    with subprocess.Popen([sys.executable, "-c", WORK], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin and child.stdout and child.stdout.readline() == b"done\n"
        used = usage(child.pid)
        assert 0 < used.resident_bytes < 150_000_000 < 200_000_000 < used.peak_resident_bytes
        assert 0.3 < used.cpu_seconds < 10
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError):  # ended, but not reaped
            usage(child.pid)
    with pytest.raises(ProcessLookupError):
        usage(child.pid)


def test_all_threads_count() -> None:
    def work() -> None:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass

    before, threads = cpu_seconds(), [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cpu_seconds() - before >= 0.6
    for ours in (usage(), usage(os.getpid())):
        assert ours.cpu_seconds == pytest.approx(cpu_seconds(), abs=0.1)  # by a coarser clock
        assert 0 < ours.resident_bytes <= ours.peak_resident_bytes


def test_no_process() -> None:
    for pid in (2**22 + 1, 2**31 - 1):
        with pytest.raises(ProcessLookupError):
            usage(pid)
