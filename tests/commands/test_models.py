"""The verbs around models on this machine: fit, list, show, import, verify, rm, prune, completion; their JSON."""

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.models.local.store import Store
from edgellm.settings import Settings, resource_directory
from edgellm.workspace import workspace
from tests.commands.cli import data, edgellm, error
from tests.models.hub_server import HubServer
from tests.models.shapes import PHI3_MINI, header_of
from tests.weights.gguf_maker import write_llama


@pytest.fixture
def mine(settings: Settings, tmp_path: Path) -> Path:
    """A model file of the user's, imported as `mine`."""
    path = write_llama(tmp_path / "mine.gguf")
    assert edgellm("import", str(path)).returncode == 0
    return path


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running


@pytest.fixture
def on_the_hub(server: HubServer, settings: Settings) -> dict[str, str]:
    """The environment of a user whose Hub is the local server."""
    return {"HF_ENDPOINT": server.endpoint, "HF_HUB_CACHE": str(settings.data / "hub")}


def test_fit_prints_the_parts_and_the_verdict(mine: Path) -> None:
    fit = data(edgellm("fit", "mine", "--json"))
    assert fit["fits"] and fit["model"] == "mine"
    assert fit["need"]["total"] == sum(fit["need"][part] for part in ("weights", "kv_cache", "compute", "slack"))
    text = edgellm("fit", str(mine), "-c", "256", "--slots", "2", "--kv", "q8_0").stdout
    assert "256 tokens in each of 2 slots with a q8_0 cache" in text and "fits" in text
    for part in ("weights", "KV cache", "compute", "slack", "needs"):
        assert part in text


def test_what_does_not_fit_is_exit_code_5_with_alternatives(mine: Path) -> None:
    result = edgellm("fit", "mine", "--slots", "64", "--ram", "110MB")
    assert result.returncode == 5 and "does not fit" in result.stdout and "WHAT FITS INSTEAD" in result.stdout
    offered = re.findall(r"^edgellm (fit \S+(?: --?\S+ \w+)*)", result.stdout, re.MULTILINE)
    assert offered
    for command in offered:
        options = [] if "--slots" in command else ["--slots", "64"]
        assert edgellm(*command.split(), *options, "--ram", "110MB").returncode == 0, command
    result = edgellm("fit", "mine", "--ram", "1MB", "--json")
    assert result.returncode == 5 and '"alternatives": []' in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["-c", "100000"], 2),
        (["--kv", "q9"], 2),
        (["--ram", "much"], 2),
        (["--slots", "0"], 2),
        (["-c", "1"], 2),
    ],
)
def test_wrong_questions(arguments: list[str], code: int, mine: Path) -> None:
    assert edgellm("fit", "mine", *arguments).returncode == code
    assert edgellm("fit", "nosuch").returncode == 3


def test_fit_of_a_checkpoint_directory(tmp_path: Path) -> None:
    from tests.models.test_fit import CONFIG

    (tmp_path / "config.json").write_bytes(CONFIG)
    assert data(edgellm("fit", str(tmp_path), "--json"))["quant"] == "F16"
    (tmp_path / "config.json").write_bytes(b"{}")
    assert edgellm("fit", str(tmp_path)).returncode == 6


def test_pull_refuses_by_the_header(
    on_the_hub: dict[str, str], server: HubServer, vocabularies: Path, settings: Settings
) -> None:
    """A file of 2 GB of which only the header is there: what is read of it, and what is told."""
    header, size = header_of(PHI3_MINI, "Q4_K", vocabularies / "ggml-vocab-phi-3.gguf")
    server.add("test/phi3-GGUF", {"phi3-Q4_K.gguf": Sparse(header, size)})  # type: ignore[dict-item]
    fit = data(edgellm("fit", "test/phi3-GGUF", "--ram", "100GB", "-c", "131072", "--json", env=on_the_hub))
    assert fit["need"]["kv_cache"] == 48 << 30 and fit["fits"] and fit["n_bytes"] == size
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (900_000_000,) * 2);"
    code = limited + "from edgellm.cli import main; sys.argv = ['edgellm', 'pull', 'test/phi3-GGUF', '--json']; main()"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **on_the_hub}, check=False
    )
    assert result.returncode == 5, result.stderr
    refused = error(result)
    assert refused["code"] == "does-not-fit" and refused["facts"]["needed"] > 3 * 10**9
    assert Store(settings.models).list() == [] and not list((settings.data / "hub").rglob("*.incomplete"))
    plan = data(edgellm("pull", "test/phi3-GGUF", "--dry-run", "--json", env=on_the_hub))
    assert plan["fit"]["kv_bytes_per_token"] == 393_216


class Sparse(bytes):
    """A header, and the length of the file that it belongs to; the server sends slices of it."""

    length: int

    def __new__(cls, header: bytes, length: int) -> "Sparse":
        made = super().__new__(cls, header)
        made.length = length
        return made

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: Any) -> Any:
        start, stop, _ = part.indices(self.length)
        return super().__getitem__(part).ljust(stop - start, b"\0")


def test_list_tells_what_is_known(mine: Path, settings: Settings) -> None:
    (listed,) = data(edgellm("list", "--json"))
    assert (listed["name"], listed["quant"], listed["context"], listed["fits"]) == ("mine", "F16", 512, True)
    assert listed["last_used"] is None and listed["path"] == str(mine) and listed["problem"] is None
    assert re.search(r"^mine +F16 .* 512 .* yes ", edgellm("list").stdout, re.MULTILINE)
    mine.write_bytes(b"<html>")
    (broken,) = data(edgellm("list", "--json"))
    assert not broken["fits"] and "not a GGUF" in broken["problem"] and "broken" in edgellm("ls").stdout


@pytest.mark.engine
@pytest.mark.model
def test_a_run_is_remembered(with_engine: Settings) -> None:
    assert edgellm("run", "smollm2", "hi", "-n", "4").returncode == 0
    listed = next(model for model in data(edgellm("list", "--json")) if model["name"] == "smollm2")
    assert listed["decode_rate"] > 0 and listed["last_used"].startswith("20")
    assert "tok/s" in edgellm("list").stdout and "tok/s" in edgellm("show", "smollm2").stdout
    assert data(edgellm("show", "smollm2", "--json"))["name"] == "smollm2"


@pytest.mark.engine
@pytest.mark.model
def test_cache_types_answer(with_engine: Settings) -> None:
    """The capital of France, from caches of 16, 8 and 5 bits."""
    for kind in ("f16", "q8_0", "q5_1"):
        command = ["run", "smollm2", "What is the capital of France?", "--temp", "0", "-n", "12", "--kv", kind]
        answer = data(edgellm(*command, "--json"))
        assert "Paris" in answer["text"] and answer["kv_type"] == kind.upper()
    assert edgellm("run", "smollm2", "hi", "--kv", "f8").returncode == 2


def test_import_verify_rm(tmp_path: Path, settings: Settings) -> None:
    path = write_llama(tmp_path / "a.gguf")
    imported = data(edgellm("import", str(path), "--name", "mine", "--json"))
    assert imported["path"] == str(path)
    assert edgellm("import", str(tmp_path / "nosuch.gguf")).returncode == 3
    assert edgellm("import", str(write_llama(tmp_path / "b.gguf")), "--name", "mine").returncode == 2
    (checked,) = data(edgellm("verify", "--json"))
    assert checked["ok"]
    assert edgellm("verify", "nosuch").returncode == 3
    contents = bytearray(path.read_bytes())
    contents[-1] ^= 1
    path.write_bytes(contents)
    result = edgellm("verify", "mine")
    assert result.returncode == 6 and "CORRUPT" in result.stdout and "edgellm rm mine" in result.stderr
    (removed,) = data(edgellm("rm", "mine", "--json"))
    assert removed == {"name": "mine", "freed": 0, "kept": [str(path)]}
    assert path.exists() and data(edgellm("list", "--json")) == []


def test_an_import_that_a_recipe_knows_gets_its_recipe(tmp_path: Path, settings: Settings) -> None:
    path = write_llama(tmp_path / "a.gguf")
    recipe = (resource_directory("recipes") / "bitnet-2b.toml").read_text()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = re.sub(r'sha256 = "[0-9a-f]+"', f'sha256 = "{digest}"', recipe).replace(
        "1_187_801_280", str(path.stat().st_size)
    )
    (settings.config / "recipes").mkdir(parents=True)
    (settings.config / "recipes" / "ours.toml").write_text(re.sub("aliases = .*", "", known))
    said = edgellm("import", str(path), "--name", "mine").stderr
    assert "a model of the recipe ours" in said and "next: edgellm chat mine" in said
    assert workspace().model("MINE").recipe.name == "ours"  # type: ignore[union-attr]
    removed = edgellm("rm", "--yes", "mine").stderr
    assert removed == f"removed mine; {path} stays\n"


def test_what_a_model_is_for(tmp_path: Path, settings: Settings) -> None:
    plain = write_llama(tmp_path / "base model.gguf")
    said = edgellm("import", str(plain), "--name", "base").stderr
    assert said == "next: edgellm run --raw base 'Once upon a time'\n"
    assert data(edgellm("show", "base", "--json"))["kind"] == "completion"
    for verb in (["chat", "base"], ["run", str(plain), "hi"]):
        refused = edgellm(*verb)
        assert refused.returncode == 2 and "edgellm run --raw" in refused.stderr, verb


def test_fit_says_what_caps_the_memory(mine: Path) -> None:
    assert "1.00 GB as --ram says: fits" in edgellm("fit", "mine", "--ram", "1GB").stdout
    assert "1.00 GB as --max-memory says: fits" in edgellm("fit", "mine", "--max-memory", "1GB").stdout
    assert edgellm("fit", "mine", env={"EDGELLM_MAX_MEMORY": "1MB"}).returncode == 5


def test_verify_of_nothing() -> None:
    assert data(edgellm("verify", "--json")) == []
    assert "no model" in edgellm("verify").stderr


def test_prune(settings: Settings) -> None:
    orphan = settings.models / "x" / "x.gguf"
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"12345")
    found = data(edgellm("prune", "--dry-run", "--json"))
    assert found["dry_run"] and orphan.exists()
    assert [entry["path"] for entry in found["files"]] == [str(orphan)]
    assert data(edgellm("prune", "--json"))["freed"] == 5 and not orphan.exists()
    assert "nothing to delete" in edgellm("prune", "--dry-run").stderr


def complete(words: str) -> set[str]:
    """What bash would be offered."""
    asked = {"_EDGELLM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    # The installed script: the name of the program is part of the protocol.
    command = [str(Path(sys.executable).with_name("edgellm"))]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **asked}, check=True)
    return set(result.stdout.split())


def test_names_are_completed(mine: Path) -> None:
    for verb in ("run", "chat", "fit", "pull"):
        assert "smollm2" in complete(f"edgellm {verb} s"), verb
    for verb in ("run", "chat", "fit"):
        assert {"mine", "smollm2"} <= complete(f"edgellm {verb} "), verb
    assert complete("edgellm rm m") == complete("edgellm verify m") == {"mine"}
    assert complete("edgellm show mi") == {"mine", "minilm"}  # of a recipe it shows what that knows
    assert "fit" in complete("edgellm fi")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_scripts(shell: str) -> None:
    script = edgellm("completion", shell).stdout
    assert "_EDGELLM_COMPLETE" in script and "edgellm" in script
    assert edgellm("completion", "tcsh").returncode == 2


def test_two_imports_of_one_name_at_once(tmp_path: Path, settings: Settings) -> None:
    """One waits for the other, and then says that the name is taken."""
    paths = [write_llama(tmp_path / f"{name}.gguf") for name in "ab"]
    command = [sys.executable, "-m", "edgellm", "import", "--name", "same"]
    running: list[subprocess.Popen[Any]] = [
        subprocess.Popen([*command, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for path in paths
    ]
    deadline = time.monotonic() + 60
    codes = sorted(process.wait(timeout=deadline - time.monotonic()) for process in running)
    assert codes == [0, 2] and Store(settings.models).names() == ["same"]
