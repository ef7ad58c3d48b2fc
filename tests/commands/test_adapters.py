"""Adapters from the Hub: pulled, checked, converted, listed, used by their name, and removed."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgellm as library
from edgellm.adapters import plan_adapter, pull_adapter
from edgellm.errors import EdgellmError, UsageError
from edgellm.models.hub.client import Hub
from edgellm.models.hub.retry import Patience
from edgellm.settings import Settings
from edgellm.weights.convert.converter import convert
from edgellm.workspace import workspace
from tests.commands.cli import data, edgellm, edgellm_here, error
from tests.conftest import REAL
from tests.models.hub_server import HubServer
from tests.weights import checkpoint_maker as make
from tests.weights.adapter_files import RANK, SHAPE, pairs, write_adapter, write_peft

pytestmark = pytest.mark.engine

NAME = "user/dates-lora"


@pytest.fixture
def hub(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub, and a user with a tiny model of the name `tiny` in the working directory."""
    settings.engines.parent.mkdir(parents=True, exist_ok=True)
    settings.engines.symlink_to(REAL.engines)
    monkeypatch.chdir(tmp_path)
    base = convert(make.llama(tmp_path / "model", SHAPE).directory, tmp_path / "tiny.gguf", outtype="F32").path
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HUB_CACHE", str(settings.data / "hub"))
        assert edgellm_here("import", str(base)).returncode == 0
        yield server


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def said(*more: str) -> str:
    result = edgellm_here("run", "tiny", "--raw", "x=", "-n", "6", "--temp", "0", "--no-loop-guard", *more)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_an_adapter_of_peft_is_pulled_and_used_by_its_name(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    peft = write_peft(tmp_path / "peft", pairs())
    hub.add(NAME, {**files_of(peft), "README.md": b"x"}, licence="mit")
    planned = data(edgellm("pull", "tiny", "--lora", NAME, "--dry-run", "--json"))
    assert [file["name"] for file in planned["files"]] == ["adapter_config.json", "adapter_model.safetensors"]
    assert planned["licence"] == "mit" and not settings.adapters.exists()
    pulled = edgellm("pull", "tiny", "--lora", NAME)
    assert pulled.returncode == 0 and f"next: edgellm chat tiny --lora {NAME}" in pulled.stderr

    listed = data(edgellm_here("list", "--lora", "--json"))
    assert [(each["name"], each["base"], each["rank"], each["problem"]) for each in listed] == [
        (NAME, "tiny", RANK, None)
    ]
    assert "1 adapter: edgellm list --lora" in edgellm_here("list").stderr
    shown = data(edgellm_here("show", NAME, "--json"))
    assert shown == listed[0] and shown["tensors"] == 7 * SHAPE.layers
    assert data(edgellm_here("show", shown["path"], "--json"))["base"] is None  # as a file
    assert NAME in edgellm_here("verify").stdout

    by_name = said("--lora", NAME)
    assert by_name == said("--lora", str(peft)) != said()
    assert said("--lora", f"{NAME}:0") == said()

    with library.open("tiny", lora=[NAME], prompt_cache=0) as model, library.open("tiny", lora=f"{NAME}:0") as plain:
        asked = {"raw": True, "max_tokens": 6, "temperature": 0, "limits": library.Limits(6, loop_guard=False)}
        assert model.ask("x=", **asked).text.strip() == by_name.strip()
        assert plain.ask("x=", **asked).text.strip() == said().strip()
    with pytest.raises(UsageError, match="there is no adapter"):
        library.open("tiny", lora="none")

    requests = len(hub.requests)
    again = data(edgellm("pull", "tiny", "--lora", NAME, "--json"))
    assert again["installed"] == shown["installed"] and hub.count("GET /cdn") <= 1 and len(hub.requests) > requests
    assert data(edgellm_here("prune", "--json"))["files"] == [] and said("--lora", NAME) == by_name
    removed = data(edgellm_here("rm", "--yes", NAME, "--json"))[0]
    assert removed["freed"] == shown["size"] and not list(settings.adapters.rglob("*.gguf"))
    assert error(edgellm_here("run", "tiny", "x", "--lora", NAME, "--json"))["code"] == "usage"


def test_a_gguf_adapter_stays_in_the_cache(hub: HubServer, tmp_path: Path) -> None:
    a, b = np.zeros((4, 256), np.float32), np.zeros((256, 4), np.float32)
    made = write_adapter(tmp_path / "x-F32.gguf", {"blk.0.attn_q.weight.lora_a": a, "blk.0.attn_q.weight.lora_b": b})
    hub.add("user/two", {"x-F32.gguf": made.read_bytes(), "x-F16.gguf": made.read_bytes() + bytes(32)})
    pulled = data(edgellm("pull", "tiny", "--lora", "user/two:F32", "--json"))
    assert pulled["name"] == "user/two:F32" and "hub" in pulled["path"] and pulled["sha256"]
    assert said("--lora", "user/two:F32:2") == said()
    damaged = Path(pulled["path"]).resolve()
    damaged.write_bytes(damaged.read_bytes()[:-4])
    checked = edgellm_here("verify", "user/two:F32")
    assert checked.returncode == 6 and "try: edgellm pull --force tiny --lora user/two:F32" in checked.stderr
    assert data(edgellm_here("list", "--lora", "--json"))[0]["problem"]
    assert edgellm("pull", "tiny", "--lora", "user/two:F32").returncode == 0
    assert edgellm_here("verify").returncode == 0


def test_what_is_no_adapter_for_the_model_is_refused(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    """Nothing is registered, and a model is not downloaded for an adapter."""
    model = (tmp_path / "tiny.gguf").read_bytes()
    hub.add("user/model", {"m-F32.gguf": model})
    hub.add("user/pickle", {"adapter_config.json": b"{}", "adapter_model.bin": b"x"})
    hub.add("user/other", files_of(write_peft(tmp_path / "a", {"7.q": pairs()["0.q"]})))
    hub.add("user/dora", files_of(write_peft(tmp_path / "b", pairs(), use_dora=True)))
    hub.add("user/broken", {"adapter_config.json": b"{", "adapter_model.safetensors": b"\xff" * 40})
    cases = {
        "user/model": "is no adapter", "user/pickle": "a pickle", "user/other": "has no tensor",
        "user/dora": "use_dora", "user/broken": "adapter_config.json", "user/none": "user/none",
        "smollm2": "is no repository", "../x": "is no repository",
    }  # fmt: skip
    here = workspace()
    here.hub = Hub(hub.endpoint, here.hub_cache, patience=Patience(pauses=()))
    for name, words in cases.items():
        with pytest.raises(EdgellmError) as caught:
            pull_adapter(here, "tiny", plan_adapter(here, name))
        assert words in f"{caught.value.what} {caught.value.why}", name
    found = error(edgellm("pull", "tiny", "--lora", "user/dora", "--json"))
    assert found["code"] == "unsupported-model" and "use_dora" in found["why"]
    assert hub.sent < len(model) and not list(settings.adapters.glob("*.json"))
    assert not list(settings.adapters.rglob("*.gguf")) and not list(settings.adapters.rglob("*.work"))


def test_the_model_is_pulled_too_if_it_is_not_here(hub: HubServer, tmp_path: Path) -> None:
    hub.add("user/base", {"base-F32.gguf": (tmp_path / "tiny.gguf").read_bytes()})
    hub.add(NAME, files_of(write_peft(tmp_path / "peft", pairs())))
    assert data(edgellm("pull", "user/base:F32", "--lora", NAME, "--json"))["base"] == "user/base:F32"
    names = [model["name"] for model in data(edgellm_here("list", "--json"))]
    assert names == ["tiny", "user/base:F32"]


def test_a_pull_that_breaks_off_leaves_nothing_and_resumes(hub: HubServer, settings: Settings, tmp_path: Path) -> None:
    peft = write_peft(tmp_path / "peft", pairs())
    repo = hub.add(NAME, files_of(peft), etags={"adapter_model.safetensors": "0" * 64})
    found = error(edgellm("pull", "tiny", "--lora", NAME, "--json"))
    assert found["code"] == "checksum-mismatch" and not list(settings.adapters.glob("*.json"))
    repo.etags.clear()
    assert data(edgellm("pull", "tiny", "--lora", NAME, "--json"))["name"] == NAME
    settings_file = json.loads(next(settings.adapters.glob("*.json")).read_text())
    assert settings_file["base"] == "tiny"
