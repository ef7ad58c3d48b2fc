"""The store of chats: what is saved, found, and really gone."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.chats.record import ChatRecord
from edgellm.chats.store import ChatStore, NewMessage
from edgellm.errors import ChatChanged, ChatNotFound, CorruptFile, FileAccessError, UsageError


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
    with pytest.raises(CorruptFile, match="newer edgellm"):
        ChatStore.open(path)


FIRST_SCHEMA = """
CREATE TABLE chats (
    id TEXT PRIMARY KEY, model TEXT NOT NULL, system TEXT, created TEXT NOT NULL, updated TEXT NOT NULL
);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, chat TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
    place INTEGER NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL, created TEXT NOT NULL,
    finish_reason TEXT NOT NULL DEFAULT '', hidden INTEGER NOT NULL DEFAULT 0
);
INSERT INTO chats VALUES ('abc123', 'smollm2', NULL, '2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00+00:00');
INSERT INTO messages (chat, place, role, content, created) VALUES ('abc123', 1, 'user', 'Hello?', '2026-01-01');
PRAGMA user_version = 1;
"""


def test_a_database_without_titles_gets_them(path: Path) -> None:
    path.parent.mkdir()
    database = sqlite3.connect(path)
    database.executescript(FIRST_SCHEMA)
    database.close()
    for _ in range(2):
        with ChatStore.open(path) as store:
            assert [(chat.id, chat.title) for chat in store.chats()] == [("abc123", "Hello?")]
            store.remove([store.create("m", None)])
    with ChatStore.open(path) as store:
        store.rename("abc123", "  Greetings\nto all ")
        assert store.get("abc123").title == "Greetings to all"
        store.rename("abc123", "")
        assert store.get("abc123").title == "Hello?"


def test_messages_take_the_place_of_the_last_ones(path: Path) -> None:
    store, first, _ = filled(path)
    question, answer = (message.id for message in store.messages(first))
    (added,) = store.splice(first, answer, question, [NewMessage("assistant", "Another answer.", "stop")])
    assert [message.content for message in store.messages(first)][1:] == ["Another answer."]
    for last, after in ((answer, question), (None, None), (added, answer)):
        with pytest.raises(ChatChanged):
            store.splice(first, last, after, [NewMessage("user", "late")])
    with pytest.raises(ChatNotFound):
        store.splice("ffffff0", None, None, [NewMessage("user", "nowhere")])
    store.splice(first, added, None, [NewMessage("user", "all new", hidden=1), NewMessage("user", "seen")])
    assert [(message.content, message.hidden) for message in store.messages(first)] == [("all new", 1), ("seen", 0)]
    assert store.search("all new") and not store.search("furnace")
    store.close()


def test_after_a_summary_the_next_message_is_still_the_last(path: Path) -> None:
    store, first, _ = filled(path)
    ids = [message.id for message in store.messages(first)]
    _, summary = store.summarise(first, ids, "summarise", "a summary")
    store.splice(first, summary, summary, [NewMessage("user", "And then?")])
    assert [message.content for message in store.messages(first)][-2:] == ["a summary", "And then?"]
    store.close()


def test_hidden_messages_stay(path: Path) -> None:
    store, first, _ = filled(path)
    question, _ = (message.id for message in store.messages(first))
    store.hide(first, question)
    assert [message.hidden for message in store.messages(first)] == [1, 0]
    with pytest.raises(ChatChanged):
        store.hide(first, 999)
    assert [message.hidden for message in store.messages(first)] == [1, 0]
    store.close()


def test_what_another_writer_removed_is_not_lost_here(path: Path) -> None:
    store, first, _ = filled(path)
    record = ChatRecord.resume(store, store.get(first))
    with ChatStore.open(path) as other:
        other.remove_messages([message.id for message in other.messages(first)][1:])
        other.add(first, "user", "from elsewhere")
    record.replace_answer("a better answer", "stop")
    assert [message.content for message in store.messages(first)][1:] == ["from elsewhere", "a better answer"]
    assert record.entries[-1].row == store.messages(first)[-1].id
    with ChatStore.open(path) as other:
        other.remove_messages([message.id for message in other.messages(first)])
    with pytest.raises(ChatChanged):
        record.summarise(2, "summarise", "a summary")
    store.close()


def test_odd_texts_come_back(path: Path) -> None:
    texts = ["", "\x00", "\x1b[2J", "a\nb", "né 世界 🌍", "'\";--", "x" * 1_000_000]
    with ChatStore.open(path) as store:
        chat = store.create("m", "")
        for text in texts:
            store.add(chat, "user", text)
        store.add(chat, "user", "\udcff")
        assert [message.content for message in store.messages(chat)] == [*texts, "?"]
        assert store.get(chat).system == ""


@pytest.mark.parametrize("saved", [True, False])
def test_a_record_is_the_same_in_memory_and_in_the_store(path: Path, saved: bool) -> None:
    with ChatStore.open(path) as store:
        record = ChatRecord(store if saved else None, "m", "sys")
        for n in range(4):
            record.add("user", f"question {n}")
            record.add("assistant", f"answer {n}", "stop")
        record.replace_answer("better", "stop")
        assert [message["content"] for message in record.take_back(6)] == ["question 3", "better"]
        record.summarise(4, "summarise", "a summary")
        record.add("user", "and then?")
        visible = ["sys", "summarise", "a summary", "question 2", "answer 2", "and then?"]
        assert [message["content"] for message in record.messages] == visible
        assert len(store.chats()) == saved
        if record.chat is not None:
            assert ChatRecord.resume(store, store.get(record.chat)).messages == record.messages
            everything = [message["content"] for message in record.whole]
            assert everything[1:7] == ["question 0", "answer 0", "question 1", "answer 1", "summarise", "a summary"]
            assert "better" not in everything and len(everything) == 10
        else:
            assert record.whole == record.messages


WRITER = """
import sys
from pathlib import Path
from edgellm.chats.store import ChatStore
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
