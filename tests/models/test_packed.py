"""Which models get a packed file, what its key depends on, and who deletes it."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from edgellm.files import locked
from edgellm.models.local.packed import LEAST_BYTES, PackedFiles
from edgellm.models.local.registration import register
from edgellm.models.local.removal import kept_packed, leftovers, prune, remove
from edgellm.models.local.store import Store
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm_here
from tests.weights.gguf_maker import write_llama

NOWHERE = Path("/nonexistent/hub")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_llama(tmp_path / "m.gguf")


@pytest.fixture
def files(settings: Settings) -> PackedFiles:
    return PackedFiles(settings.packed, "stamp", least=0)


def fill(files: PackedFiles, model: Path, *, n_bytes: int = 5000, more: str = "kernels avx2\n") -> Path:
    """Write what the engine would: only the front matters here."""
    packed = files.prepare(model)
    assert packed
    key = (packed.key + more).encode()
    front = struct.pack("=8sIIQQ40s", b"EDGEPACK", len(key), 0, n_bytes, 0, b"") + key
    packed.path.write_bytes(front + bytes(n_bytes))
    return packed.path


def test_only_large_models_get_one_and_only_if_wanted(settings: Settings, model: Path) -> None:
    assert PackedFiles.of_user(settings, "stamp").of(model) is None
    os.truncate(model, LEAST_BYTES)
    assert PackedFiles.of_user(settings, "stamp").of(model)
    off = Settings.from_environment({**os.environ, "EDGELLM_KEEP_PACKED": "off"})
    assert PackedFiles.of_user(off, "stamp").of(model) is None
    on = Settings.from_environment({**os.environ, "EDGELLM_KEEP_PACKED": "1"})
    assert PackedFiles.of_user(on, "stamp").of(model)


def touch(model: Path) -> None:
    os.utime(model, ns=(0, 12345))


def grow(model: Path) -> None:
    state = model.stat()
    os.truncate(model, state.st_size + 1)
    os.utime(model, ns=(state.st_atime_ns, state.st_mtime_ns))


def change_header(model: Path) -> None:
    state = model.stat()
    with model.open("r+b") as file:
        file.seek(100)
        file.write(b"X")
    os.utime(model, ns=(state.st_atime_ns, state.st_mtime_ns))


@pytest.mark.parametrize("change", [touch, grow, change_header])
def test_another_state_of_the_model_has_another_key(
    files: PackedFiles, model: Path, change: Callable[[Path], None]
) -> None:
    path = fill(files, model)
    assert files.nbytes_of(model) == 5000 and [*files.all()] == [(path, "")]
    change(model)
    assert files.nbytes_of(model) == 0 and files.path_of(model) == path
    assert ["from another file" in why for _, why in files.all()] == [True]


def test_another_engine_has_another_key(files: PackedFiles, settings: Settings, model: Path) -> None:
    fill(files, model)
    assert PackedFiles(settings.packed, "newer", least=0).nbytes_of(model) == 0


@pytest.mark.parametrize("damaged", [b"", b"EDGEPACK", b"EDGEPACK" + b"\xff" * 64, b"x" * 100, bytes(4096)])
def test_damaged_files_are_none(files: PackedFiles, model: Path, damaged: bytes) -> None:
    path = fill(files, model)
    path.write_bytes(damaged)
    assert files.nbytes_of(model) == 0 and [*files.all()] == [(path, "a damaged packed file")]


@pytest.mark.parametrize("name", ["nosuch.gguf", "m-00001-of-00002.gguf"])
def test_a_model_that_cannot_be_read_has_none(files: PackedFiles, tmp_path: Path, name: str) -> None:
    assert files.of(tmp_path / name) is None and files.nbytes_of(tmp_path / name) == 0


def test_prune_deletes_what_no_model_needs(files: PackedFiles, settings: Settings, tmp_path: Path) -> None:
    store = Store(settings.models)
    kept, gone, changed = (write_llama(tmp_path / f"{name}.gguf") for name in ("kept", "gone", "changed"))
    paths = {model: fill(files, model) for model in (kept, gone, changed)}
    gone.unlink()
    touch(changed)
    unfinished, busy = (settings.packed / f"{name}.packed.part" for name in ("unfinished", "busy"))
    for part in (unfinished, busy):
        part.write_bytes(b"12345")
    found = leftovers(store, settings, NOWHERE, files)
    assert {leftover.path for leftover in found} == {paths[gone], paths[changed], unfinished, busy}
    with locked(busy):
        prune(found, store)
    assert {*settings.packed.iterdir()} == {paths[kept], busy}
    assert [leftover.path for leftover in kept_packed(files)] == [paths[kept]]


def test_a_removed_model_takes_its_packed_file_along(files: PackedFiles, settings: Settings, model: Path) -> None:
    store = Store(settings.models)
    imported = register(model, store)
    path = fill(files, model)
    remove(store, imported, NOWHERE, packed=files)
    assert path.exists(), "the user's file is still there"
    mine = store.file_path("mine", "m.gguf")
    mine.parent.mkdir(parents=True)
    model.rename(mine)
    path, n_bytes = fill(files, mine), mine.stat().st_size
    store.add(type(imported)("mine", mine, n_bytes, "0" * 64, "test", ""))
    size = path.stat().st_size
    assert remove(store, store.get("mine"), NOWHERE, packed=files).freed == n_bytes + size and not path.exists()


def test_the_verbs_count_them(settings: Settings, model: Path) -> None:
    stale = settings.packed / "x.packed"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"123")
    found = data(edgellm_here("prune", "--dry-run", "--json"))
    assert [Path(each["path"]) for each in found["files"]] == [stale] and found["packed"] == 0
    assert json.loads(edgellm_here("prune", "--packed", "--json").stdout)["data"]["freed"] == 3 and not stale.exists()
    fit = data(edgellm_here("fit", str(model), "--json"))
    assert fit["packed"] == 0
