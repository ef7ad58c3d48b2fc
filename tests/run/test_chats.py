"""The store of chats: what is saved, found, and really gone."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.errors import ChatNotFound, CorruptFile, FileAccessError, UsageError
from edgellm.run.chat_record import ChatRecord
from edgellm.run.chats import ChatStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "chats.sqlite3"


def filled(path: Path) -> tuple[ChatStore, str, str]:
    store = ChatStore.open(path)
    first, second = store.create("smollm2", "Be brief."), store.create("bitnet-2b", None)
    store.add(first, "user", "Why does the blast furnace get hot?")
    store.add(first, "assistant", "Because of the coke.", "stop")
    store.add(second, "user", "高炉炉温突然升高的原因有哪些？")
    store.add(second, "assistant", "焦炭质量的变化，100% 是 snake_case。", "stop")
    return store, first, second


def test_chats_are_there_when_opened_again(path: Path) -> None:
    store, first, second = filled(path)
    store.close()
    with ChatStore.open(path) as again:
        assert {chat.id for chat in again.chats()} == {first, second}
        assert again.get(first[:4] if first[:4] != second[:4] else first).title == "Why does the blast furnace get hot?"
        assert [message.content for message in again.messages(first)] == [
            "Why does the blast furnace get hot?",
            "Because of the coke.",
        ]
        assert again.get(first).system == "Be brief." and again.get(second).system is None
        assert again.recent_questions()[0].startswith("高炉")
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("furnace", 1), ("FURNACE", 1), ("blast furnace", 1), ("furnace blast", 1), ("urnac", 1), ("furnace coke", 0),
        ("高炉", 1), ("高", 1), ("炉温突然", 1), ("焦炭 质量", 1), ("焦炭质量的变化", 1), ("100%", 1),
        ("snake_case", 1), ("%", 1), ("_", 1), ('"', 0), ("' OR 1=1 --", 0), ("NOT", 0), ("*", 0), ("be\x00cause", 1),
        ("furnace\udcff", 0),
    ],
)  # fmt: skip
def test_search(path: Path, query: str, found: int, indexed: bool) -> None:
    store, *_ = filled(path)
    store.indexed = indexed  # what an SQLite without trigrams does
    assert len(store.search(query)) == found
    store.close()


def test_an_excerpt_shows_the_word(path: Path) -> None:
    with ChatStore.open(path) as store:
        chat = store.create("m", None)
        store.add(chat, "user", "a " * 500 + "needle" + " b" * 500)
        excerpt = store.search("Needle")[0].excerpt
    assert "needle" in excerpt and len(excerpt) < 120 and excerpt.startswith("…") and excerpt.endswith("…")


def test_what_is_removed_is_gone_from_the_disk(path: Path) -> None:
    store, first, second = filled(path)
    secret = "the password is xyzzy-1234"
    for n in range(50):
        store.add(first, "user", f"{secret} {n} " * 20)
    other = ChatStore.open(path)  # another process that has the file open
    assert other.search("xyzzy")
    store.remove([first])
    assert not other.search("xyzzy") and not store.search("coke") and store.search("高炉")
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"xyzzy" not in files and b"zzy" not in files and "高炉".encode() in files
    with pytest.raises(ChatNotFound):
        store.get(first)
    assert [chat.id for chat in store.chats()] == [second]
    with pytest.raises(ChatNotFound, match="removed meanwhile"):
        other.add(first, "user", "still there?")
    other.close()
    store.close()


def test_wrong_and_ambiguous_ids(path: Path) -> None:
    with ChatStore.open(path) as store:
        with pytest.raises(ChatNotFound, match="no chat to continue"):
            store.latest()
        for _ in range(300):
            store.create("m", None)
        with pytest.raises(UsageError, match="several"):
            store.get(
                next(first for first in "0123456789abcdef" if len([c for c in store.chats() if c.id[0] == first]) > 1)
            )
        for name in ("nosuch", "", "%", "_"):
            with pytest.raises(ChatNotFound):
                store.get(name)
        with pytest.raises(UsageError):
            store.search("  ")


def test_a_file_that_is_no_database_and_one_that_cannot_be_opened(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("this is no database at all, however long it is" * 50)
    with pytest.raises(CorruptFile, match="damaged") as caught:
        ChatStore.open(path)
    assert "mv " in caught.value.hint
    path.unlink()
    path.mkdir()
    with pytest.raises(FileAccessError):
        ChatStore.open(path)


def test_a_database_of_a_later_edgellm_is_left_alone(path: Path) -> None:
    ChatStore.open(path).close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(CorruptFile, match="later edgellm"):
        ChatStore.open(path)


def test_odd_texts_come_back(path: Path) -> None:
    texts = ["", "\x00", "\x1b[2J", "a\nb", "né 世界 🌍", "'\";--", "x" * 1_000_000]
    with ChatStore.open(path) as store:
        chat = store.create("m", "")
        for text in texts:
            store.add(chat, "user", text)
        store.add(chat, "user", "\udcff")
        assert [message.content for message in store.messages(chat)] == [*texts, "?"]
        assert store.get(chat).system == ""


def test_a_record_keeps_step_with_a_conversation(path: Path) -> None:
    with ChatStore.open(path) as store:
        record = ChatRecord(store, "m", "sys")
        assert store.chats() == []  # nothing is saved before there is something
        for n in range(4):
            record.ask(f"question {n}")
            record.answer(f"answer {n}", "stop")
        record.replace("better", "stop")
        record.take_back(2)
        record.summarise(4, "summarise", "a summary")
        record.ask("and then?")
        assert record.chat is not None
        _, visible = ChatRecord.resume(store, store.get(record.chat))
        assert [message["content"] for message in visible] == [
            "sys", "summarise", "a summary", "question 2", "answer 2", "and then?",
        ]  # fmt: skip
        everything = [message.content for message in store.messages(record.chat)]
        assert everything[:6] == ["question 0", "answer 0", "question 1", "answer 1", "summarise", "a summary"]
        assert "better" not in everything and len(everything) == 9


def test_a_private_record_saves_nothing() -> None:
    record = ChatRecord(None, "m", None)
    record.ask("q")
    record.answer("a", "stop")
    record.replace("b", "stop")
    record.summarise(2, "r", "s")
    record.take_back(1)
    assert record.chat is None and record.rows == []


WRITER = """
import sys
from pathlib import Path
from edgellm.run.chats import ChatStore
store = ChatStore.open(Path(sys.argv[1]))
chat = store.create("m", None)
for n in range(10_000):
    store.add(chat, "user", f"message number {n}")
    print(n, flush=True)
"""


def kill_and_count(path: Path, after: int) -> None:
    """Every message that the writer had reported is there after a kill -9, and the file is sound."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        reported = -1
        for line in writer.stdout:
            reported = int(line)
            if reported >= after:
                writer.kill()
                break
        rest = [int(line) for line in writer.stdout.read().split() if line.isdigit()]
        reported = max([reported, *rest])
    with ChatStore.open(path) as store:
        saved = [message.content for message in store.messages(store.latest().id)]
        assert saved[: reported + 1] == [f"message number {n}" for n in range(reported + 1)]
        assert len(saved) <= reported + 2 and len(store.search(f"number {reported}")) >= 1
        store.remove([store.latest().id])


def test_a_kill_loses_nothing_that_was_written(path: Path) -> None:
    for after in (0, 7, 23):
        kill_and_count(path, after)


@pytest.mark.soak
def test_fifty_kills_lose_nothing(path: Path) -> None:
    for n in range(50):
        kill_and_count(path, n * 37 % 90)


def test_two_writers_at_once(path: Path) -> None:
    program = WRITER.replace("10_000", "60")
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with ChatStore.open(path) as store:
        assert [chat.n_messages for chat in store.chats()] == [60, 60]
