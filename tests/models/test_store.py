"""The store: what it lists, and that removing never leaves a name without a file."""

from pathlib import Path

import pytest

from edgellm.errors import ModelNotFound
from edgellm.models.resolve import resolve
from edgellm.models.store import InstalledModel, Store
from edgellm.settings import resource_directory

RECIPES = [resource_directory("recipes")]


def add(store: Store, name: str, data: bytes = b"12345") -> InstalledModel:
    path = store.file_path(name, f"{name}.gguf")
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    model = InstalledModel(name, path, len(data), "0" * 64, "test", "2026-01-01T00:00:00+00:00")
    store.add(model)
    return model


def test_what_is_added_is_found_and_listed_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.list() == [] and store.names() == []
    b, a = add(store, "b"), add(store, "a")
    assert store.list() == [a, b] and store.get("b") == b


def test_removing_frees_the_file_and_the_directory(tmp_path: Path) -> None:
    store = Store(tmp_path)
    model = add(store, "a")
    assert store.remove(model) == 5
    assert list(tmp_path.iterdir()) == [] and store.list() == []


def test_a_file_elsewhere_is_only_forgotten(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    outside = tmp_path / "mine.gguf"
    outside.write_bytes(b"mine")
    model = InstalledModel("mine", outside, 4, "0" * 64, "import", "")
    store.add(model)
    assert store.remove(model) == 0 and outside.exists() and store.list() == []


@pytest.mark.parametrize("manifest", ["", "null", "[]", '{"name": 1}', '{"path": "/x"}', "\x00"])
def test_a_broken_manifest_is_no_model(manifest: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text(manifest)
    assert Store(tmp_path).list() == []


def test_a_manifest_without_its_file_is_no_model(tmp_path: Path) -> None:
    store = Store(tmp_path)
    add(store, "a").path.unlink()
    assert store.list() == []


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../a", "a\0b"])
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
    with pytest.raises(ModelNotFound, match="is no file that can be read"):
        resolve("./nosuch.gguf", store, RECIPES)
    with pytest.raises(ModelNotFound) as caught:
        resolve("smolm2", store, RECIPES)
    assert "did you mean smollm2?" in caught.value.why
