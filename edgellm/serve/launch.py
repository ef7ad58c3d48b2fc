"""Runs a program that ends when its parent ends, even when that is killed.

python -I launch.py PARENT_PID PROGRAM [ARGUMENT...]

On Linux the kernel is asked for it; elsewhere a parent that is killed leaves its child, and `edgellm stop` ends it.
Only the standard library: this file runs before edgellm can be found.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Become the program."""
    parent, program = int(sys.argv[1]), sys.argv[2]
    os.setsid()  # Ctrl-C is for the front, which ends its workers in order
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the kernel was asked
            return
    os.execv(program, sys.argv[2:])  # noqa: S606, an argument list without a shell


if __name__ == "__main__":
    main()
