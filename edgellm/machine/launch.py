"""Runs a program that ends when its parent ends, even when the parent is killed; `child.tethered` writes the command.

python -I launch.py PARENT_PID PROGRAM [ARGUMENT...]

On Linux the kernel does it. Elsewhere a killed parent leaves its child behind, and `edgellm stop` ends it.
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
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before the call
            return
    os.execv(program, sys.argv[2:])  # noqa: S606, an argument list without a shell


if __name__ == "__main__":
    main()
