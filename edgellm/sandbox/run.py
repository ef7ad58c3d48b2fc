"""Runs Python code that nobody has read in a child process that closes itself first.

    ran = run("print(input())", stdin="7", limits=CodeLimits(seconds=2))
    ran.stdout, ran.exit        # "7\\n", 0

The child imports a list of standard modules, gives up everything else, reports that it did, and runs the code. Where
the system cannot close it nothing runs, unless the user allows it. docs/explanation/sandbox.md says what is closed.
"""

from __future__ import annotations

import base64
import math
import os
import signal
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edgellm.errors import SandboxOpen
from edgellm.machine.child import MOST_OUTPUT, Child, ChildFailed, Program, how_it_ended
from edgellm.sandbox.filter import syscall_filter
from edgellm.settings import is_true

# Set to 1, it lets code run where the child cannot be closed.
VARIABLE = "EDGELLM_OPEN_SANDBOX"
START_SECONDS = 30.0
# The same answer must get the same verdict: the order of sets depends on this seed.
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8:replace", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """The most that code may take: seconds of time, as much CPU time, and bytes of address space."""

    seconds: float = 5.0
    memory: int = 512 << 20


@dataclass(frozen=True, slots=True)
class Ran:
    """What code did. `stdout` is all that it printed, `stderr` the end of its errors.

    `exit` is the exit status, negative for a signal, and None if it was stopped. `why` is empty for exit status 0.
    """

    stdout: str
    stderr: str
    exit: int | None
    why: str = ""


USUAL_LIMITS = CodeLimits()


def run(code: str, stdin: str = "", limits: CodeLimits = USUAL_LIMITS) -> Ran:
    """Run code until it ends or reaches a limit.

    Raises:
        SandboxOpen: the child cannot be closed on this system.
    """
    cell = Path(__file__).with_name("cell.py")
    # Without `site`: no packages, and no start-up files of the user.
    program = Program([sys.executable, "-s", "-S", "-B", str(cell)], ENVIRONMENT, Path("/"))
    request = {
        "code": code, "stdin": stdin, "memory": limits.memory, "cpu_seconds": math.ceil(limits.seconds),
        "filter": base64.b64encode(syscall_filter()).decode(), "may_be_open": is_true(os.environ.get(VARIABLE)),
    }  # fmt: skip
    with Child(program, name="the code") as child:
        child.send(request)
        try:
            closing = child.receive(START_SECONDS)
        except ChildFailed as failed:
            raise _open(failed.why) from failed
        if closing.get("open"):
            raise _open(str(closing["open"]))
        return _ran(child, limits)


@lru_cache(maxsize=1)
def require_closed() -> None:
    """Return if code can run here.

    Raises:
        SandboxOpen: the child cannot be closed on this system, and the user did not allow that.
    """
    run("")


def _ran(child: Child, limits: CodeLimits) -> Ran:
    """What the child does from now on."""
    code: int | None = None
    try:
        code = child.finish(limits.seconds)
        why = "" if code == 0 else _why(code, limits)
    except ChildFailed:
        is_full = len(child.output) > MOST_OUTPUT
        why = f"it printed more than {MOST_OUTPUT >> 20} MiB" if is_full else f"it took more than {limits.seconds:g} s"
    return Ran(child.output.decode(errors="replace"), child.errors.decode(errors="replace"), code, why)


def _why(code: int, limits: CodeLimits) -> str:
    """Why it ended, and not well."""
    if code == -signal.SIGXCPU:
        return f"it took more than {limits.seconds:g} s"
    if code == -signal.SIGKILL:
        return "it was killed: it took too much time or memory"
    return how_it_ended(code)


def _open(why: str) -> SandboxOpen:
    return SandboxOpen(
        "the code is not run: the sandbox cannot be closed here", why=why, hint=f"{VARIABLE}=1 runs it all the same"
    )
