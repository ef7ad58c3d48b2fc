"""`edgellm docs`: what a user types and sees."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import edgellm as package
from edgellm.documents.index import EMBEDDER
from edgellm.documents.shelf import Shelf
from edgellm.errors import ModelNotFound, UsageError
from edgellm.library import Documents
from edgellm.settings import Settings
from edgellm.workspace import workspace
from tests.commands.cli import data, edgellm, error
from tests.conftest import REAL
from tests.serve.reranker_maker import reranker


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "manuals"
    place.mkdir()
    (place / "warranty.md").write_text("# Warranty\n\nThe warranty is 24 months from the purchase.\n")
    (place / "empty.txt").touch()
    return place


def test_from_add_to_rm(settings: Settings, folder: Path) -> None:
    added = edgellm("docs", "add", str(folder), "--embed", "none")
    assert added.returncode == 0 and "1 new, 1 not read" in added.stdout and "empty.txt: it is empty" in added.stderr
    found = data(edgellm("docs", "search", "how", "long", "is", "the", "warranty", "--json"))
    assert found["results"][0] | {"score": 0, "path": ""} == {
        "file": "warranty.md", "page": None, "lines": [1, 3], "heading": "Warranty", "score": 0, "path": "",
        "text": "Warranty\n\nThe warranty is 24 months from the purchase.", "pages": None, "n_tokens": 11,
    }  # fmt: skip
    shown = edgellm("docs", "search", "warranty")
    assert "[1] warranty.md, lines 1-3, Warranty" in shown.stdout
    assert data(edgellm("docs", "ls", "--json"))[0]["n_files"] == 1
    assert data(edgellm("docs", "show", "--json"))["files"][0]["error"] == "it is empty"
    (folder / "new.txt").write_text("Another text.\n")
    assert data(edgellm("docs", "sync", "--json", "--embed", "none"))["n_added"] == 1
    assert data(edgellm("docs", "rm", "documents", "--json")) == [{"name": "documents"}]
    assert data(edgellm("docs", "ls", "--json")) == [] and folder.exists()


def test_mistakes_are_one_error(settings: Settings, folder: Path) -> None:
    assert error(edgellm("docs", "search", "x", "--json"))["try"] == "edgellm docs add PATH"
    assert "does not exist" in error(edgellm("docs", "add", "nowhere", "--json"))["what"]
    assert error(edgellm("docs", "show", "nosuch", "--json"))["code"] == "documents-not-found"
    assert error(edgellm("docs", "add", str(folder), "--name", "../x", "--json"))["code"] == "usage"


def test_by_meaning_with_the_real_embedder(with_engine: Settings, folder: Path) -> None:
    (folder / "cleaning.md").write_text("# Cleaning\n\nWipe the screen with a soft cloth.\n")
    with package.docs("manuals") as manuals:
        assert manuals.add(folder).n_vectors == 2
        best = manuals.search("is there a guarantee if the thing breaks after a year?")[0]
        assert best.file == "warranty.md"
        assert manuals.sync().n_vectors == 0


def test_documents_in_another_language_want_another_embedder(settings: Settings, folder: Path) -> None:
    settings.engines.parent.mkdir(parents=True, exist_ok=True)
    settings.engines.symlink_to(REAL.engines)
    (folder / "保修.md").write_text("# 保修\n\n保修期是二十四个月。\n")
    added = edgellm("docs", "add", str(folder), "--offline")
    assert added.returncode == 0 and "some documents are not English: e5-small" in added.stderr
    assert "found by words alone: e5-small is not on this machine" in added.stderr
    assert "二十四个月" in edgellm("docs", "search", "保修期是多久").stdout
    by_words = edgellm("docs", "add", str(folder), "--offline", "--name", "words", "--embed", "none")
    assert "some documents" not in by_words.stderr
    synced = edgellm("docs", "sync", "words", "--offline")  # what was decided stays
    assert synced.returncode == 0 and "some documents" not in synced.stderr
    assert data(edgellm("docs", "show", "words", "--json"))["embedder"] == "none"


def test_a_reranker_is_remembered_until_it_is_none(with_engine: Settings, folder: Path, tmp_path: Path) -> None:
    """With random weights the order means nothing, but it is that of the scores."""
    (tmp_path / "model").mkdir()
    path = str(reranker(tmp_path / "model")[0])
    for number, text in enumerate(("the cat sat .", "cat . .", "sat cat", "the the cat")):
        (folder / f"{number}.txt").write_text(text)
    with package.docs("cats", embed="none") as cats:
        cats.add(folder)
        plain = [each.file for each in cats.search("cat")]
    with package.docs("cats", rerank=path) as cats:
        found = cats.search("cat")
    with package.open(path) as model:
        scores = model.rank("cat", [f"{each.file.replace('.', ' ')} \n{each.text}" for each in found])
    order = [each.file for each in found]
    assert len(scores) == 4 and scores == sorted(scores, reverse=True) and order != plain
    with package.docs("cats") as cats:  # a search remembers nothing
        assert [each.file for each in cats.search("cat")] == plain
    assert edgellm("docs", "sync", "--rerank", path).returncode == 0
    assert data(edgellm("docs", "show", "--json"))["reranker"] == path
    again = data(edgellm("docs", "search", "cat", "--json"))["results"]
    assert [each["file"] for each in again] == order
    for rerank in ("none", None):
        with package.docs("cats", rerank=rerank) as cats:
            assert [each.file for each in cats.search("cat")] == (plain if rerank else order)
    with package.docs("cats", rerank="none") as cats:
        cats.sync()
    with package.docs("cats") as cats:
        assert [each.file for each in cats.search("cat")] == plain


def test_what_cannot_rerank_says_what_it_is(with_engine: Settings, folder: Path) -> None:
    wrong = error(edgellm("docs", "add", str(folder), "--rerank", "smollm2", "--json"))
    assert (wrong["what"], wrong["why"]) == ("smollm2 is not a reranker", "it writes answers")
    with package.docs(rerank="bge-m3") as documents, pytest.raises(UsageError, match="not a reranker"):
        documents.add(folder)
    with package.docs(embed="none") as documents:
        assert not documents.files(), "nothing was read"
        documents.add(folder)
    gone = error(edgellm("docs", "search", "warranty", "--rerank", "bge-reranker", "--offline", "--json"))
    assert "bge-reranker-v2-m3 is not on this machine" in gone["what"]
    with package.docs(rerank="bge-reranker-v2-m4") as documents, pytest.raises(ModelNotFound):
        documents.search("warranty")


def test_answers_are_cited_or_refused(with_engine: Settings, folder: Path) -> None:
    edgellm("docs", "add", str(folder), "--embed", "none")
    told = data(edgellm("docs", "ask", "How many months is the warranty?", "--json"))
    assert "24" in told["answer"] and not told["refused"] and not told["unknown_numbers"]
    (citation,) = told["citations"]
    assert citation["quote"] == "The warranty is 24 months from the purchase." and citation["lines"] == [3, 3]
    refused = data(edgellm("docs", "ask", "Who is the director of the Toronto office?", "--json"))
    assert refused["refused"] and "Toronto" in refused["reason"] and refused["citations"] == []
    shown = edgellm("docs", "ask", "How many months is the warranty?")
    assert "[1] warranty.md, line 3, Warranty" in shown.stdout and "from the cache: 100% alike" in shown.stderr
    again = data(edgellm("docs", "ask", "how many months is the warranty", "--json"))
    assert again["citations"] == told["citations"] and again["cached"]["similarity"] == 1
    (folder / "warranty.md").write_text("# Warranty\n\nThe warranty is 36 months from the purchase.\n")
    edgellm("docs", "sync", "--embed", "none")
    changed = data(edgellm("docs", "ask", "How many months is the warranty?", "--json"))
    assert "36" in changed["answer"] and changed["cached"] is None


def test_documents_everywhere(with_engine: Settings, folder: Path, tmp_path: Path) -> None:
    """The same question in `run`, in a piped chat, in a batch and from Python, to the real model."""
    question, quote = "How many months is the warranty?", "The warranty is 24 months from the purchase."
    with package.docs("office", embed="none") as office:
        office.add(folder)
        found = office.ask(question)
        assert "24" in found.answer and found.citations[0].quote == quote
        assert office.ask("Who is the director of the Toronto office?").refused
    with package.open("smollm2") as model:
        with model.chat(docs="office") as chat:
            assert "24" in chat.ask(question).text and chat.found is not None
            assert chat.found.citations[0].quote == quote
        (row,) = model.batch([question], docs="office", slots=1)
        assert "24" in row.text and row.citations[0].quote == quote and row.error is None
    answer = data(edgellm("run", "smollm2", "--docs", "office", question, "--json"))
    assert (answer["docs"], answer["refused"]) == ("office", False) and answer["citations"][0]["quote"] == quote
    (tmp_path / "in.txt").write_text(question)
    batch = ("batch", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.jsonl"), "-m", "smollm2", "--slots", "1",
             "--docs", "office", "--json")  # fmt: skip
    assert data(edgellm(*batch))["tally"]["done"] == 1
    assert '"file_citation"' in (tmp_path / "out.jsonl").read_text()
    (folder / "new.txt").write_text("Something else.\n")
    with package.docs("office") as office:
        office.sync()
    changed = error(edgellm(*batch))
    assert changed["why"] == "the documents in office have changed" and changed["code"] == "usage"


def test_documents_that_cannot_be_asked(settings: Settings, folder: Path) -> None:
    with package.docs("office", embed="none"):
        pass
    for verb in (("run", "smollm2", "x"), ("chat", "smollm2"), ("batch", "in.txt", "-o", "out.jsonl", "-m", "smollm2")):
        nameless = error(edgellm(*verb, "--docs", "offce", "--json"))
        assert (nameless["code"], nameless["why"]) == ("documents-not-found", "did you mean office?")
    empty = error(edgellm("run", "smollm2", "x", "--docs", "office", "--json"))
    assert empty["code"] == "usage" and empty["try"] == "edgellm docs add PATH --name office"
    assert "--raw" in error(edgellm("run", "smollm2", "x", "--raw", "--docs", "office", "--json"))["what"]


def test_watching_shows_what_changes_until_ctrl_c(settings: Settings, folder: Path, tmp_path: Path) -> None:
    (folder / "empty.txt").unlink()
    edgellm("docs", "add", str(folder), "--embed", "none")
    command = [sys.executable, "-m", "edgellm", "docs", "sync", "--watch", "--embed", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None and watching.stderr is not None
        assert "nothing changed" in watching.stdout.readline()
        (folder / "new.md").write_text("A new text.\n")
        assert watching.stdout.readline().split() == ["added", "new.md"]
        assert "1 new; 2 files" in watching.stdout.readline()
        folder.rename(tmp_path / "away")
        assert (
            "what was read of it stays" in watching.stdout.readline()
            and "1 not read; 2 files" in watching.stdout.readline()
        )
        (tmp_path / "away").rename(folder)
        (folder / "new.md").unlink()
        assert watching.stdout.readline().split() == ["removed", "new.md"]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(20) == 130 and "Traceback" not in watching.stderr.read()


def test_nothing_new_needs_no_model(settings: Settings, folder: Path) -> None:
    """There is no engine here: whatever loaded the model would fail."""
    edgellm("docs", "add", str(folder), "--embed", "none")
    here = workspace()
    collection = Shelf(settings.documents).make("documents")
    collection.set(EMBEDDER, str(folder / "model.gguf"))  # with another one all vectors are made anew
    with Documents(
        here, "documents", collection, embed=str(folder / "model.gguf"), report=lambda _: None, notice=print
    ) as documents:
        (folder / "model.gguf").write_bytes(b"GGUF")
        assert documents.sync().n_vectors == 0


def test_an_interrupted_add_says_how_to_go_on(settings: Settings, tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(400):
        (many / f"{number}.txt").write_text(f"Text {number}.\n" * 200)
    command = [sys.executable, "-m", "edgellm", "docs", "add", str(many), "--embed", "none"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as adding:
        while not any(settings.documents.glob("*.writing")):
            time.sleep(0.01)
        time.sleep(0.2)
        adding.send_signal(signal.SIGINT)
        out, told = adding.communicate(timeout=30)
    assert adding.returncode == 130 and "edgellm docs sync documents" in told and "Traceback" not in out + told
    assert edgellm("docs", "sync", "--embed", "none").returncode == 0
    assert data(edgellm("docs", "ls", "--json"))[0]["n_files"] == 400


def test_nothing_that_can_be_read_is_a_failure(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "odd.pdf").write_bytes(bytes(range(256)))
    told = edgellm("docs", "add", str(tmp_path / "empty.txt"), str(tmp_path / "odd.pdf"), "--embed", "none")
    assert told.returncode == 1 and "2 not read" in told.stdout and "empty.txt: it is empty" in told.stderr
