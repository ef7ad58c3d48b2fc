"""One hundred hostile files: each ends in one line, the others are read, time and memory are bounded."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgellm.documents import extraction, index
from edgellm.documents.collection import Collection
from edgellm.documents.index import FileOutcome, Outcome, add_roots, update
from edgellm.documents.search import Searcher
from edgellm.errors import CorruptFile
from tests.documents.hostile import CASES, Case


def everything(folder: Path) -> set[bytes]:
    return {at + b"/" + name for at, _, names in os.walk(os.fsencode(folder)) for name in names}


def texts(path: Path, name: str) -> str:
    """All that was read of the files whose names begin so."""
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT text FROM chunks JOIN files ON files.id = chunks.file WHERE files.name = ?", (name,))
        return "\n".join(row[0] for row in rows)


def judge(case: Case, file: FileOutcome, path: Path) -> str:
    """What is wrong with the outcome of a case."""
    lines = [file.error, *file.notes]
    if any(not line.isprintable() or len(line) > 400 for line in lines):
        return f"{file.name} is told in more than a line: {lines}"
    if case.refused:
        return "" if case.refused in file.error else f"{file.name}: {file.error!r} does not say {case.refused}"
    return "" if case.text in texts(path, file.name) else f"{file.name}: {case.text!r} was not read; {lines}"


def test_one_hundred_hostile_files(tmp_path: Path) -> None:
    assert len(CASES) >= 100
    folder = tmp_path / "folder"
    folder.mkdir()
    for case in CASES:
        case.make(folder / os.fsdecode(case.name))
    before = everything(tmp_path)
    with Collection.open(tmp_path / "c.sqlite3") as collection:
        add_roots(collection, [folder])
        outcome = update(collection, None)
        found = {file.name.removesuffix("/inside.txt"): file for file in outcome.files}
        names = {case.name: index.shown(os.fsdecode(case.name)) for case in CASES}
        assert not set(names.values()) ^ found.keys()
        wrong = [judge(case, found[names[case.name]], collection.path) for case in CASES]
        assert not list(filter(None, wrong))
        again = [file.name for file in update(collection, None).files if file.state in ("added", "changed")]
        assert again == []
    written = {os.fsdecode(path) for path in everything(tmp_path) - before}
    assert all(path.startswith(str(tmp_path / "c.sqlite3")) for path in written)


def read_in(folder: Path, collection: Collection) -> Outcome:
    add_roots(collection, [folder])
    return update(collection, None)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.open(tmp_path / "c.sqlite3")


def test_a_file_that_goes_while_it_is_read(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("It goes.\n")
    (folder / "b.txt").write_text("It stays.\n")
    real = index.sha256_of
    monkeypatch.setattr(index, "sha256_of", lambda path: (real(path), (folder / "a.txt").unlink(missing_ok=True))[0])
    files = {file.name: file for file in read_in(folder, collection).files}
    assert "No such file" in files["a.txt"].error and files["b.txt"].state == "added"
    assert [file.state for file in update(collection, None).files] == ["unchanged", "removed"]


def test_a_file_that_grows_is_read_again(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.txt"
    log.write_text("The first line.\n")
    real = index.sha256_of

    def grow(path: Path) -> str:
        value = real(path)
        with path.open("a") as file:
            file.write("Another line.\n")
        return value

    with monkeypatch.context() as patch:
        patch.setattr(index, "sha256_of", grow)
        read_in(log, collection)
    update(collection, None)
    assert "Another" in Searcher(collection, None).search("line")[0].text
    assert [file.state for file in update(collection, None).files] == ["unchanged"]


def test_what_a_closed_folder_holds_stays(
    tmp_path: Path, collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "folder" / "closed"
    closed.mkdir(parents=True)
    (closed / "a.txt").write_text("Behind a door.\n")
    read_in(tmp_path / "folder", collection)
    real = os.scandir

    def scandir(path: str) -> object:
        if path == str(closed):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", scandir)
        (told,) = update(collection, None).files
        assert told.name == "closed" and "Permission denied" in told.error
    assert Searcher(collection, None).search("door")[0].file == "closed/a.txt"
    shutil.rmtree(closed)
    assert [file.state for file in update(collection, None).files] == ["removed"]


def test_a_folder_deeper_than_any_path_is_told(tmp_path: Path, collection: Collection) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("At the top.\n")
    at = os.open(folder, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=at)
        at, above = os.open("d" * 250, os.O_RDONLY, dir_fd=at), at
        os.close(above)
    os.close(at)
    outcome = read_in(folder, collection)
    shutil.rmtree(folder)
    assert "File name too long" in outcome.files[-1].error and outcome.files[0].state == "added"


def test_a_text_may_begin_like_a_program(tmp_path: Path, collection: Collection) -> None:
    (tmp_path / "a.txt").write_text("MZ is the mark of a program.\n")
    assert read_in(tmp_path / "a.txt", collection).files[0].state == "added"
    with extraction.Extraction() as reader, pytest.raises(CorruptFile, match="not a regular file"):
        list(reader.read(Path("/dev/null")))
