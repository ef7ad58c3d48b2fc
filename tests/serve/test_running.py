"""Records of running servers, ended processes, and the server's log."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.errors import UsageError
from edgellm.machine.identity import Identity, identify
from edgellm.serve.logs import logging_to
from edgellm.serve.options import ServeOptions
from edgellm.serve.records import Record, ServerNotFound, abandoned, end_orphans, find, running, stop
from edgellm.settings import Settings

Process = subprocess.Popen[bytes]


@pytest.fixture
def child() -> Iterator[Process]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


@pytest.fixture
def stubborn() -> Iterator[Process]:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def known(pid: int) -> Identity:
    who = identify(pid)
    assert who is not None
    return who


def record(settings: Settings, process: Identity, *, port: int = 11435, workers: tuple[Identity, ...] = ()) -> Record:
    made = Record.of(settings.servers, ServeOptions(port=port, api_keys=frozenset({"sesame"})), ("smollm2",))
    made.server = replace(made.server, process=process, workers=workers)
    made.write()
    return made


def test_a_record_lives_as_long_as_its_process(settings: Settings, child: Process) -> None:
    made = record(settings, known(child.pid))
    assert running(settings.servers) == [made.server] and made.server.needs_key
    assert b"sesame" not in made._path.read_bytes()
    child.kill()
    child.wait()
    assert running(settings.servers) == [] and not list(settings.servers.iterdir())


def test_a_process_id_given_again_is_no_server(settings: Settings, child: Process) -> None:
    other = Identity(child.pid, known(child.pid).started - 3600)
    record(settings, other, workers=(other,))
    assert running(settings.servers) == [] and abandoned(settings.servers) == []
    assert not list(settings.servers.iterdir()) and child.poll() is None


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", "[" * 100_000, '{"process": {"pid": 1}}', "\x00\xff",
        json.dumps({"process": {"pid": -5, "started": 0}, "url": "http://x", "host": "x", "port": 1, "models": [],
                    "needs_key": False, "drain_seconds": 1, "workers": []}),
        json.dumps({"process": {"pid": 2**70, "started": 0}, "url": "http://x", "host": "x", "port": 1, "models": [],
                    "needs_key": False, "drain_seconds": 1, "workers": []}),
    ],
)  # fmt: skip
def test_damaged_records_are_put_away(settings: Settings, text: str) -> None:
    settings.servers.mkdir(parents=True)
    (settings.servers / "1.json").write_text(text)
    assert running(settings.servers) == [] and not list(settings.servers.iterdir())


def test_workers_that_a_killed_front_left_are_ended(settings: Settings, child: Process) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as front:
        dead = known(front.pid)
        front.kill()
    record(settings, dead, workers=(known(child.pid),))
    (left,) = abandoned(settings.servers)
    assert running(settings.servers) == [] and end_orphans(left) == 1
    assert child.wait(5) != 0 and abandoned(settings.servers) == []


def test_what_does_not_listen_is_ended_by_force(settings: Settings, stubborn: Process) -> None:
    made = record(settings, known(stubborn.pid))
    begin = time.monotonic()
    assert stop(settings.servers, made.server, grace=0.3) is False
    assert 0.3 <= time.monotonic() - begin < 5 and stubborn.wait(5) == -9
    assert running(settings.servers) == []


def test_a_worker_is_added_to_what_is_written(settings: Settings, child: Process) -> None:
    made = record(settings, known(os.getpid()))
    made.add_worker(child.pid)
    assert [worker.pid for worker in running(settings.servers)[0].workers] == [child.pid]
    made.remove()
    assert running(settings.servers) == []


def test_finding_one_of_several(settings: Settings, child: Process) -> None:
    first = record(settings, known(os.getpid()), port=11435).server
    second = record(settings, known(child.pid), port=8080).server
    servers = running(settings.servers)
    assert servers == [second, first] and find(servers, 8080) == second and find([first], None) == first
    with pytest.raises(UsageError, match="on ports 8080, 11435"):
        find(servers, None)
    with pytest.raises(ServerNotFound) as missing:
        find(servers, 11434)
    assert missing.value.hint == "--port 11435"
    with pytest.raises(ServerNotFound):
        find([], 8080)


def test_the_log_keeps_no_keys_and_needs_no_disk(settings: Settings, tmp_path: Path) -> None:
    path = settings.logs / "serve.log"
    log = logging.getLogger("edgellm.serve")
    with logging_to(path, secrets={"sesame-123"}):
        log.info("somebody sent %s", "sesame-123")
        try:
            raise RuntimeError("sesame-123")
        except RuntimeError:
            log.exception("failed")
    log.warning("after the end")
    text = path.read_text()
    assert "somebody sent ***" in text and "Traceback" in text
    assert "sesame" not in text and "after" not in text and not log.handlers
    (tmp_path / "file").touch()
    with logging_to(tmp_path / "file" / "serve.log"):
        log.info("nowhere")
