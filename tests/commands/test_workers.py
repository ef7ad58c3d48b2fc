"""A model on several machines, as a user has it: run, chat, serve, fit and bench with `--workers`, and lost workers."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from edgellm.api import OpenModel
from edgellm.chats.chat import Chat
from edgellm.engine.rpc.address import parse_addresses
from edgellm.errors import WorkerLost
from edgellm.run.answer_options import AnswerOptions
from edgellm.run.generation import Limits
from edgellm.run.loader import LoadOptions
from edgellm.settings import Settings
from edgellm.ui.chat_models import ChatModels
from edgellm.ui.chat_screen import ChatAnswer, ChatScreen
from edgellm.ui.options import JsonOutput
from edgellm.workspace import workspace
from tests.commands.cli import data, edgellm, error
from tests.engine.rpc.workers import Link, WorkerProcess
from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.model]

QUESTION = "Write a very long story about the sea, with many chapters."
GREEDY = ("--temp", "0", "-c", "1024", "-t", "1")
LONG = (QUESTION, "-n", "900", "-c", "1024", "-t", "1", "--no-loop-guard", "--seed", "3")


def text_of(*arguments: str) -> str:
    return str(data(edgellm("run", "smollm2", QUESTION, *GREEDY, "-n", "48", "--json", *arguments))["text"])


def begun(*arguments: str) -> "subprocess.Popen[str]":
    """`edgellm run` with a long answer, of which the first words have come."""
    process = subprocess.Popen(
        [sys.executable, "-m", "edgellm", "run", "smollm2", *LONG, "--quiet", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.read(10)
    return process


def lost(process: "subprocess.Popen[str]", address: str, *words: str) -> None:
    """Its answer ends with one clear error, and nothing else is said."""
    _, said = process.communicate(timeout=60)
    errors = said.splitlines()
    assert process.returncode == 4, said
    assert errors[0] == f"error: the worker at {address} is lost"
    assert len(errors) == 3 and errors[2].startswith("  try: ")
    assert all(word in errors[1] for word in words), said


def test_run_and_fit_on_two_workers(with_engine: Settings) -> None:
    with WorkerProcess() as first, WorkerProcess() as second:
        both = ("--workers", f"{first.address},{second.address}")
        assert text_of(*both) == text_of("--draft", "off")
        fit = data(edgellm("fit", "smollm2", "-c", "1024", *both, "--json"))
        shares = fit["machines"]
        assert [each["machine"] for each in shares] == ["here", *both[1].split(",")]
        assert sum(each["n_layers"] for each in shares) == 30
        assert all(0 < each["total"] <= each["available"] for each in shares)
        shown = edgellm("fit", "smollm2", "-c", "1024", *both).stdout
        assert re.search(rf"^{re.escape(first.address)} +\d+ ", shown, re.MULTILINE), shown


@pytest.mark.soak
def test_bench_on_two_workers(with_engine: Settings) -> None:
    with WorkerProcess() as first, WorkerProcess() as second:
        both = ("--workers", f"{first.address},{second.address}")
        speed = data(edgellm("bench", "smollm2", "-p", "16", "-n", "4", "-r", "1", "-t", "1", *both, "--json"))
        assert [each["name"] for each in speed["contenders"]] == ["smollm2 Q4_1 on 2 workers"]


def test_a_worker_that_is_killed_in_an_answer(with_engine: Settings) -> None:
    with WorkerProcess() as worker:
        process = begun("--workers", worker.address)
        worker.kill()
        lost(process, worker.address, "its process was ended")


@pytest.mark.soak
def test_a_link_that_is_cut_in_an_answer(with_engine: Settings) -> None:
    with WorkerProcess() as worker, Link(worker.address) as link:
        process = begun("--workers", link.address)
        link.cut()
        lost(process, link.address, "the link is cut")


def test_a_worker_of_another_version(with_engine: Settings, tmp_path: Path) -> None:
    program = (
        "import dataclasses, sys\n"
        "from edgellm.engine.builds import installed\n"
        "from edgellm.commands import worker\n"
        "whole = worker.building_workspace\n"
        "class Other:\n"
        "    def __init__(self, **how): self.here = whole(**how)\n"
        "    @property\n"
        "    def installed_engine(self):\n"
        "        found = self.here.installed_engine\n"
        "        return dataclasses.replace(found, record=dataclasses.replace(found.record, stamp='0' * 12))\n"
        "worker.building_workspace = Other\n"
        "from edgellm.cli import main\n"
        "main()\n"
    )
    with WorkerProcess(program=program) as other:
        for arguments in (("run", "smollm2", "hi"), ("fit", "smollm2")):
            result = edgellm(*arguments, "--workers", other.address, "--json")
            assert result.returncode == 4
            found = error(result)
            assert (found["code"], found["what"]) == (
                "worker-refused", f"the worker at {other.address} runs another version",
            )  # fmt: skip


def test_a_piped_chat_ends_and_a_chat_goes_on_with_what_is_left(with_engine: Settings) -> None:
    with WorkerProcess() as first, WorkerProcess() as second:
        load = LoadOptions(n_ctx=512, n_threads=1, workers=parse_addresses(f"{first.address},{second.address}"))
        options = AnswerOptions({"temperature": 0.0}, Limits(16))
        with ChatModels(workspace(), load, "never", quiet=True) as models:
            chat = Chat(models.open("smollm2"), options)
            screen = ChatScreen(chat, switch=lambda _: None, reopen=lambda: chat.use(models.reopen()), quiet=True)
            output = JsonOutput("chat", as_json=True)
            assert isinstance(screen.answer_lines(["What is the capital of France?"], output), ChatAnswer)
            second.kill()
            with pytest.raises(WorkerLost):
                screen.answer_lines(["And of Spain?"], output)
            after = screen.answer_lines(["And of Spain?"], output)
            assert after is not None and after.text
            assert isinstance(chat.model, OpenModel)
            split = chat.model.split
            assert split is not None and [str(share.address) for share in split.workers] == [first.address]


def test_a_server_whose_worker_is_killed_says_so_and_goes_on(with_engine: Settings, tools: Path) -> None:
    messages = [{"role": "user", "content": QUESTION}]
    asked = {"model": "smollm2", "messages": messages, "temperature": 0, "max_tokens": 16}
    with WorkerProcess() as first, WorkerProcess() as second:
        server = Server.start("smollm2", "-c", "1024", "--slots", "1", "--workers", f"{first.address},{second.address}")
        with server:
            before = server.post("/v1/chat/completions", asked).json()["choices"][0]["message"]["content"]
            long = {**asked, "stream": True, "max_tokens": 900, "loop_guard": False}
            request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(long).encode())
            request.add_header("Content-Type", "application/json")
            with urllib.request.urlopen(request, timeout=60) as reply:
                assert any(b'"content":"' in line for line in reply)
                second.kill()
                last = json.loads(reply.read().decode().strip().rpartition("data: ")[2])
            assert last["error"]["code"] == "worker-lost", last
            assert f"the worker at {second.address} is lost" in last["error"]["message"]
            end = time.monotonic() + 60
            while (after := server.post("/v1/chat/completions", asked)).status == 503 and time.monotonic() < end:
                time.sleep(0.5)
            assert after.json()["choices"][0]["message"]["content"] == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run", "smollm2", "hi", "--layers-here", "3"), "--layers-here is for a model on workers"),
        (("run", "smollm2", "hi", "--workers", "a:b"), "is no address"),
        (("run", "smollm2", "hi", "--workers", "a:1", "--server", "http://a"), "--workers are for a model"),
        (("fit", "smollm2", "--layers-here", "3"), "--layers-here is for a model on workers"),
        (("serve", "--workers", "a:1"), "--workers needs one model"),
        (("bench", "smollm2", "--workers", "a:1", "--against", "stock"), "--workers takes one model"),
    ],
)
def test_what_does_not_go_together(with_engine: Settings, arguments: tuple[str, ...], words: str) -> None:
    result = edgellm(*arguments, "--json")
    assert result.returncode == 2
    assert words in error(result)["what"]
