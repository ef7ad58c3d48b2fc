"""The child that `sandbox.run` starts: it closes itself, says so, and then runs the code of its request.

python -s -S -B cell.py        # a request as a line of JSON on standard input

It answers {"closed": true} or {"open": WHY} in its first line; what the code prints follows, and the exit status is the
code's. Only the standard library: this file runs before edgellm can be found.
"""

import sys

# The directory of this file: its modules would hide those of the standard library.
del sys.path[0]

import ctypes  # noqa: E402
import importlib  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import linecache  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import signal  # noqa: E402
import traceback  # noqa: E402
import types  # noqa: E402

# All that code can import: nothing is read from a disk later.
MODULES = (
    "abc array ast base64 binascii bisect calendar cmath codecs collections collections.abc colorsys contextlib "
    "copy csv dataclasses datetime decimal difflib enum fractions functools hashlib heapq io itertools json "
    "keyword math numbers operator pathlib pprint queue random re secrets statistics string struct textwrap "
    "threading time traceback types typing unicodedata warnings weakref zlib _strptime encodings.ascii "
    "encodings.latin_1 encodings.utf_16 encodings.idna"
)
FILE = "answer.py"
LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
LANDLOCK_CREATE_RULESET, LANDLOCK_RESTRICT_SELF = 444, 446


class CannotClose(Exception):
    """The system refuses a step."""


class Instructions(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("first", ctypes.c_char_p))


def prctl(option: int, *arguments: object) -> None:
    """Call prctl; CannotClose if it fails."""
    values = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    values += [ctypes.c_ulong(0)] * (4 - len(values))
    if LIBC.prctl(ctypes.c_int(option), *values) != 0:
        raise CannotClose(f"the kernel refuses prctl({option}): {os.strerror(ctypes.get_errno())}")


def limit(memory: int, cpu_seconds: int) -> None:
    """Set the limits that every system has; after a second more than its CPU time the process is killed."""
    limits = {
        resource.RLIMIT_CORE: (0, 0),
        resource.RLIMIT_FSIZE: (0, 0),
        resource.RLIMIT_CPU: (cpu_seconds, cpu_seconds + 1),
        resource.RLIMIT_AS: (memory, memory),
        resource.RLIMIT_NPROC: (0, 0),
    }
    for name, values in limits.items():
        try:
            resource.setrlimit(name, values)
        except (ValueError, OSError) as error:
            if name != resource.RLIMIT_AS or sys.platform == "linux":  # macOS does not know it
                raise CannotClose(f"the system refuses a limit: {error}") from None


def fence_files() -> None:
    """Forbid all files, ports and signals by Landlock, as far as the kernel has it; the filter forbids them as well."""
    version = LIBC.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    files = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    rules = (ctypes.c_uint64 * 3)(files, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    size = ctypes.c_size_t(24 if version >= 6 else 16 if version >= 4 else 8)
    ruleset = LIBC.syscall(LANDLOCK_CREATE_RULESET, rules, size, 0)
    if ruleset < 0 or LIBC.syscall(LANDLOCK_RESTRICT_SELF, ruleset, 0) != 0:
        raise CannotClose(f"Landlock fails: {os.strerror(ctypes.get_errno())}")
    os.close(ruleset)


def close(instructions: bytes) -> None:
    """Give up all but computing; there is no way back."""
    if not instructions:
        raise CannotClose("there is no filter for this system and CPU")
    os.closerange(3, 1 << 16)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    fence_files()
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))  # Landlock needed one more
    program = Instructions(len(instructions) // 8, instructions)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))


def execute(code: str, stdin: str) -> int:
    """Run code as a program; its exit status."""
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode(errors="replace")), encoding="utf-8")
    # What is printed before a limit is reached counts.
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", errors="replace", line_buffering=True)
    sys.argv = [FILE]
    linecache.cache[FILE] = (len(code), None, code.splitlines(keepends=True), FILE)
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(compile(code, FILE, "exec"), main.__dict__)  # noqa: S102, that is what all this is for
    except SystemExit:
        raise
    except BaseException as error:
        # The first frame is ours.
        traceback.print_exception(type(error), error, error.__traceback__ and error.__traceback__.tb_next)
        return 1
    return 0


def say(message: dict[str, object]) -> None:
    """Send the first line."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Close, answer, run."""
    request = json.loads(sys.stdin.buffer.readline())
    for name in MODULES.split():
        importlib.import_module(name)
    sys.modules["random"].seed(0)
    instructions = __import__("base64").b64decode(request["filter"])
    try:
        limit(request["memory"], request["cpu_seconds"])
        close(instructions)
    except (CannotClose, OSError, AttributeError) as failure:
        if not request["may_be_open"]:
            say({"open": str(failure)})
            return
    # What is left is built in or frozen; ctypes is of no use any more.
    sys.meta_path[:] = sys.meta_path[:2]
    for name in [each for each in sys.modules if each.partition(".")[0] in ("ctypes", "_ctypes", "resource")]:
        del sys.modules[name]
    say({"closed": True})
    sys.exit(execute(request["code"], request["stdin"]))


if __name__ == "__main__":
    main()
