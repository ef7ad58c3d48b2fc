"""The file of answers: whole after kills, private, bounded, and shared by processes."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from edgellm.cache.store import AnswerStore, discard
from edgellm.errors import AnswerNotFound, CorruptFile

WRITER = """
import sys
from pathlib import Path
from edgellm.cache.store import AnswerStore
store = AnswerStore.open(Path(sys.argv[1]))
for number in range(100_000):
    store.put("s", f"question {sys.argv[2]} {number}", {"text": "x" * 2000}, text="x", model="m")
    print(number, flush=True)
"""


def put(store: AnswerStore, question: str, text: str = "yes", **more: object) -> None:
    store.put("s", question, {"text": text}, text=text, model="m", **more)  # type: ignore[arg-type]


def test_an_answer_is_found_after_normalising_and_only_in_its_scope(tmp_path: Path) -> None:
    with AnswerStore.open(tmp_path / "a.sqlite3") as store:
        put(store, "Is it  open?")
        found = store.exact("s", "is it OPEN ?")
        assert found is not None and found.answer == {"text": "yes"} and store.exact("t", "Is it open?") is None
        put(store, "is it open", "no")
        assert [each.text for each in store.entries()] == ["no"]


def test_the_file_is_private(tmp_path: Path) -> None:
    with AnswerStore.open(tmp_path / "a.sqlite3") as store:
        put(store, "a secret")
        for path in tmp_path.glob("a.sqlite3*"):
            assert path.suffix == ".lock" or stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_what_is_too_old_or_too_much_is_dropped(tmp_path: Path) -> None:
    now = [1000.0]
    with AnswerStore.open(tmp_path / "a.sqlite3", most_days=1, most_bytes=5000, clock=lambda: now[0]) as store:
        for number in range(5):
            now[0] += 1
            put(store, f"question {number}", "x" * 1000)
        assert [each.question for each in store.entries()] == ["question 4", "question 3", "question 2", "question 1"]
        first = store.exact("s", "question 1")
        assert first is not None
        store.used(first.id)
        now[0] += 1
        put(store, "question 5", "x" * 1000)
        assert store.exact("s", "question 1") and not store.exact("s", "question 2")
        put(store, "too large", "x" * 2_000_000)
        assert store.exact("s", "too large") is None
        now[0] += 86_401
        assert store.exact("s", "question 1") is None and store.entries() == []


def test_the_nearest_vectors_come_first(tmp_path: Path) -> None:
    with AnswerStore.open(tmp_path / "a.sqlite3") as store:
        for name, vector in (("x", [1, 0]), ("y", [0, 1]), ("xy", [0.8, 0.6])):
            put(store, name, vector=np.array(vector, np.float32), embedder="e")
        put(store, "none")
        put(store, "another", vector=np.array([1, 0], np.float32), embedder="f")
        found = store.similar("s", np.array([1, 0], np.float32), "e")
        assert [(entry.question, round(cosine or 0, 2)) for entry, cosine in found] == [("x", 1), ("xy", 0.8), ("y", 0)]


def test_observations_are_those_of_their_entry_and_go_with_it(tmp_path: Path) -> None:
    with AnswerStore.open(tmp_path / "a.sqlite3") as store:
        put(store, "q")
        entry = store.entries()[0].id
        store.observe(entry, 0.8, right=True)
        store.observe(999, 0.8, right=True)
        assert store.observations(entry) == [(0.8, True)]
        store.remove([entry])
        assert store.observations(entry) == []
        with pytest.raises(AnswerNotFound):
            store.get(entry)


def test_a_kill_at_any_moment_leaves_the_file_whole_and_a_second_process_writes_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    n_seen = 0
    for attempt in range(2):
        names = ("left", "right") if attempt % 2 else ("one",)
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(path), f"{name}{attempt}"], stdout=subprocess.PIPE)
            for name in names
        ]
        for writer in writers:
            assert writer.stdout is not None
            for _ in range(5):
                assert writer.stdout.readline()
                n_seen += 1
        time.sleep(0.01 * attempt)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.communicate()
        with AnswerStore.open(path) as store:
            assert len(store.entries()) >= n_seen
        check = sqlite3.connect(path)
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        check.close()


def test_a_damaged_file_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite3"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(CorruptFile) as caught:
        AnswerStore.open(path)
    assert caught.value.hint == "edgellm cache rm --all"
    discard(path)
    with AnswerStore.open(path) as store:
        put(store, "q")
    base = sqlite3.connect(path)
    base.execute("PRAGMA user_version = 99")
    base.close()
    with pytest.raises(CorruptFile, match="newer"):
        AnswerStore.open(path)
