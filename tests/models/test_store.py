"""The store: what it lists, how names come and go, and that nothing of anybody else is ever deleted."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.errors import CorruptFile, ModelNotFound, UsageError
from edgellm.files import locked
from edgellm.models.hub.client import Hub
from edgellm.models.local.cards import read_cards
from edgellm.models.local.registration import default_name, register
from edgellm.models.local.removal import leftovers, prune, remove
from edgellm.models.local.store import InstalledModel, Store, StoredFile
from edgellm.models.local.usage import read_usage, record
from edgellm.models.local.verification import verify
from edgellm.models.pull import install, make_plan
from edgellm.models.recipe import Choice, HubSource
from edgellm.models.resolve import resolve
from edgellm.settings import Settings, resource_directory
from tests.models.hub_server import HubServer
from tests.weights.gguf_maker import write_llama

RECIPES = [resource_directory("recipes")]
NOWHERE = Path("/nonexistent/hub")


def add(store: Store, name: str, data: bytes = b"12345") -> InstalledModel:
    path = store.file_path(name, "model.gguf")
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    model = InstalledModel(name, path, len(data), "0" * 64, "test", "2026-01-01T00:00:00+00:00")
    store.add(model)
    return model


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with HubServer() as server:
        model = write_llama(tmp_path / "m.gguf").read_bytes()
        server.add("test/m-GGUF", {"m-Q8_0.gguf": model, "m-F16.gguf": model, "README.md": b"hello"})
        yield Hub(server.endpoint, tmp_path / "hub")


def pulled(hub: Hub, store: Store, settings: Settings, quant: str, name: str | None = None) -> InstalledModel:
    choice = Choice(name or quant, HubSource(kind="hub", repo="test/m-GGUF"), quant)
    return install(make_plan(choice, hub), hub, store, settings)


def test_what_is_added_is_found_and_listed_by_name(store: Store) -> None:
    assert store.list() == [] and store.names() == []
    b, a = add(store, "b"), add(store, "user/repo:Q4_K_M")
    assert store.list() == [b, a] and store.get("b") == b and store.find(a.name) == a
    assert a.path.is_relative_to(store.directory) and store.names() == ["b", "user/repo:Q4_K_M"]


def test_a_store_can_be_moved(store: Store, tmp_path: Path) -> None:
    add(store, "a")
    store.directory.rename(tmp_path / "elsewhere")
    (moved,) = Store(tmp_path / "elsewhere").list()
    assert moved.path.is_file() and moved.is_whole


def test_removing_frees_the_file_and_the_directory(store: Store) -> None:
    model = add(store, "user/repo:Q4")
    assert remove(store, model, NOWHERE).freed == 5
    assert store.list() == [] and [path.suffix for path in store.directory.iterdir()] == [".lock"]


def test_an_imported_file_is_only_forgotten(store: Store, tmp_path: Path) -> None:
    outside = write_llama(tmp_path / "Mine.Q4 (1).gguf")
    model = register(outside, store)
    assert (model.name, model.path, model.source) == ("mine.q4-1", outside, "import") and store.find(
        model.name
    ) == model
    removed = remove(store, model, tmp_path)  # not even where the cache is around it
    assert (removed.freed, removed.kept) == (0, (outside,)) and outside.exists() and store.list() == []


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "null",
        "[]",
        "[" * 9999,
        "\x00",
        '{"name": 1}',
        '{"path": "/x"}',
        '{"name": "a", "path": "/x", "size": "big", "sha256": ""}',
        '{"name": "a", "path": "x", "size": 1, "sha256": "", "source": "", "installed": "", "parts": [1]}',
    ],
)
def test_a_broken_manifest_is_no_model(manifest: str, store: Store) -> None:
    store.directory.mkdir()
    (store.directory / "broken.json").write_text(manifest)
    assert store.list() == [] and store.all() == []


def test_a_manifest_without_its_file_is_no_model(store: Store) -> None:
    add(store, "a").path.unlink()
    assert store.list() == [] and [model.name for model in store.all()] == ["a"]


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../a", "a\0b", "x" * 5000])
def test_a_name_never_leaves_the_store(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ModelNotFound):
        Store(tmp_path / "store").get(name)


def test_resolving_prefers_paths_then_installed_then_recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    recipe = resolve("smollm2", store, RECIPES)
    assert not isinstance(recipe, (Path, InstalledModel)) and recipe.name == "smollm2"
    installed = add(store, "smollm2")
    assert resolve("smollm2", store, RECIPES) == installed
    monkeypatch.chdir(tmp_path)
    Path("file").write_bytes(b"")
    for path in ("file", "./file", str(tmp_path / "file")):
        assert resolve(path, store, RECIPES) == Path(path)
    with pytest.raises(ModelNotFound, match="is not a readable file"):
        resolve("./nosuch.gguf", store, RECIPES)
    with pytest.raises(ModelNotFound) as caught:
        resolve("smolm2", store, RECIPES)
    assert "did you mean smollm2?" in caught.value.why


def test_importing_checks_and_hashes(store: Store, tmp_path: Path) -> None:
    path = write_llama(tmp_path / "a.gguf")
    model = register(path, store, name="mine")
    again = register(path, store, name="mine")  # the same again is no conflict
    assert replace(again, installed=model.installed) == model
    assert len(model.sha256) == 64 and [checked.ok for checked in verify([model])] == [True]
    other = write_llama(tmp_path / "b.gguf")
    with pytest.raises(UsageError, match="already"):
        register(other, store, name="mine")
    for name in ("", "a/b", "..", "-x", "x" * 200, "a b"):
        with pytest.raises(UsageError, match="cannot be a model's name"):
            register(other, store, name=name)
    (tmp_path / "page.gguf").write_bytes(b"<html>")
    with pytest.raises(CorruptFile):
        register(tmp_path / "page.gguf", store)
    with pytest.raises(ModelNotFound):
        register(tmp_path / "nosuch.gguf", store)
    assert store.names() == ["mine"]


def test_importing_a_split_model_takes_all_its_parts(store: Store, tmp_path: Path) -> None:
    paths = [write_llama(tmp_path / f"Big-{part:05}-of-00002.gguf") for part in (1, 2)]
    model = register(paths[0], store)
    assert model.name == "big" and [part.path for part in model.files] == paths
    paths[1].write_bytes(b"short")
    assert not model.is_whole and [checked.ok for checked in verify([model])] == [True, False]


def test_default_names() -> None:
    names = {"Qwen2.5-3B-Q4_K_M.gguf": "qwen2.5-3b-q4_k_m", "...gguf": "model", "日本.gguf": "model", "a b": "a-b"}
    assert {name: default_name(Path(name)) for name in names} == names


def test_verify_finds_every_kind_of_damage(store: Store, tmp_path: Path) -> None:
    models = [register(write_llama(tmp_path / f"{name}.gguf"), store) for name in "abcd"]
    data = bytearray(models[1].path.read_bytes())
    data[-1] ^= 1
    models[1].path.write_bytes(data)
    models[2].path.write_bytes(data[:-1])
    models[3].path.unlink()
    reports: list[str] = []
    problems = [checked.problem for checked in verify(models, report=lambda event: reports.append(event.stage))]
    assert problems[0] == "" and "sha256" in problems[1] and "bytes" in problems[2] and problems[3] == "it is gone"
    assert "checking a" in reports


def test_a_file_that_two_names_share_stays_until_the_last(store: Store, hub: Hub, settings: Settings) -> None:
    """Two files of one content are one blob in the cache; and two names may stand for one file."""
    first, second = pulled(hub, store, settings, "Q8_0"), pulled(hub, store, settings, "F16")
    third = pulled(hub, store, settings, "Q8_0", "again")
    assert first.path == third.path and first.path.resolve() == second.path.resolve()
    assert remove(store, first, hub.cache).kept == (first.path,)
    assert remove(store, second, hub.cache).freed == 0 and third.path.is_file()
    assert remove(store, third, hub.cache).freed == first.size
    assert not list(hub.cache.rglob("*.gguf")) and not list(hub.cache.glob("models--*"))


def test_removing_leaves_other_files_of_the_cache_alone(store: Store, hub: Hub, settings: Settings) -> None:
    model = pulled(hub, store, settings, "Q8_0")
    repository = hub.cache / "models--test--m-GGUF"
    other = model.path.with_name("config.json")
    (repository / "blobs" / "abc").write_bytes(b"{}")
    other.symlink_to("../../blobs/abc")
    assert remove(store, model, hub.cache).freed == model.size
    assert other.read_bytes() == b"{}" and not model.path.exists() and (repository / "refs" / "main").is_file()


def test_a_blob_that_another_snapshot_links_to_stays(store: Store, hub: Hub, settings: Settings) -> None:
    model = pulled(hub, store, settings, "Q8_0")
    older = model.path.parent.with_name("0" * 40)
    older.mkdir()
    (older / "m.gguf").symlink_to(os.path.relpath(model.path.resolve(), older))
    assert remove(store, model, hub.cache).freed == 0 and (older / "m.gguf").is_file()


def test_prune_finds_what_nobody_needs_and_nothing_else(
    store: Store, hub: Hub, settings: Settings, tmp_path: Path
) -> None:
    kept = [add(store, "kept"), pulled(hub, store, settings, "Q8_0"), register(write_llama(tmp_path / "x.gguf"), store)]
    orphan = store.file_path("orphan", "a.gguf")
    partial = store.file_path("kept", "model.gguf.part")
    blobs = hub.cache / "models--test--m-GGUF" / "blobs"
    arriving, aside, foreign = blobs / "abc.edgellm.incomplete", blobs / "abd.corrupt", blobs / "abe.incomplete"
    download = settings.downloads / "pip-x-1" / "out" / "x.whl"
    work = store.directory / ".conv.work" / "converted.gguf"
    asked = settings.evaluations / "work" / "0123" / "any-slots.jsonl"
    for path in (orphan, partial, arriving, aside, foreign, download, work, asked):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234567")
    gone = add(store, "gone")
    gone.path.unlink()
    found = leftovers(store, settings, hub.cache)
    expected = {
        orphan,
        partial,
        arriving,
        aside,
        download.parents[1],
        work.parent,
        asked.parent,
        store.manifest("gone"),
    }
    assert {leftover.path for leftover in found} == expected
    assert sum(leftover.size for leftover in found) == 7 * 7
    assert len(prune(found, store)) == len(expected) and leftovers(store, settings, hub.cache) == []
    assert all(model.is_whole for model in kept) and foreign.exists() and not orphan.parent.exists()
    assert store.names() == ["Q8_0", "kept", "x"]


def test_prune_leaves_alone_what_is_being_made(store: Store, hub: Hub, settings: Settings) -> None:
    add(store, "kept")
    partial = store.file_path("new", "model.gguf.part")
    arriving = hub.cache / "models--a--b" / "blobs" / "abc.edgellm.incomplete"
    answers = settings.evaluations / "work" / "0123" / "any-slots.answers.part"
    for path in (partial, arriving, answers):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"123")
    found = leftovers(store, settings, hub.cache)
    blob_lock = hub.cache / ".locks" / "models--a--b" / "abc.lock"
    with locked(store.lock_path("new")), locked(blob_lock), locked(answers):
        assert prune(found, store) == [] and partial.exists() and arriving.exists() and answers.exists()
    # Made use of between the look and the deletion.
    store.add(InstalledModel("new", partial, 3, "0" * 64, "test", ""))
    assert [leftover.path for leftover in prune(found, store)] == [answers.parent, arriving] and partial.exists()


def test_usage_survives_many_writers(settings: Settings, tmp_path: Path) -> None:
    models = [tmp_path / f"{i}.gguf" for i in range(4)]
    for model in models:
        model.touch()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_record_often, args=(settings.usage, model)) for model in models]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    usage = read_usage(settings.usage)
    assert {model: usage[model].decode_rate for model in models} == dict.fromkeys(models, 20.0)
    record(settings.usage, models[0], decode_rate=None)
    assert read_usage(settings.usage)[models[0]].decode_rate == 20.0
    models[1].unlink()
    record(settings.usage, models[0], decode_rate=1.5)
    assert set(read_usage(settings.usage)) == set(models) - {models[1]}


def _record_often(path: Path, model: Path) -> None:
    for i in range(1, 21):
        record(path, model, decode_rate=float(i))


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1}', '{"a": {"last_used": "x"}}', '{"a":{"decode_rate":"x"}}'])
def test_damaged_usage_and_cards_are_made_again(text: str, store: Store, settings: Settings, tmp_path: Path) -> None:
    model = register(write_llama(tmp_path / "a.gguf"), store)
    for path in (settings.usage, settings.cards):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    record(settings.usage, model.path, decode_rate=2.0)
    assert read_usage(settings.usage)[model.path].decode_rate == 2.0
    assert read_cards([model], settings.cards)[model.name].quant == "F16"
    assert json.loads(settings.cards.read_text())[str(model.path)]["card"]["quant"] == "F16"


def test_a_card_follows_its_file(store: Store, settings: Settings, tmp_path: Path) -> None:
    model = register(write_llama(tmp_path / "a.gguf"), store)
    card = read_cards([model], settings.cards)["a"]
    assert (card.architecture, card.quant, card.n_ctx_train, card.problem) == ("llama", "F16", 512, "")
    before = settings.cards.stat().st_mtime_ns
    assert read_cards([model], settings.cards)["a"] == card and settings.cards.stat().st_mtime_ns == before
    write_llama(model.path, kind="F32")
    assert read_cards([model], settings.cards)["a"].quant == "F32"
    model.path.write_bytes(b"<html>")
    assert "not a GGUF" in read_cards([model], settings.cards)["a"].problem


def test_a_home_that_cannot_be_written_costs_only_the_memory_of_it(store: Store, tmp_path: Path) -> None:
    model = register(write_llama(tmp_path / "a.gguf"), store)
    (tmp_path / "file").touch()
    record(tmp_path / "file" / "usage.json", model.path, decode_rate=1.0)
    assert read_cards([model], tmp_path / "file" / "cards.json")["a"].quant == "F16"


KILLED = """
import sys
from pathlib import Path
from edgellm.models.local.removal import remove
from edgellm.models.local.store import InstalledModel, Store
store = Store(Path(sys.argv[1]))
sys.stdout.write("started\\n"); sys.stdout.flush()
for i in range(10**9):
    path = store.file_path(f"m{i % 7}", "model.gguf")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".new").write_bytes(b"12345")
    path.with_suffix(".new").rename(path)
    model = InstalledModel(f"m{i % 7}", path, 5, "0" * 64, "test", "")
    store.add(model)
    if i % 3: remove(store, model, Path("/nonexistent"))
"""


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.soak)])
def test_a_killed_process_leaves_names_with_files_and_no_lock(kills: int, store: Store, settings: Settings) -> None:
    for kill in range(kills):
        command = [sys.executable, "-c", KILLED, str(store.directory)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "started\n"
            time.sleep(0.05 + 0.013 * kill % 0.2)
            process.send_signal(signal.SIGKILL)
        assert all(model.is_whole for model in store.all())
        prune(leftovers(store, settings, NOWHERE), store)
        files = set(store.directory.rglob("*.gguf"))
        assert files == {model.path for model in store.all()}
        for model in store.list():
            assert remove(store, model, NOWHERE).freed == 5


def test_parts_know_whether_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"123")
    assert StoredFile(path, 3, "").is_whole and not StoredFile(path, 4, "").is_whole
    assert not StoredFile(tmp_path / "y", 3, "").is_whole
    assert re.fullmatch(r"\.a%2Fb:q\.lock", Store(tmp_path).lock_path("a/b:q").name)
