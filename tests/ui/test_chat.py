"""A chat in a real terminal: its commands, what is saved of it, and everything that may happen to a terminal."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pexpect
import psutil
import pytest

from edgellm.chats.store import ChatStore
from edgellm.models.local.store import Store
from edgellm.settings import Settings, resource_directory
from tests.commands.cli import data, edgellm
from tests.ui.test_terminal import PROMPT, STATUS

pytestmark = [pytest.mark.engine, pytest.mark.model]
Chat = "pexpect.spawn[str]"
COUNT = "Count from 1 to 1000, one number a line.\r"


@pytest.fixture
def start(with_engine: Settings) -> Iterator[Callable[..., Any]]:
    """Begins a chat in a terminal, up to its first prompt."""
    children: list[Any] = []

    def begin(*arguments: str, **environment: str) -> Any:
        command = ["-m", "edgellm", "chat", *arguments, "--temp", "0"]
        child = pexpect.spawn(
            sys.executable,
            command,
            encoding="utf-8",
            codec_errors="replace",
            dimensions=(30, 120),
            timeout=90,
            # Nobody answers where the cursor is here; what is typed while the prompt waits for that may be lost.
            env={**os.environ, "PROMPT_TOOLKIT_NO_CPR": "1", **environment},
        )
        children.append(child)
        child.expect("Ctrl-D leaves")
        child.expect(PROMPT)
        return child

    yield begin
    for child in children:
        with suppress(OSError):  # closed by the test
            child.close(force=True)


def say(chat: Any, text: str, *expected: str) -> None:
    """Type a line, wait for what it should bring and for the next prompt."""
    chat.send(f"{text}\r")
    for pattern in expected:
        chat.expect(pattern)
    chat.expect(PROMPT)


def saved(settings: Settings) -> list[str]:
    """The messages of the latest chat."""
    with ChatStore.open(settings.chats) as store:
        return [message.content for message in store.messages(store.latest().id)]


def test_a_chat_and_its_commands(start: Callable[..., Any], settings: Settings, tmp_path: Path) -> None:
    editor = tmp_path / "editor.sh"
    editor.write_text('#!/bin/sh\nprintf "What is the capital of Spain?" > "$1"\n')
    editor.chmod(0o755)
    note = tmp_path / "note.txt"
    note.write_text("The code word is \x1b[31m\x1b]0;owned\x07bluebird.")
    chat = start("smollm2", VISUAL=str(editor))
    say(chat, "What is the capital of France?", "Paris")  # a quick answer is there before its numbers
    say(chat, "/regen", "temperature 0 gives the same answer", "Paris")
    assert len(saved(settings)) == 2
    chat.send("\x18\x05")  # Ctrl-X Ctrl-E: the editor's text stands on the line
    chat.expect("Spain")
    chat.send("\r")
    chat.expect("Madrid")
    chat.expect(PROMPT)
    assert saved(settings)[2] == "What is the capital of Spain?"
    chat.send("/edit\r")
    chat.expect("capital of Spain")
    chat.send("\x15What is the capital of Italy?\r")
    chat.expect("Rome")
    chat.expect(PROMPT)
    assert saved(settings)[2] == "What is the capital of Italy?" and len(saved(settings)) == 4
    say(chat, "/undo", "taken back: What is the capital of Italy")
    assert len(saved(settings)) == 2
    say(chat, f"/file {note}", r"note.txt: \d+ tokens, which go with the next question")
    say(chat, "/file /no/such/file", "there is no file")
    say(chat, f"/file {sys.executable}", "is (not a text|too large)")
    say(chat, '"""')
    say(chat, "What is")
    say(chat, 'the code word?"""', STATUS)
    assert "note.txt" in saved(settings)[2] and saved(settings)[2].endswith("What is\nthe code word?")
    say(chat, f"/save {tmp_path / 'chat.json'}", "written")
    say(chat, f"/save {tmp_path / 'chat.json'}", "exists already")
    assert len(json.loads((tmp_path / "chat.json").read_text())["messages"]) >= 4
    say(chat, "/system", "no system message")
    say(chat, "/model", "smollm2")
    say(chat, "/model nosuch", "no model|nosuch")
    say(chat, "/model smollm2", "Ctrl-D leaves")
    say(chat, "/stats", "ended by")
    say(chat, "/compact", r"the chat was \d+ tokens and is \d+ now")
    say(chat, "Thanks.", STATUS)
    assert len(saved(settings)) == 8
    say(chat, "/clear", "is saved; a new chat begins")
    say(chat, f"/load {tmp_path / 'chat.json'}", "4 messages")
    chat.send("/exit\r")
    chat.expect(pexpect.EOF)
    listed = data(edgellm("chats", "ls", "--json"))
    assert len(listed) == 2 and {entry["n_messages"] for entry in listed} == {4, 8}
    assert data(edgellm("chats", "search", "bluebird", "--json"))
    shown = pexpect.run(f"{sys.executable} -m edgellm chats show {listed[0]['id']}").decode()
    assert "bluebird" in shown and "\x1b]0" not in shown and "\x07" not in shown


def test_another_model_comes_with_its_own_settings(
    start: Callable[..., Any], with_engine: Settings, tmp_path: Path
) -> None:
    """The recipe's, but for what the user asked for; a model that cannot chat changes nothing."""
    ours = Store(with_engine.models).get("smollm2")
    with_engine.models.unlink()  # a link to the real ones, which stay as they are
    store, recipes = Store(with_engine.models), with_engine.config / "recipes"
    recipes.mkdir(parents=True)
    text = (resource_directory("recipes") / "smollm2.toml").read_text()
    changes = {
        'system = ""': 'system = "You are a pirate."',
        "temperature = 0.2\ntop_p = 0.9": "top_p = 0.5\ntop_k = 7",
    }
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    (recipes / "pirate.toml").write_text(text)
    for name in ("smollm2", "pirate"):
        store.add(replace(ours, name=name))

    chat = start("smollm2", "--seed", "5", "-n", "10")
    say(chat, "What is the capital of France?", "Paris")
    say(chat, "/set min_p 0.01", "0.01")
    for refused, why in (
        ("minilm", "not a chat model"),
        ("bitnet-3b", "not a chat model"),
        (sys.executable, "error"),
        (__file__, "error"),
    ):
        say(chat, f"/model {refused}", why)
        say(chat, "/model", "smollm2 ")
    say(chat, "/model pirate", "Ctrl-D leaves")
    say(chat, "/set", *(rf"{setting} +(?:\x1b\[[\d;]*m)*{value} " for setting, value in {
        "temp": 0, "top_k": 7, "top_p": 0.5, "min_p": 0.01, "seed": 5}.items()))  # fmt: skip
    say(chat, "/system", "You are a pirate.")
    say(chat, "Count from 1 to 1000.", "stopped after 10 tokens")
    assert len(saved(with_engine)) == 4
    with ChatStore.open(with_engine.chats) as chats:
        assert (chats.latest().model, chats.latest().system) == ("pirate", "You are a pirate.")
    say(chat, "/system Be brief.", "a new chat begins")
    say(chat, "/model smollm2", "Ctrl-D leaves")
    say(chat, "/system", "Be brief.")
    say(chat, "/set", *(rf"{setting} +(?:\x1b\[[\d;]*m)*{value} " for setting, value in {
        "temp": 0, "top_k": 40, "top_p": 0.9, "min_p": 0.01}.items()))  # fmt: skip


def test_a_kill_loses_at_most_the_running_answer(start: Callable[..., Any], settings: Settings) -> None:
    chat = start("smollm2")
    say(chat, "What is the capital of France?", "Paris")
    chat.send(COUNT)
    chat.expect(STATUS)
    os.kill(chat.pid, signal.SIGKILL)
    chat.expect(pexpect.EOF)
    assert len(saved(settings)) == 3 and saved(settings)[-1] == COUNT.strip()
    chat = start("--continue", "-n", "5")
    assert "the last question has no answer" in chat.before
    say(chat, "/regen", "stopped after 5 tokens")
    assert len(saved(settings)) == 4
    chat.send("\x1b[A" * 3)  # earlier questions come back, of earlier chats too
    chat.expect("France")


def test_the_terminal_goes_away(start: Callable[..., Any], settings: Settings) -> None:
    chat = start("smollm2")
    chat.send(COUNT)
    for _ in range(4):  # the first may come before the first token
        chat.expect(STATUS)
    process = psutil.Process(chat.pid)
    os.close(chat.child_fd)
    deadline = time.monotonic() + 30
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    assert saved(settings)[0] == COUNT.strip() and len(saved(settings)) == 2


def test_ctrl_c_while_reading_and_twice_while_answering(start: Callable[..., Any], settings: Settings) -> None:
    chat = start("smollm2", "-t", "1")
    say(chat, "What is the capital of France?", STATUS)
    chat.send("word " * 600 + "\r")
    chat.expect("reading the prompt")
    chat.sendintr()
    chat.expect(r"\[stopped\]")
    chat.expect(PROMPT)
    assert len(saved(settings)) == 2  # a question without any answer is not kept
    chat.send(COUNT)
    chat.expect(STATUS)
    chat.setwinsize(20, 50)  # a smaller window meanwhile
    chat.expect("memory")
    chat.sendintr()
    chat.expect(r"\[stopped\]")
    chat.expect(PROMPT)
    chat.send(COUNT)
    chat.expect("tok/s")
    os.kill(chat.pid, signal.SIGSTOP)
    for _ in range(2):  # as one pressed during one long computation
        os.kill(chat.pid, signal.SIGINT)
    os.kill(chat.pid, signal.SIGCONT)
    index = chat.expect([r"\[stopped\]", pexpect.EOF])
    if index == 0:  # two signals at the same time are one
        chat.expect(PROMPT)
        chat.send("/exit\r")
        chat.expect(pexpect.EOF)
    assert saved(settings)[2] == COUNT.strip()


def test_a_paste_of_100_000_characters(start: Callable[..., Any], settings: Settings) -> None:
    chat = start("smollm2")
    text = "0123456789 word\n" * 6250
    chat.delaybeforesend = None
    chat.send("\x1b[200~" + text[:-1] + "\x1b[201~")
    chat.send("\r")
    chat.expect(r"the prompt has [\d,]+ tokens, the context holds 8,192")
    chat.expect(PROMPT)
    say(chat, "What is the capital of France?", "Paris")
    assert len(saved(settings)) == 2


def test_a_loop_is_stopped_and_regenerated(start: Callable[..., Any], settings: Settings) -> None:
    chat = start("smollm2", "-n", "1200")
    say(chat, "Write a long poem about the sea.", r"repeats x\d+", r"\[stopped: .* came \d+ times\]", "/regen goes on")
    first = saved(settings)[-1]
    say(chat, "/regen", STATUS)
    assert saved(settings)[-1].startswith(first) and len(saved(settings)[-1]) > len(first)


def test_a_private_chat_saves_nothing(start: Callable[..., Any], settings: Settings) -> None:
    chat = start("smollm2", "--private")
    say(chat, "What is the capital of France?", "Paris")
    chat.send("/exit\r")
    chat.expect(pexpect.EOF)
    assert not settings.chats.exists()


def test_the_context_nearly_full_is_announced(start: Callable[..., Any]) -> None:
    chat = start("smollm2", "-c", "256", "-n", "20")
    say(chat, "word " * 205, r"the context is \d+% full: \d+/256")
    assert re.search("/set ctx 512 makes it", chat.before)
    say(chat, "/set ctx 512", "ctx +512")
    say(chat, "Thanks.", "tok/s")
    say(chat, "/stats", r"context \d+/512")
