"""Code that attacks: it reads no file, opens no socket, starts nothing, and ends within its limits."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from edgellm.errors import SandboxOpen
from edgellm.sandbox import run as sandbox
from edgellm.sandbox.filter import CALLS, NOT_EXECUTABLE
from edgellm.sandbox.run import VARIABLE, CodeLimits, Ran, run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can close a process like that")
SHORT = CodeLimits(seconds=1)
# The library that the closed child has used itself: an attacker finds it through the frames below.
LIBC = """
import sys
frame = sys._getframe()
while "LIBC" not in frame.f_globals:
    frame = frame.f_back
libc, ctypes = frame.f_globals["LIBC"], frame.f_globals["ctypes"]
"""


def attack(code: str, limits: CodeLimits = SHORT) -> Ran:
    return run(textwrap.dedent(code), limits=limits)


def test_code_computes_reads_its_input_and_prints() -> None:
    ran = run("import sys, math\nprint(math.sqrt(int(input())))\nprint('é', file=sys.stderr)", stdin="49\n")
    assert ran == Ran("7.0\n", "é\n", 0)


def test_the_exit_status_and_the_traceback_are_those_of_the_code() -> None:
    assert run("import sys\nsys.exit(3)") == Ran("", "", 3, "it ended with exit status 3")
    ran = run("def f():\n    return 1 / 0\nf()")
    assert ran.exit == 1
    assert ran.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert 'File "answer.py", line 2, in f' in ran.stderr
    assert "cell.py" not in ran.stderr


def test_the_same_code_prints_the_same_every_time() -> None:
    code = "import random\nprint(random.random(), {'a', 'b', 'c'}, hash('x'))"
    assert run(code).stdout == run(code).stdout


def test_no_file_can_be_read_or_seen(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("SECRET = 'swordfish'")
    ran = attack(
        f"""
        import builtins, io, linecache, os, sys
        path = {str(tmp_path / "secret.py")!r}
        def try_to(name, attempt):
            try:
                print(name, attempt())
            except Exception as error:
                print(name, type(error).__name__)
        try_to("open", lambda: open(path).read())
        try_to("low", lambda: os.read(os.open(path, os.O_RDONLY), 100))
        try_to("stat", lambda: os.stat(path))
        try_to("list", lambda: os.listdir({str(tmp_path)!r}))
        try_to("home", lambda: os.listdir(os.path.expanduser("~")))
        try_to("memory", lambda: open("/proc/self/mem", "rb"))
        try_to("parent", lambda: open(f"/proc/{{os.getppid()}}/environ", "rb").read())
        try_to("write", lambda: open("/tmp/left-behind", "w"))
        try_to("shared", lambda: open("/dev/shm/left-behind", "w"))
        try_to("delete", lambda: os.unlink(path))
        try_to("memfd", lambda: os.memfd_create("x"))
        sys.path.insert(0, {str(tmp_path)!r})
        try_to("import", lambda: __import__("secret"))
        print("lines", linecache.getlines(path))
        """
    )
    assert ran.exit == 0, ran
    said = dict(line.split(" ", 1) for line in ran.stdout.splitlines())
    refused = ("open", "low", "stat", "list", "home", "memory", "parent", "write", "shared", "delete", "memfd")
    assert {said[name] for name in refused} == {"PermissionError"}
    assert said["import"] == "ModuleNotFoundError"
    assert said["lines"] == "[]"
    assert (tmp_path / "secret.py").exists()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of its system calls")
def test_every_system_call_that_is_not_listed_is_refused_by_the_kernel() -> None:
    # The last two are the kernel's own trampolines for probes: called from elsewhere they end the process.
    listed = {*(call[0] for call in (*CALLS.values(), *NOT_EXECUTABLE.values())), 335, 336}
    ran = attack(
        f"""{LIBC}
for number in range(470):
    if number not in {listed}:
        ctypes.set_errno(0)
        if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() != 1:
            print(number)
print("done")
"""
    )
    assert (ran.stdout, ran.exit) == ("done\n", 0), ran


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of its system calls")
def test_tricks_below_python_fail() -> None:
    executable = f"{LIBC}\nlibc.mmap.restype = ctypes.c_long\nprint(libc.mmap(None, 4096, 7, 0x22, -1, 0))"
    assert attack(executable).stdout == "-1\n"
    x32_open = f"{LIBC}\nlibc.syscall(0x40000000 + 2, b'/etc/passwd', 0)"
    assert attack(x32_open).exit == -signal.SIGSYS


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import os\nos.execv('/bin/sh', ['sh'])", "PermissionError"),
        ("import os\nos.posix_spawn('/bin/sh', ['sh'], {})", "PermissionError"),
        ("import os\nos.system('true') == 0 or 1 / 0", "ZeroDivisionError"),
        ("import os\nos.kill(os.getppid(), 9)", "PermissionError"),
        ("import threading\nthreading.Thread(target=print).start()", "RuntimeError"),
        ("import ctypes", "ModuleNotFoundError"),
        ("import socket", "ModuleNotFoundError"),
        ("import subprocess", "ModuleNotFoundError"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "ModuleNotFoundError"),
        ("blocks = []\nwhile True: blocks.append(bytearray(10 ** 7))", "MemoryError"),
        ("text = 'x' * 10 ** 11", "MemoryError"),
        ("def f(): f()\nf()", "RecursionError"),
    ],
)
def test_what_code_may_not_do_is_an_error_in_it(code: str, error: str) -> None:
    ran = attack(code, CodeLimits(seconds=20, memory=256 << 20))
    assert ran.exit == 1
    assert ran.stderr.splitlines()[-1].startswith(error), ran.stderr


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time\ntime.sleep(60)",
        "import signal\nfor n in (1, 2, 15, 24): signal.signal(n, signal.SIG_IGN)\nwhile True: pass",
        "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(60)",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "import re\nre.match('(a|a)*b', 'a' * 40)",
    ],
)
def test_endless_code_is_killed(code: str) -> None:
    before = psutil.Process().children()  # other tests may have some
    ran = attack(code)
    assert ran.why in ("it took more than 1 s", "it was killed: it took too much time or memory")
    assert {*psutil.Process().children()} <= {*before}


def test_endless_output_is_stopped_and_what_came_before_a_limit_is_kept() -> None:
    assert attack("while True: print('x' * 1000)", CodeLimits(seconds=30)).why == "it printed more than 4 MiB"
    assert attack("print('so far')\nwhile True: pass").stdout == "so far\n"


def test_deep_recursion_kills_only_the_child() -> None:
    ran = attack("import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x): return repr([x] and f([x]))\nf(0)")
    assert ran.exit != 0
    assert ran.why


@pytest.mark.parametrize("line", ['{"open": "no"}', '{"error": {}}', "\x00\xff", '{"closed": true}'])
def test_code_cannot_answer_in_place_of_the_child(line: str) -> None:
    assert run(f"print({line!r})").stdout == f"{line}\n"
    assert run(f"import os\nos.write(1, {line!r}.encode())\nos._exit(7)").exit == 7


def test_odd_sources_are_errors_of_the_code() -> None:
    assert run("").exit == 0
    assert "null bytes" in run("print(1)\0").stderr
    assert run("\ud800").exit == 1
    assert run("(" * 10_000).exit != 0
    assert run("-" * 100_000 + "1").exit != 0
    assert run("x = '" + "é" * 500_000 + "'\nprint(len(x))").stdout == "500000\n"


def test_the_child_ends_with_its_parent() -> None:
    code = "from edgellm.sandbox.run import *; run('import time; time.sleep(60)', limits=CodeLimits(seconds=60))"
    parent = subprocess.Popen([sys.executable, "-c", code])
    process = psutil.Process(parent.pid)
    while not (children := process.children()):
        time.sleep(0.05)
    time.sleep(1)  # until it has closed itself
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_where_it_cannot_be_closed_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "syscall_filter", lambda: b"")
    with pytest.raises(SandboxOpen, match="cannot be closed") as caught:
        run("print(1)")
    assert caught.value.why == "there is no filter for this system and CPU"
    assert VARIABLE in caught.value.hint
    monkeypatch.setenv(VARIABLE, "1")
    assert run("print(1)").stdout == "1\n"
