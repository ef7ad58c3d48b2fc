"""The list of system calls that closed code may make, as a program for the kernel (seccomp, classic BPF).

syscall_filter("x86_64")  # bytes, eight to an instruction

A call that is not on the list fails with EPERM and does nothing. The list has what an interpreter needs to compute, to
write to pipes that are open, to look at the clock and to end: nothing opens, starts, sends, maps code or signals.
Sources: linux/seccomp.h, linux/filter.h, linux/audit.h, and the tables of system calls of each architecture.
"""

from __future__ import annotations

import platform
import struct
import sys
from collections.abc import Mapping

# name: (x86-64, aarch64); aarch64 lacks some old ones.
CALLS: Mapping[str, tuple[int, int | None]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "close": (3, 57), "lseek": (8, 62),
    "fstat": (5, 80), "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233), "brk": (12, 214), "futex": (202, 98),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "restart_syscall": (219, 128), "set_robust_list": (273, 99), "rseq": (334, 293), "sched_yield": (24, 124),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "times": (100, 153), "getrusage": (98, 165),
    "getrandom": (318, 278), "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getuid": (102, 174),
    "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
# These may not make memory executable: the third argument is the protection.
NOT_EXECUTABLE: Mapping[str, tuple[int, int]] = {"mmap": (9, 222), "mprotect": (10, 226)}
PROT_EXEC = 4
# The names of `platform.machine` and the kernel's numbers.
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Calls of x32 carry this bit and have other numbers.
X32 = 0x40000000

KILL, REFUSE, ALLOW = 0x80000000, 0x00050001, 0x7FFF0000  # the process; EPERM; as usual
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# Offsets in struct seccomp_data; of an argument the lower half, which comes first on these architectures.
_NUMBER, _ARCHITECTURE, _THIRD_ARGUMENT = 0, 4, 32


def syscall_filter(machine: str | None = None) -> bytes:
    """The filter for an architecture (this one), empty where there is none."""
    machine = platform.machine() if machine is None else machine
    if sys.platform != "linux" or machine not in ARCHITECTURES:
        return b""
    column = list(ARCHITECTURES).index(machine)
    numbers = [call[column] for call in CALLS.values() if call[column] is not None]
    guarded = [call[column] for call in NOT_EXECUTABLE.values()]
    # Each jump goes over as many instructions as it says: to the three returns, or to the guard before them.
    n_left = len(numbers) + len(guarded)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, X32),
        (_RETURN, 0, 0, KILL),
    ]
    for place, number in enumerate([*guarded, *numbers]):
        rest = n_left - place - 1
        to_guard, to_allow = rest + 1, rest + 3
        program.append((_EQUAL, to_guard if place < len(guarded) else to_allow, 0, number or 0))
    program += [
        (_RETURN, 0, 0, REFUSE),
        (_LOAD, 0, 0, _THIRD_ARGUMENT),
        (_ANY_BIT, 1, 0, PROT_EXEC),
        (_RETURN, 0, 0, ALLOW),
        (_RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
