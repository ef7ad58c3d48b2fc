"""Child processes: tiny real programs that die, hang, print without end or rubbish, and outlive nobody."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from edgellm.errors import DoesNotFit, EngineError
from edgellm.machine.async_child import AsyncChild
from edgellm.machine.child import (
    Child,
    ChildFailed,
    Program,
    WaitHooks,
    WaitInterrupted,
    as_raised,
    describe,
    module,
    parse,
    tethered,
)

ECHO = """
from edgellm.machine.async_child import AsyncChild
from edgellm.machine.child import open_answers, requests
answer = open_answers()
print("this is no answer")
for request in requests():
    answer(request, b"\\x00\\n" * request.get("zeros", 0))
"""
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="only its kernel can")
SLEEP = "import time; time.sleep(60)"


def python(code: str, *, interrupted: bool = False) -> Child:
    hooks = WaitHooks(interrupted=lambda: interrupted)
    return Child(Program([sys.executable, "-c", code]), name="the child", hooks=hooks)


@asynccontextmanager
async def async_python(code: str, *, interactive: bool = True, most: int = 1 << 16) -> AsyncIterator[AsyncChild]:
    program = Program([sys.executable, "-c", code])
    nowhere = asyncio.subprocess.DEVNULL
    child = await AsyncChild.start(program, name="the child", errors=nowhere, interactive=interactive, most=most)
    try:
        yield child
    finally:
        await child.stop(grace=0)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


@pytest.mark.parametrize(
    ("code", "what", "why"),
    [
        ("raise SystemExit(3)", "failed", "exit status 3"),
        ("print('bye', file=__import__('sys').stderr); raise SystemExit(1)", "failed", "its last words: bye"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "failed", "SIGILL"),
        ("import os; os.kill(os.getpid(), 9)", "failed", "SIGKILL, as when memory runs out"),
        ("print('{\"seconds\": 1', end=''); raise SystemExit(4)", "failed", "exit status 4"),
        ("import os, time; os.close(1); time.sleep(60)", "failed", "SIGKILL"),
        (SLEEP, "gives no answer", "it was given 1 s"),
        ("while True: print('x' * 100000, end='')", "does not stop printing", "4 MiB"),
        ("print('<html>')", "gave no sensible answer", "<html>"),
        ("print('[1, 2]')", "gave no sensible answer", "[1, 2]"),
        ("print('[' * 100000)", "gave no sensible answer", "[[["),
    ],
)
def test_a_child_that_misbehaves_is_one_clear_error(code: str, what: str, why: str) -> None:
    with python(code) as child, pytest.raises(ChildFailed, match=f"the child {what}") as caught:
        child.receive(limit=1 if code == SLEEP else 30)
    assert why in caught.value.why
    assert not psutil.pid_exists(child.pid)


def test_a_child_that_floods_its_errors_does_not_block() -> None:
    with python("import sys; sys.stderr.write('x' * 10_000_000); print('done')") as child:
        assert child.line(limit=30) == b"done"


def test_messages_go_both_ways_and_bytes_may_follow() -> None:
    with python(ECHO) as child:
        child.send({"text": "Grüße\n"})
        assert child.receive(limit=30) == {"text": "Grüße\n"}
        child.send({"zeros": 50_000})
        assert child.receive(limit=30) == {"zeros": 50_000} and child.read(100_000, limit=30) == b"\0\n" * 50_000
        os.kill(child.pid, 9)
        child.send({"text": "anybody there?"})
        with pytest.raises(ChildFailed, match="the child failed"):
            child.receive(limit=30)


def test_a_child_can_be_asked_whether_it_has_said_something() -> None:
    with python(ECHO) as child:
        assert child.poll(0) is None
        child.send({"text": "a"})
        child.send({"error": describe(DoesNotFit("it needs more"))})
        assert child.poll(30) == {"text": "a"}
        with pytest.raises(DoesNotFit, match="needs more"):
            child.poll(30)
        assert child.poll(0.01) is None
        os.kill(child.pid, 9)
        with pytest.raises(ChildFailed, match="the child failed"):
            child.poll(30)


def test_a_program_that_ends_by_itself_is_read_whole() -> None:
    with python("print('a'); print('b')") as child:
        assert child.everything(limit=30) == b"a\nb\n"
    with python("print('a'); raise SystemExit(5)") as child, pytest.raises(ChildFailed, match="failed") as caught:
        child.everything(limit=30)
    assert "exit status 5" in caught.value.why


def test_its_memory_is_sampled_while_we_wait() -> None:
    with python("import time; x = b'x' * 100_000_000; time.sleep(1); print('done')") as child:
        child.line(limit=30)
        assert child.peak_resident is None or child.peak_resident > 100_000_000


def test_an_error_keeps_its_class_and_its_facts() -> None:
    error = DoesNotFit("it needs more", why="2 GB are free", hint="a smaller one", needed=7)
    described = parse(b'{"error": ' + repr(describe(error)).replace("'", '"').encode() + b"}", "the child")["error"]
    again = as_raised(described)
    assert type(again) is DoesNotFit and describe(again) == describe(error)
    assert type(as_raised({**described, "code": "of-the-future"})) is EngineError


def test_a_child_and_what_it_started_end_together() -> None:
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); p.wait()"
    with python(code) as child:
        grandchild = psutil.Process(int(child.line(limit=30)))
        assert grandchild.is_running()
    assert grandchild.wait(5) is None or not grandchild.is_running()


def test_the_user_may_stop_waiting() -> None:
    start = time.monotonic()
    with python(SLEEP, interrupted=True) as child, pytest.raises(WaitInterrupted):
        child.line(limit=60)
    assert time.monotonic() - start < 10


def test_a_program_that_is_none_cannot_be_started(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"\x00\x01")
    (tmp_path / "program").chmod(0o755)
    program = Program([str(tmp_path / "program")])
    with pytest.raises(ChildFailed, match="cannot be started"):
        Child(program, name="the child")
    with pytest.raises(ChildFailed, match="cannot be started"):
        asyncio.run(AsyncChild.start(program, name="the child", errors=asyncio.subprocess.DEVNULL, interactive=True))


def test_a_module_finds_edgellm_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory holds a module that would get in the way."""
    (tmp_path / "edgellm.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    program = module("edgellm", "--version")
    with Child(program, name="edgellm") as child:
        assert child.everything(limit=30).startswith(b"edgellm")


READER = f"Child(Program([sys.executable, '-c', {ECHO!r}]), name='the child')"
SLEEPER = "Child(tethered(['/bin/sleep', '600']), name='the child')"


@pytest.mark.parametrize("child", [READER, pytest.param(SLEEPER, marks=only_linux)])
def test_a_child_ends_with_a_parent_that_is_killed(child: str) -> None:
    """A reader sees the end of its input, a tethered program is killed by the kernel."""
    imports = "import sys, time; from edgellm.machine.child import Child, Program, tethered"
    with python(f"{imports}; child = {child}; print(child.pid, flush=True); time.sleep(60)") as parent:
        grandchild = psutil.Process(int(parent.line(limit=30)))
        assert grandchild.is_running()
        os.kill(parent.pid, 9)
        psutil.wait_procs([grandchild], timeout=10)
        assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_a_tethered_program_is_the_program_itself() -> None:
    with Child(tethered([sys.executable, "-c", "import os; print(os.getpid())"]), name="the child") as child:
        assert int(child.line(limit=30)) == child.pid


def test_lines_of_an_asynchronous_child() -> None:
    async def test() -> None:
        async with async_python(ECHO) as child:
            lines = child.lines()
            for text in ("one", "two"):
                child.send({"text": text})
                assert parse(await anext(lines), child.name) == {"text": text}
            child.kill()
            assert [line async for line in lines] == [] and await child.wait() == -9 and not child.is_alive
            child.send({"text": "anybody there?"})
        async with async_python("print('abc', end='')") as child:
            assert [line async for line in child.lines()] == [b"abc"]
        async with async_python("print('x' * 3000); print('y')", most=1000) as child:
            pieces = [line async for line in child.lines()]
            assert b"".join(pieces) == b"x" * 3000 + b"\ny\n" and max(map(len, pieces)) <= 3000 and len(pieces) > 2

    run(test())


@pytest.mark.parametrize("interactive", [True, False])
def test_an_asynchronous_child_is_asked_to_end_before_it_is_killed(interactive: bool) -> None:
    ends = "import sys; sys.stdin.read()" if interactive else "import signal, sys; signal.pause()"
    stays = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"

    async def test() -> None:
        async with async_python(ends, interactive=interactive) as child:
            await child.stop(grace=30)
            assert await child.wait() == (0 if interactive else -15)
        async with async_python(stays, interactive=interactive) as child:
            assert await anext(child.lines()) == b"\n"
            await child.stop(grace=0.2)
            assert await child.wait() == -9

    run(test())
