"""`edgellm chats`, saved piped chats, and the guard and the limits in `run`, as a user meets them."""

import json
from pathlib import Path

import pytest

from edgellm.chats.store import ChatStore
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error

QUESTION = "What is the capital of France?"
SEA = "Write a long poem about the sea."


@pytest.fixture
def chat(settings: Settings) -> str:
    """A saved chat."""
    with ChatStore.open(settings.chats) as store:
        chat = store.create("smollm2", "Be brief.")
        store.add(chat, "user", "高炉炉温突然升高的原因有哪些？ \x1b[2J")
        store.add(chat, "assistant", "Coke, blast and ore.", "stop")
    return chat


def test_listing_showing_and_searching(chat: str) -> None:
    assert [entry["id"] for entry in data(edgellm("chats", "ls", "--json"))] == [chat]
    listed = edgellm("chats", "ls")
    assert chat in listed.stdout and "高炉" in listed.stdout and "\x1b" not in listed.stdout
    shown = data(edgellm("chats", "show", chat[:5], "--json"))
    assert [message["role"] for message in shown["messages"]] == ["user", "assistant"] and shown[
        "system"
    ] == "Be brief."
    assert "## assistant\n\nCoke" in edgellm("chats", "show", chat).stdout
    assert [found["chat"] for found in data(edgellm("chats", "search", "炉温", "高炉", "--json"))] == [chat]
    assert data(edgellm("chats", "search", "nothing-of-that", "--json")) == []
    assert edgellm("chats", "search", "nothing-of-that").stdout == ""


def test_renaming(chat: str) -> None:
    assert (
        data(edgellm("chats", "rename", chat[:5], "Iron and \x1b[2Jcoke", "--json"))["title"] == "Iron and \x1b[2Jcoke"
    )
    listed = edgellm("chats", "ls").stdout
    assert "Iron and" in listed and "\x1b" not in listed
    assert "高炉" in edgellm("chats", "rename", chat, "").stderr
    assert error(edgellm("chats", "rename", "nosuch", "x", "--json"))["code"] == "chat-not-found"


def test_exporting(chat: str, tmp_path: Path) -> None:
    assert edgellm("chats", "export", chat).stdout.startswith("# A chat with smollm2")
    assert data(edgellm("chats", "export", chat, "--json"))["messages"][0] == {"role": "system", "content": "Be brief."}
    file = tmp_path / "chat.json"
    assert edgellm("chats", "export", chat, "-o", str(file)).returncode == 0
    assert len(json.loads(file.read_text())["messages"]) == 3
    again = edgellm("chats", "export", chat, "-o", str(file))
    assert again.returncode == 2 and "exists already" in again.stderr


def test_removing(chat: str, settings: Settings) -> None:
    assert edgellm("chats", "rm").returncode == 2
    assert edgellm("chats", "rm", chat, "--all").returncode == 2
    missing = edgellm("chats", "rm", chat, "nosuch", "--json")
    assert missing.returncode == 1 and error(missing)["code"] == "chat-not-found"
    assert len(data(edgellm("chats", "ls", "--json"))) == 1  # all or none
    assert data(edgellm("chats", "rm", chat, "--json")) == [{"id": chat}]
    assert data(edgellm("chats", "ls", "--json")) == [] and data(edgellm("chats", "rm", "--all", "--json")) == []
    assert "高炉".encode() not in b"".join(file.read_bytes() for file in settings.chats.parent.glob("chats*"))


def test_a_damaged_file_of_chats(settings: Settings) -> None:
    settings.chats.parent.mkdir(parents=True)
    settings.chats.write_bytes(b"no database" * 1000)
    for arguments in (["chats", "ls"], ["chats", "rm", "--all"], ["chat", "smollm2"]):
        result = edgellm(*arguments, stdin="")
        assert result.returncode == 6 and "damaged" in result.stderr and "try: mv" in result.stderr


def test_nothing_to_continue(settings: Settings) -> None:
    result = edgellm("chat", "--continue", stdin="")
    assert result.returncode == 1 and "no chat to continue" in result.stderr
    assert edgellm("chat", "--id", "nosuch", stdin="").returncode == 1
    assert edgellm("chat", "--continue", "--private", stdin="").returncode == 2


@pytest.mark.engine
@pytest.mark.model
def test_a_piped_chat_is_saved_and_goes_on(with_engine: Settings) -> None:
    first = edgellm("chat", "smollm2", "--temp", "0", stdin=f"{QUESTION}\n")
    ran = edgellm("run", "smollm2", QUESTION, "--temp", "0")
    assert "Paris" in first.stdout and first.stdout == ran.stdout
    edgellm("chat", "--continue", "--temp", "0", "-n", "8", stdin="What did I ask?\n")
    shown = data(edgellm("chats", "show", data(edgellm("chats", "ls", "--json"))[0]["id"], "--json"))
    assert [message["content"] for message in shown["messages"]][::2] == [QUESTION, "What did I ask?"]
    assert [message["finish_reason"] for message in shown["messages"]] == ["", "stop", "", "length"]
    edgellm("chat", "smollm2", "--private", "--temp", "0", "-n", "4", stdin="Hello.\n")
    assert len(data(edgellm("chats", "ls", "--json"))) == 1


@pytest.mark.engine
@pytest.mark.model
def test_a_loop_in_run(with_engine: Settings) -> None:
    stopped = data(edgellm("run", "smollm2", SEA, "--temp", "0", "-n", "300", "--json"))
    assert stopped["stats"]["finish_reason"] == "repetition" and stopped["stats"]["dropped_tokens"] > 100
    assert len(stopped["text"].split()) < 150
    going = data(edgellm("run", "smollm2", SEA, "--temp", "0", "-n", "300", "--json", "--no-loop-guard"))
    assert going["stats"]["finish_reason"] == "length" and going["text"].startswith(stopped["text"])
    retried = edgellm("run", "smollm2", SEA, "--temp", "0", "-n", "300", "--on-loop", "retry")
    assert "going on from before the loop" in retried.stderr
    assert retried.stdout.startswith(stopped["text"].rstrip()) and retried.stdout.strip() != stopped["text"].strip()
    said = edgellm("run", "smollm2", SEA, "--temp", "0", "-n", "300")
    assert "[stopped: " in said.stderr and "times]" in said.stderr


@pytest.mark.engine
@pytest.mark.model
def test_a_time_limit(with_engine: Settings) -> None:
    answer = data(edgellm("run", "smollm2", SEA, "--max-time", "0.5", "--no-loop-guard", "--json", "-c", "2048"))
    assert answer["stats"]["finish_reason"] == "time"
    assert answer["stats"]["prefill_seconds"] + answer["stats"]["decode_seconds"] < 5


@pytest.mark.engine
@pytest.mark.model
def test_a_chat_in_a_form(with_engine: Settings) -> None:
    result = edgellm(
        "chat", "smollm2", "--private", "--temp", "0", "--format", "json", stdin="The capital of France?\n"
    )
    assert result.returncode == 0 and isinstance(json.loads(result.stdout), dict), result.stdout
