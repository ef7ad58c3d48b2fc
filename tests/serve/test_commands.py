"""serve, ps, stop, env and connect, as a user types them."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from edgellm.machine.process import identify
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.serve.server import Server

ROOT = Path(__file__).parent.parent.parent


def test_nothing_runs() -> None:
    assert data(edgellm("ps", "--json")) == []
    assert "edgellm serve" in edgellm("ps").stderr
    for arguments in (["stop"], ["stop", "--port", "8080"]):
        nothing = edgellm(*arguments, "--json")
        assert nothing.returncode == 1 and error(nothing)["code"] == "server-not-found"
    assert data(edgellm("stop", "--all", "--json")) == {"stopped": [], "orphans": 0}
    assert edgellm("stop", "--all", "--port", "8080").returncode == 2


def test_variables_for_each_shell(isolated_home: Path) -> None:
    values = data(edgellm("env", "bitnet-2b", "--json", env={"EDGELLM_API_KEY": "it's$HOME"}))
    assert values["OPENAI_BASE_URL"] == "http://127.0.0.1:11435/v1" and values["OPENAI_MODEL"] == "bitnet-2b"
    assert values["OLLAMA_HOST"] == values["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:11435"
    lines = edgellm("env", "bitnet-2b", "--port", "8080", "--api-key", "it's$HOME")
    assert "edgellm serve bitnet-2b --port 8080" in lines.stderr
    script = lines.stdout + 'printf "%s %s" "$OPENAI_API_KEY" "$OPENAI_BASE_URL"'
    said = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == "it's$HOME http://127.0.0.1:8080/v1"
    fish = edgellm("env", "--shell", "fish", "--api-key", "it's").stdout
    assert "set -gx OPENAI_API_KEY 'it\\'s'" in fish.splitlines()
    power = edgellm("env", "--shell", "powershell", "--api-key", "it's").stdout
    assert "$env:OPENAI_API_KEY = 'it''s'" in power.splitlines()
    missing = edgellm("env", "bitnet-2c", "--json")
    assert missing.returncode == 3 and error(missing)["facts"]["suggestion"] == "bitnet-2b"


@pytest.mark.parametrize("client", ["anythingllm", "open-webui", "continue", "aider", "lm-eval", "curl", "python"])
def test_every_client_is_told_address_model_and_key(client: str) -> None:
    told = data(edgellm("connect", client, "bitnet-2b", "--api-key", "sesame", "--port", "8080", "--json"))
    assert told["client"] == client and told["target"]["n_ctx"] == 4096
    for part in ("http://127.0.0.1:8080/v1", "bitnet-2b", "sesame"):
        assert part in told["text"]


def test_a_client_that_is_mistyped() -> None:
    wrong = edgellm("connect", "AnythinLLM", "--json")
    assert wrong.returncode == 2 and error(wrong)["why"] == "did you mean anythingllm?"


def test_files_that_run_the_server(tmp_path: Path) -> None:
    unit = edgellm("connect", "systemd")
    assert unit.stderr == "" and "KillMode=mixed" in unit.stdout
    container = edgellm("connect", "container")
    assert "edgellm engine build --tools" in " ".join(container.stdout.split("/opt/edgellm/bin/"))
    # They are for people too, who find them from the documentation.
    for name in ("edgellm.service", "Containerfile"):
        assert f"edgellm/serve/examples/{name}" in (ROOT / "docs" / "serve.md").read_text()
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd on this machine: the unit is not verified")
    path = tmp_path / "edgellm-test.service"
    path.write_text(unit.stdout.replace("%h/.local/bin/edgellm", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0 and path.name not in verified.stderr, verified.stderr


@pytest.mark.engine
@pytest.mark.model
def test_two_servers_are_seen_asked_and_stopped(start: Callable[..., Server], serve_home: dict[str, str]) -> None:
    with (
        start("smollm2", "--slots", "1", "--ctx-size", "512", "--verbose") as one,
        start("smollm2", "--api-key", "ab-1") as two,
    ):
        one.post("/v1/completions", {"prompt": "Once", "max_tokens": 4})
        listed = {each["url"]: each for each in data(edgellm("ps", "--json", env=serve_home))}
        assert listed[one.url]["status"]["models"][0]["state"] == "loaded"
        assert listed[two.url]["status"] is None and listed[two.url]["problem"] == "it needs a key"
        assert "ab-1" not in json.dumps(listed)
        with_key = edgellm("ps", env={**serve_home, "EDGELLM_API_KEY": "ab-1 cd-2"}).stdout
        assert re.search(rf"{one.url} +smollm2 +idle \d s +512 x 1 +\d+ MB +[\d.]+ tok/s +1", with_key)
        assert re.search(rf"{two.url} +smollm2 +not loaded", with_key)
        # Each is found by its port, with its own context and key.
        told = data(edgellm("connect", "curl", "--port", str(one.port), "--json", env=serve_home))["target"]
        assert told["url"] == one.url and told["n_ctx"] == 512 and told["is_local"]
        locked = edgellm("env", "--port", str(two.port), "--json", env=serve_home)
        assert locked.returncode == 2 and "has a key" in error(locked)["what"]
        wrong = edgellm("env", "smolm2", "--port", str(one.port), "--json", env=serve_home)
        assert wrong.returncode == 3 and error(wrong)["why"] == "did you mean smollm2?"
        several = edgellm("stop", "--json", env=serve_home)
        assert several.returncode == 2 and str(one.port) in error(several)["what"]
        assert edgellm("stop", "--port", "1", env=serve_home).returncode == 1
        stopped = data(edgellm("stop", "--port", str(one.port), "--json", env=serve_home))
        assert [(each["url"], each["forced"]) for each in stopped["stopped"]] == [(one.url, False)]
        assert one.process.wait(5) == 143
        assert one.process.stderr is not None
        said = one.process.stderr.read().decode()
        assert re.search(r"^POST /v1/completions  200  [\d.]+ ms  smollm2  [\d.]+ tok/s$", said, re.MULTILINE)
        assert "stopped http" in edgellm("stop", "--all", env=serve_home).stderr
        assert two.process.wait(5) == 143
        assert data(edgellm("ps", "--json", env=serve_home)) == []
        log = (Path(serve_home["EDGELLM_HOME"]) / "data" / "logs" / "serve.log").read_text()
        assert f"serving at {one.url}: smollm2" in log and "loaded smollm2" in log and "ab-1" not in log


@pytest.mark.engine
@pytest.mark.model
def test_a_killed_server_leaves_nothing(start: Callable[..., Server], serve_home: dict[str, str]) -> None:
    with start("smollm2", "--slots", "1", "--ctx-size", "512") as server:
        server.post("/v1/completions", {"prompt": "Once", "max_tokens": 1})
        worker = identify(server.workers()[0])
        assert worker is not None and worker.is_alive
        server.process.kill()
        server.process.wait()
        assert data(edgellm("ps", "--json", env=serve_home)) == []
        data(edgellm("stop", "--all", "--json", env=serve_home))
        assert not worker.is_alive
        records = Settings.from_environment(serve_home).servers
        assert not list(records.glob("*.json"))
