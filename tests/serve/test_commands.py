"""serve, ps, stop, env and connect, as a user types them."""

import ast
import json
import plistlib
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from edgellm.machine.identity import identify
from edgellm.serve.clients import CLIENTS, instructions
from edgellm.serve.clients.environment import Target
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.serve.server import Server

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

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


@pytest.mark.parametrize("client", ["anythingllm", "curl"])
def test_a_client_is_told_address_model_and_key(client: str) -> None:
    told = data(edgellm("connect", client, "bitnet-2b", "--api-key", "sesame", "--port", "8080", "--json"))
    assert told["client"] == client and told["target"]["n_ctx"] == 4096
    for part in ("http://127.0.0.1:8080", "bitnet-2b", "sesame"):
        assert part in told["text"]


TARGET = Target("http://127.0.0.1:8080", "my model's.v1", 2048, "it's", "minilm")


def text(client: str, target: Target = TARGET) -> str:
    return instructions(client, target)


@pytest.mark.parametrize("client", CLIENTS)
def test_every_text_has_address_and_model(client: str) -> None:
    said = text(client, Target("http://127.0.0.1:8080", "bitnet-2b", 2048, "sesame"))
    assert "http://127.0.0.1:8080" in said and "bitnet-2b" in said and "sesame" in said
    assert said.endswith("\n") and "\n\n\n" not in said and max(map(len, said.splitlines())) < 230


def variables(client: str) -> dict[str, str]:
    """The lines with variables of a text, as a shell reads them."""
    lines = [line.strip() for line in text(client).splitlines()]
    assigned = [line for line in lines if re.match(r"[A-Z_]+=", line)]
    script = f"set -a; {'; '.join(assigned)}; env -0"
    printed = subprocess.run(["env", "-i", "/bin/sh", "-c", script], capture_output=True, check=True)
    pairs = (each.partition("=") for each in printed.stdout.decode().split("\0"))
    return {name: value for name, _, value in pairs}


def test_anythingllm_gets_the_connector_that_works_as_it_comes() -> None:
    said = text("anythingllm")
    assert said.index('provider "Ollama"') < said.index('"Generic OpenAI"') < said.index("PROVIDER_")
    assert 'Chat mode "Chat" or "Query"' in said
    values = variables("anythingllm")
    assert values["LLM_PROVIDER"] == values["EMBEDDING_ENGINE"] == "ollama"
    assert values["OLLAMA_BASE_PATH"] == values["EMBEDDING_BASE_PATH"] == "http://host.docker.internal:8080"
    assert (values["OLLAMA_MODEL_PREF"], values["OLLAMA_MODEL_TOKEN_LIMIT"]) == ("my model's.v1", "2048")
    assert values["PROVIDER_DISABLE_NATIVE_TOOL_CALLING"].split(",") == ["ollama", "generic-openai"]


def test_open_webui_gets_no_tools_and_no_hidden_questions() -> None:
    values = variables("open-webui")
    assert json.loads(values["DEFAULT_MODEL_METADATA"]) == {"capabilities": {"builtin_tools": False}}
    off = {name for name, value in values.items() if value == "False"}
    hidden = {f"ENABLE_{what}_GENERATION" for what in ("RETRIEVAL_QUERY", "TITLE", "TAGS", "FOLLOW_UP")}
    assert off == {"ENABLE_OLLAMA_API", *hidden}
    assert values["OPENAI_API_BASE_URL"] == values["RAG_OPENAI_API_BASE_URL"] == "http://host.docker.internal:8080/v1"
    assert "Builtin Tools" in text("open-webui") and "--ctx-size 16384" in text("open-webui")
    assert 'DEFAULT_MODEL_METADATA=\'{"capabilities":{"builtin_tools":false}}\'' in text("open-webui")


def test_what_does_not_ask_for_the_context_is_given_it() -> None:
    (facts,) = json.loads(re.findall(r"^\{.*\}$", text("aider"), re.MULTILINE)[0]).values()
    assert facts["max_input_tokens"] == 2048 and facts["max_output_tokens"] < 2048
    assert '"max_input_tokens": 2048' in text("litellm")
    config = tomllib.loads(text("codex"))
    assert config["model"] == "my model's.v1" and config["model_context_window"] == 2048
    provider = config["model_providers"][config["model_provider"]]
    assert (provider["wire_api"], provider["env_key"]) == ("responses", "EDGELLM_API_KEY")
    assert "env_key" not in text("codex", replace(TARGET, key=None))


@pytest.mark.parametrize("client", ["python", "langchain", "litellm"])
@pytest.mark.parametrize("model", ["smollm2", 'a"b\\c', "модель"])
def test_programs_can_be_parsed_whatever_the_model_is_called(client: str, model: str) -> None:
    tree = ast.parse(text(client, replace(TARGET, model=model, embedder=None)))
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert model in strings or f"openai/{model}" in strings


@pytest.mark.parametrize("client", ["aider", "curl", "llm", "lm-eval", "ollama"])
def test_shells_can_parse_the_lines(client: str) -> None:
    for key in (None, "it's"):
        subprocess.run(["sh", "-n"], input=text(client, replace(TARGET, key=key)), text=True, check=True)


def test_langchain_sends_texts_and_not_tokens() -> None:
    assert "check_embedding_ctx_length=False" in text("langchain")
    assert "edgellm serve smollm2 minilm" in text("langchain", Target("http://h:1", "smollm2", 512))


def test_a_client_that_is_mistyped() -> None:
    wrong = edgellm("connect", "AnythinLLM", "--json")
    assert wrong.returncode == 2 and error(wrong)["why"] == "did you mean anythingllm?"


def test_an_origin_that_is_none_is_refused_before_anything_starts() -> None:
    wrong = edgellm("serve", "smollm2", "--allowed-origin", "chat.example", "--json")
    assert wrong.returncode == 2 and "--allowed-origin 'chat.example' is no origin" in error(wrong)["what"]


@pytest.mark.parametrize("app, key", [("anythingllm", "OLLAMA_AUTH_TOKEN"), ("open-webui", "OPENAI_API_KEY")])
def test_compose_files(app: str, key: str) -> None:
    text = edgellm("connect", f"compose-{app}").stdout
    file = yaml.safe_load(text)
    server, client = file["services"]["edgellm"], file["services"][app]
    # Each reaches the other by its name and with the same key, and compose demands the key.
    assert server["environment"]["EDGELLM_ALLOWED_HOST"] == "edgellm"
    assert client["environment"][key] == server["environment"]["EDGELLM_API_KEY"] and ":?" in client["environment"][key]
    assert any(value.startswith("http://edgellm:11435") for value in client["environment"].values())
    assert all(port.startswith("127.0.0.1:") for port in client["ports"]) and "ports" not in server
    # What the settings say of the program without compose is said in the compose file too.
    shown = edgellm("connect", app, "smollm2").stdout
    assert all(f"{name}=" in shown for name in client["environment"] if name != "STORAGE_DIR")


def test_the_launchd_file() -> None:
    agent = plistlib.loads(edgellm("connect", "launchd").stdout.encode())
    assert agent["ProgramArguments"][-1].endswith("exec edgellm serve") and agent["ExitTimeOut"] > 30


def test_files_that_run_the_server(tmp_path: Path) -> None:
    unit = edgellm("connect", "systemd")
    assert unit.stderr == "" and "KillMode=mixed" in unit.stdout
    container = edgellm("connect", "container")
    assert "edgellm-*-manylinux_*.whl" in container.stdout and "USER edgellm" in container.stdout
    # They are for people too, who find them from the documentation.
    for name in ("edgellm.service", "Containerfile"):
        assert f"edgellm/serve/examples/{name}" in (ROOT / "docs" / "how-to" / "serve.md").read_text()
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
def test_two_servers_are_seen_asked_and_stopped(with_engine: Settings) -> None:
    with (
        Server.start("smollm2", "--slots", "1", "--ctx-size", "512", "--verbose") as one,
        Server.start("smollm2", "--api-key", "ab-1") as two,
    ):
        one.post("/v1/completions", {"prompt": "Once", "max_tokens": 4})
        listed = {each["url"]: each for each in data(edgellm("ps", "--json"))}
        assert listed[one.url]["status"]["models"][0]["state"] == "loaded"
        assert listed[two.url]["status"] is None and listed[two.url]["problem"] == "it needs a key"
        assert "ab-1" not in json.dumps(listed)
        with_key = edgellm("ps", env={"EDGELLM_API_KEY": "ab-1 cd-2"}).stdout
        assert re.search(rf"{one.url} +smollm2 +idle \d+ \w+ +512 x 1 +\d+ MB +[\d.]+ tok/s +1", with_key)
        assert re.search(rf"{two.url} +smollm2 +not loaded", with_key)
        # Each is found by its port, with its own context and key.
        told = data(edgellm("connect", "curl", "--port", str(one.port), "--json"))["target"]
        assert told["url"] == one.url and told["n_ctx"] == 512 and told["is_local"]
        locked = edgellm("env", "--port", str(two.port), "--json")
        assert locked.returncode == 2 and "has a key" in error(locked)["what"]
        wrong = edgellm("env", "smolm2", "--port", str(one.port), "--json")
        assert wrong.returncode == 3 and error(wrong)["why"] == "did you mean smollm2?"
        several = edgellm("stop", "--json")
        assert several.returncode == 2 and str(one.port) in error(several)["what"]
        assert edgellm("stop", "--port", "1").returncode == 1
        stopped = data(edgellm("stop", "--port", str(one.port), "--json"))
        assert [(each["url"], each["forced"]) for each in stopped["stopped"]] == [(one.url, False)]
        assert one.process.wait(5) == 143
        assert one.process.stderr is not None
        said = one.process.stderr.read().decode()
        assert re.search(r"^POST /v1/completions  200  [\d.]+ ms  smollm2  [\d.]+ tok/s$", said, re.MULTILINE)
        assert "stopped http" in edgellm("stop", "--all").stderr
        assert two.process.wait(5) == 143
        assert data(edgellm("ps", "--json")) == []
        log = (with_engine.logs / "serve.log").read_text()
        assert f"serving at {one.url}: smollm2" in log and "loaded smollm2" in log and "ab-1" not in log


@pytest.mark.engine
@pytest.mark.model
def test_a_killed_server_leaves_nothing(with_engine: Settings) -> None:
    with Server.start("smollm2", "--slots", "1", "--ctx-size", "512") as server:
        server.post("/v1/completions", {"prompt": "Once", "max_tokens": 1})
        worker = identify(server.workers()[0])
        assert worker is not None and worker.is_alive
        server.process.kill()
        server.process.wait()
        assert data(edgellm("ps", "--json")) == []
        data(edgellm("stop", "--all", "--json"))
        assert not worker.is_alive
        assert not list(with_engine.servers.glob("*.json"))


def test_clients_hear_of_models_that_answer_from_documents() -> None:
    target = Target("http://127.0.0.1:8080", "smollm2", 2048, None, "minilm", documents=("manuals", "office"))
    for client in ("anythingllm", "open-webui"):
        assert "choose the model smollm2@manuals or smollm2@office" in text(client, target)
    asked = replace(target, model="smollm2@office")
    said = text("anythingllm", asked)
    assert "Chat Model       smollm2@office" in said and "choose the model" not in said
    assert "edgellm serve smollm2 --docs office minilm" in said
