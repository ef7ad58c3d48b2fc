"""Collections: what changed is read again, nothing is lost or twice, one bad file harms no other."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.documents import extraction
from edgellm.documents.collection import Collection
from edgellm.documents.embedder import ChunkEmbedder
from edgellm.documents.index import Outcome, add_roots, share_not_english, update
from edgellm.documents.search import Passage, Searcher, fuse
from edgellm.documents.shelf import Shelf
from edgellm.errors import CollectionNotFound, CorruptFile, FileAccessError, UsageError
from edgellm.models.recipe import Prefixes
from tests.documents import files


class Words:
    """An embedding model whose vectors are the words of a text: exact, and quick."""

    name = "words"

    def tokenize(self, text: str) -> list[int]:
        return [hash(word) for word in text.split()]

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.zeros((len(texts), 64), np.float32)
        for at, text in enumerate(texts):
            for word in text.lower().split():
                vectors[at, sum(word.encode()) % 64] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)


EMBEDDER = ChunkEmbedder(Words(), multilingual=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some documents."""
    place = tmp_path / "manuals"
    (place / "deep").mkdir(parents=True)
    (place / "a.md").write_text("# Warranty\n\nThe warranty is 24 months.\n")
    (place / "deep" / "b.txt").write_text("Cleaning\n\nUse a soft cloth, no alcohol.\n")
    return place


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.open(tmp_path / "c.sqlite3")


def read_in(collection: Collection, *paths: Path, embedder: ChunkEmbedder | None = None) -> Outcome:
    add_roots(collection, paths)
    return update(collection, embedder)


def states(outcome: Outcome) -> dict[str, str]:
    return {file.name: file.state for file in outcome.files}


def found(collection: Collection, question: str, embedder: ChunkEmbedder | None = None) -> list[Passage]:
    return Searcher(collection, embedder).search(question)


def test_only_what_changed_is_read_again(folder: Path, collection: Collection) -> None:
    assert states(read_in(collection, folder)) == {"a.md": "added", "deep/b.txt": "added"}
    assert states(read_in(collection, folder)) == {"a.md": "unchanged", "deep/b.txt": "unchanged"}
    os.utime(folder / "a.md")
    assert states(update(collection, None))["a.md"] == "unchanged"
    (folder / "a.md").write_text("# Warranty\n\nThe warranty is 36 months.\n")
    (folder / "deep" / "b.txt").unlink()
    (folder / "c.txt").write_text("New text.\n")
    assert states(update(collection, None)) == {"a.md": "changed", "c.txt": "added", "deep/b.txt": "removed"}
    assert "36 months" in found(collection, "warranty")[0].text and not found(collection, "alcohol")


def test_what_cannot_be_read_is_one_line_each(folder: Path, collection: Collection, tmp_path: Path) -> None:
    (folder / "locked.pdf").write_bytes(files.pdf(["x"], encrypted=True))
    (folder / "empty.txt").touch()
    os.mkfifo(folder / "pipe")
    (tmp_path / "outside.txt").write_text("outside")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "new\nline.txt").write_text("A name with a new line.\n")
    (folder / os.fsdecode(b"bad\xff.txt")).write_text("A name that is no text.\n")
    outcome = read_in(collection, folder)
    reasons = {file.name: file.error for file in outcome.files if file.error}
    assert set(reasons) == {"locked.pdf", "empty.txt", "pipe", "link.txt"}
    assert all(reason and "\n" not in reason for reason in reasons.values())
    assert {"new\\nline.txt", "bad\\xff.txt"} <= {file.name for file in collection.files()}
    assert found(collection, "name that is no text")[0].file == "bad\\xff.txt"
    assert states(update(collection, None))["locked.pdf"] == "unreadable"


def change_reader(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Run some code in the readers' process before it begins."""
    real = extraction.module

    def program(name: str) -> object:
        made = real(name)
        start = "sys.argv = ['x']; runpy.run_module('edgellm.documents.extraction', run_name='__main__')"
        whole = f"import os, runpy, signal, sys\n{code}\n{start}"
        return type(made)([sys.executable, "-W", "ignore", "-c", whole], made.env, made.cwd)

    monkeypatch.setattr(extraction, "module", program)


def test_a_reader_that_dies_harms_no_other_file(
    folder: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_reader(
        monkeypatch,
        "import edgellm.documents.readers.choose as c; old = c.read\n"
        "def read(path):\n"
        "    if path.name == 'a.md': os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return old(path)\n"
        "c.read = read",
    )
    outcome = read_in(collection, folder)
    assert states(outcome) == {"a.md": "unreadable", "deep/b.txt": "added"}
    assert "SIGSEGV" in outcome.files[0].error


def test_a_missing_package_leaves_out_its_files_only_until_it_is_there(
    folder: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "c.pdf").write_bytes(files.pdf(["The fan runs at 1,200 rpm."]))
    with monkeypatch.context() as without:
        change_reader(without, "sys.modules['pypdfium2'] = None")
        outcome = read_in(collection, folder)
        assert states(outcome) == {"a.md": "added", "c.pdf": "unreadable", "deep/b.txt": "added"}
        reason = next(file.error for file in outcome.files if file.error)
        assert "pypdfium2 is missing" in reason and "pip install" in reason
    assert states(update(collection, None))["c.pdf"] == "added"


def test_a_file_that_fails_keeps_its_old_text_until_it_is_read(collection: Collection, folder: Path) -> None:
    read_in(collection, folder)
    (state,) = [file for file in collection.files() if file.name == "a.md"]
    before = collection.n_chunks
    with pytest.raises(RuntimeError), collection.replacing(state):  # type: ignore[arg-type]
        raise RuntimeError
    assert collection.n_chunks == before


def test_vectors_find_what_words_cannot(folder: Path, collection: Collection) -> None:
    outcome = read_in(collection, folder, embedder=EMBEDDER)
    assert outcome.n_vectors == 2 and collection.n_without_vector == 0
    searcher = Searcher(collection, EMBEDDER)
    assert searcher.by_meaning("the warranty is")[0] == searcher.by_words("warranty")[0]
    assert searcher.by_meaning("保修期是多久") == []  # vectors of a language it does not know only mislead


def test_another_embedder_makes_all_vectors_again(folder: Path, collection: Collection) -> None:
    read_in(collection, folder, embedder=EMBEDDER)
    other = Words()
    other.name = "others"
    assert update(collection, ChunkEmbedder(other, multilingual=False)).n_vectors == 2
    owners, vectors = collection.vectors()
    assert len(owners) == 2 and vectors.shape == (2, 64)


def test_documents_found_by_words_get_vectors_when_an_embedder_comes(folder: Path, collection: Collection) -> None:
    (folder / "chinese.txt").write_text("保修期是二十四个月。\n")
    assert read_in(collection, folder).n_vectors == 0 and collection.n_without_vector == 0
    assert update(collection, EMBEDDER).n_vectors == 2  # it knows no Chinese
    assert update(collection, ChunkEmbedder(Words(), multilingual=True)).n_vectors == 0
    other = Words()
    other.name = "other"
    assert update(collection, ChunkEmbedder(other, multilingual=True)).n_vectors == 3


def test_questions_and_passages_get_the_prefixes_of_the_model(folder: Path, collection: Collection) -> None:
    seen: list[str] = []

    class Noted(Words):
        def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
            seen.extend(texts)
            return super().embed(texts)

    prefixes = Prefixes(question="query: ", passage="passage: ")
    embedder = ChunkEmbedder(Noted(), multilingual=True, prefixes=prefixes)
    read_in(collection, folder, embedder=embedder)
    Searcher(collection, embedder).search("how long?")
    assert seen[-1] == "query: how long?"
    assert len(seen) == 3 and seen[0].startswith("passage: a md Warranty\nWarranty")


def test_the_language_of_a_folder(folder: Path, collection: Collection) -> None:
    (folder / "code.py").write_text("for each in range(12):\n    print(each)\n")
    add_roots(collection, [folder])
    assert share_not_english(collection) == 0
    (folder / "deutsch.txt").write_text("Die Garantie gilt zwei Jahre und beginnt mit dem Kauf.\n")
    (folder / "русский.txt").write_text("Гарантия действует два года.\n")
    (folder / "中文.txt").write_text("保修期是二十四个月。\n")
    assert share_not_english(collection) == 0.5
    (folder / "empty.txt").touch()
    (folder / "long.txt").write_text("La garantie est de deux ans. " * 100_000)
    assert share_not_english(collection) == 0.5  # what cannot be read says nothing, what is long is not read for this


def test_neighbours_are_joined_and_repetitions_dropped(folder: Path, collection: Collection) -> None:
    long = " ".join(f"Step {number} of the calibration turns valve {number}." for number in range(400))
    (folder / "long.txt").write_text(long)
    (folder / "copy.md").write_text((folder / "a.md").read_text())
    read_in(collection, folder)
    best = found(collection, "calibration valve 120 121 122")[0]
    assert best.n_tokens > 600 and best.text.count("Step 120 of") == 1
    assert [passage.file for passage in found(collection, "warranty months")].count("a.md") == 1
    assert len(found(collection, "warranty months")) == 1


def test_ranks_are_fused() -> None:
    scores = fuse([[1, 2, 3], [3, 1]])
    assert sorted(scores, key=scores.__getitem__, reverse=True) == [1, 3, 2]


def test_questions_of_any_kind_are_no_error(folder: Path, collection: Collection) -> None:
    read_in(collection, folder, embedder=EMBEDDER)
    for question in ('" OR 1=1 --', "a* NEAR(b)", "", "???", "x" * 5000, "\0", "{title}: y", "保"):
        found(collection, question, EMBEDDER)


def test_a_second_process_reads_meanwhile(folder: Path, collection: Collection) -> None:
    read_in(collection, folder)
    results = []

    def search() -> None:
        with Collection.open(collection.path) as other:
            results.append(len(found(other, "warranty")))

    (state,) = [file for file in collection.files() if file.name == "a.md"]
    with collection.replacing(state):  # type: ignore[arg-type]
        thread = threading.Thread(target=search)
        thread.start()
        thread.join(10)
    assert results == [1]


def test_roots_inside_each_other(folder: Path, collection: Collection) -> None:
    add_roots(collection, [folder / "deep"])
    add_roots(collection, [folder])
    add_roots(collection, [folder / "a.md"])
    assert len(update(collection, None).files) == 2
    with pytest.raises(FileAccessError):
        add_roots(collection, [folder / "missing"])


def test_damaged_and_newer_files(tmp_path: Path) -> None:
    (tmp_path / "bad.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(CorruptFile, match="damaged"):
        Collection.open(tmp_path / "bad.sqlite3")
    with contextlib.closing(sqlite3.connect(tmp_path / "new.sqlite3")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(CorruptFile, match="newer"):
        Collection.open(tmp_path / "new.sqlite3")


def test_a_file_that_is_damaged_in_use(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite3"
    with Collection.open(path) as collection:
        read_in(collection, folder)
    data = path.read_bytes()
    with Collection.open(path) as collection:
        path.write_bytes(data[:4096] + bytes(len(data) - 4096))
        for use in (collection.files, lambda: collection.best_words(["warranty"], 5), lambda: collection.chunks([1])):
            with pytest.raises(CorruptFile, match="damaged"):
                use()


def test_names(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for name in ("../x", "", ".hidden", "a/b", "x" * 99):
        with pytest.raises(UsageError):
            shelf.path(name)
    shelf.make("manuals").close()
    with pytest.raises(CollectionNotFound) as missing:
        shelf.open("manual")
    assert "manuals" in missing.value.why
    assert shelf.only() == "manuals"
    shelf.remove("manuals")
    assert shelf.names() == [] and not list(tmp_path.iterdir())


ADD = """
import sys
from pathlib import Path
from edgellm.documents.collection import Collection
from edgellm.documents.index import add_roots, update
with Collection.open(Path(sys.argv[1])) as collection:
    add_roots(collection, [Path(sys.argv[2])])
    update(collection, None)
"""


def kill_and_finish(tmp_path: Path, kills: int) -> None:
    """Kill the reading of a folder again and again; in the end every file is there once."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number}.txt").write_text(f"Document {number} says word{number}.\n" * 40)
    path = tmp_path / "many.sqlite3"
    for turn in range(kills):
        process = subprocess.Popen([sys.executable, "-c", ADD, str(path), str(folder)])
        time.sleep(0.5 + 0.04 * (turn % 20))
        process.send_signal(signal.SIGKILL)
        process.wait()
        with Collection.open(path) as collection:
            names = [file.name for file in collection.files()]
            assert len(names) == len(set(names))
        if turn % 3 == 2:  # what changes meanwhile is read again
            (folder / f"{turn}.txt").write_text(f"Changed {turn} says word{turn}.\n" * 30)
    with Collection.open(path) as collection:
        add_roots(collection, [folder])
        update(collection, None)
        assert len(collection.files()) == 120
        for number in range(120):
            passages = Searcher(collection, None).search(f"word{number}")
            assert [passage.file for passage in passages] == [f"{number}.txt"]


def test_killed_while_it_reads(tmp_path: Path) -> None:
    kill_and_finish(tmp_path, 4)


@pytest.mark.soak
def test_killed_fifty_times(tmp_path: Path) -> None:
    kill_and_finish(tmp_path, 50)
