"""An upgrade keeps models and chats: files of former versions, opened by this one."""

import gzip
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.chats.store import UPGRADES, VERSION, ChatStore, NewMessage
from edgellm.errors import CorruptFile
from edgellm.settings import Settings
from edgellm.tools.record import CallRecord
from tests.commands.cli import data, edgellm

FORMER = Path(__file__).parent / "former"
LONG, SHORT = "ce5fe0", "d358c1"
# Of the long chat: what the model sees, and what a summary has replaced.
SEEN = ["Summarise.", "The user asks for capitals.", "And of Norway?", "It is Oslo. 世界 🌍"]
HIDDEN = ["What is the capital of France?", "Paris."]


@pytest.fixture
def former(settings: Settings) -> Path:
    """The chats of version 1, where this version looks for them."""
    settings.data.mkdir(parents=True)
    settings.chats.write_bytes(gzip.decompress((FORMER / "chats.sqlite3.gz").read_bytes()))
    return settings.chats


def version_of(path: Path) -> int:
    database = sqlite3.connect(path)
    (found,) = database.execute("PRAGMA user_version").fetchone()
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()
    return int(found)


def check(store: ChatStore) -> None:
    """Everything of the former chats is there."""
    chats = {chat.id: chat for chat in store.chats()}
    assert set(chats) == {LONG, SHORT}
    assert (chats[LONG].model, chats[LONG].system, chats[LONG].docs) == ("smollm2", "Answer briefly.", None)
    assert chats[SHORT].title == "Write a poem about a furnace."
    messages = store.messages(LONG)
    assert [message.content for message in messages if not message.hidden] == SEEN
    assert [message.content for message in messages if message.hidden] == HIDDEN
    assert messages[-1].finish_reason == "length" and not messages[-1].citations and not messages[-1].calls
    assert [found.chat for found in store.search("furnace hums")] == [SHORT]


@pytest.mark.parametrize("version", range(1, VERSION))
def test_chats_of_every_version_come_along(version: int, former: Path) -> None:
    database = sqlite3.connect(former)
    for step in range(1, version):
        database.executescript(UPGRADES[step])
    database.execute(f"PRAGMA user_version = {version}")
    database.close()
    for _ in range(2):
        with ChatStore.open(former) as store:
            check(store)
    assert version_of(former) == VERSION


def test_a_former_chat_goes_on_with_what_is_new(former: Path) -> None:
    call = CallRecord("calculator", {"expression": "1+1"}, "2", False, (), (), 0.1)
    with ChatStore.open(former) as store:
        last = store.messages(LONG)[-1].id
        store.splice(LONG, last, last, [NewMessage("user", "1+1?"), NewMessage("assistant", "2.", calls=(call,))])
        store.rename(SHORT, "A poem")
    with ChatStore.open(former) as store:
        assert [each.name for each in store.messages(LONG)[-1].calls] == ["calculator"]
        assert store.get(SHORT).title == "A poem"
        assert [found.chat for found in store.search("1+1?")] == [LONG]
        store.remove([LONG])
        assert not store.search("Norway")


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(former: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {**UPGRADES, VERSION - 1: "ALTER TABLE nosuch ADD COLUMN x;"}
    monkeypatch.setattr("edgellm.chats.store.UPGRADES", broken)
    with pytest.raises(CorruptFile):
        ChatStore.open(former)
    assert version_of(former) == 1
    monkeypatch.undo()
    with ChatStore.open(former) as store:
        check(store)


OPEN = (
    "import sys; from pathlib import Path; from edgellm.chats.store import ChatStore; ChatStore.open(Path(sys.argv[1]))"
)


def test_programs_that_upgrade_at_the_same_time(former: Path) -> None:
    running = [subprocess.Popen([sys.executable, "-c", OPEN, str(former)]) for _ in range(4)]
    assert [process.wait(60) for process in running] == [0, 0, 0, 0]
    with ChatStore.open(former) as store:
        check(store)


def test_the_verbs_show_former_chats(former: Path) -> None:
    listed = data(edgellm("chats", "ls", "--json"))
    assert {chat["id"] for chat in listed} == {LONG, SHORT}
    assert all(text in edgellm("chats", "show", LONG).stdout for text in SEEN)
    assert version_of(former) == VERSION


@pytest.mark.engine
@pytest.mark.model
def test_a_former_model_answers_in_a_former_chat(former: Path, with_engine: Settings, smollm2: Path) -> None:
    # A store of this test's own, in which the manifest names the file by its whole path.
    with_engine.models.unlink()
    file = with_engine.models / "smollm2" / smollm2.name
    file.parent.mkdir(parents=True)
    file.symlink_to(smollm2)
    manifest = json.loads((FORMER / "smollm2.json").read_text(encoding="utf-8"))
    assert Path(manifest["path"]).name == file.name and "parts" not in manifest
    (with_engine.models / "smollm2.json").write_text(json.dumps({**manifest, "path": str(file)}))

    assert [model["name"] for model in data(edgellm("list", "--json"))] == ["smollm2"]
    assert edgellm("verify", "smollm2").returncode == 0
    answer = edgellm("chat", "--id", LONG, "--temp", "0", "--max-tokens", "8", stdin="And of Spain?\n")
    assert answer.returncode == 0 and answer.stdout.strip()
    with ChatStore.open(former) as store:
        assert [message.content for message in store.messages(LONG)][-2] == "And of Spain?"
