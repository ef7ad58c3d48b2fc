"""`edgellm config` and the values of options that nobody types: precedence, refusals by name, and lost nothing."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgellm.cli import VerbSettings
from edgellm.config_file import ConfigFile, change
from edgellm.errors import ConfigInvalid
from edgellm.settings import VARIABLES, Settings
from edgellm.ui.options import COMMON
from tests.commands.cli import data, error
from tests.commands.cli import edgellm as process
from tests.commands.cli import edgellm_here as edgellm


@pytest.fixture
def file(settings: Settings) -> Path:
    """Where the config file is; it is not there yet."""
    settings.config_file.parent.mkdir(parents=True)
    return settings.config_file


def set_by(file: Path, text: str, *arguments: str, **env: str) -> object:
    """What `config get` finds with such a file."""
    file.write_text(text)
    return data(edgellm("config", "get", *arguments, "--json", env=env))["value"]


def test_the_environment_wins_over_the_model_the_verb_and_the_top(file: Path) -> None:
    text = "temp = 0.1\n[chat]\ntemp = 0.2\n[models.smollm2]\ntemp = 0.3\n"
    assert set_by(file, text, "chat.temp", EDGELLM_TEMP="0.4") == "0.4"
    assert set_by(file, text, "models.smollm2.temp") == 0.3
    assert set_by(file, text, "chat.temp", EDGELLM_TEMP="") == 0.2, "empty is unset"
    assert set_by(file, text, "run.temp") == 0.1
    assert set_by(file, text, "serve.port") == 11435 and set_by(file, text, "run.seed") is None


def test_an_answer_follows_the_file_and_what_is_typed_wins(with_engine: Settings) -> None:
    with_engine.config.mkdir()
    with_engine.config_file.write_text(
        "max-tokens = 9\ntemp = 0\njson = true\n"
        "[run]\nmax-tokens = 8\n[models.smollm2]\nmax-tokens = 2\nctx-size = 64\n"
    )
    by_file = data(process("run", "smollm2", "Hello"))
    assert by_file["stats"]["completion_tokens"] == 2 and by_file["stats"]["n_ctx"] == 64
    assert by_file["sampling"]["temperature"] == 0
    assert data(process("run", "smollm2", "Hello", "-n", "3"))["stats"]["completion_tokens"] == 3
    wrong = edgellm("run", "nosuch", "Hello")
    assert wrong.returncode == 3 and error(wrong)["code"] == "model-not-found", "json = true is for errors too"


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("[list]\njsn = true\n", 2, "did you mean json"),
        ("[lst]\njson = true\n", 1, "did you mean list"),
        ("\n\nthreds = 4\n", 3, "did you mean threads"),
        ("json = 1\n", 1, "true or false is needed, not 1"),
        ('ctx-size = "big"\n', 1, "a whole number is needed, not 'big'"),
        ("ctx-size = 8192.5\n", 1, "a whole number is needed, not 8192.5"),
        ("ctx-size = true\n", 1, "a whole number is needed, not true"),
        ("temp = nan\n", 1, "nan is not from 0 to 5"),
        ("# why\ntemp = [\n  1,\n]\n", 2, "a number is needed, not a list"),
        ("on-loop = 'again'\n", 1, "one of stop, retry is needed"),
        ("seed = -2\n", 1, "not from -1 to"),
        ("list = 3\n", 1, "the name of a section"),
        ("[models]\nsmollm2 = 1\n", 2, "a section is needed"),
        ('[models."a.b/c:Q4"]\nthread = 1\n', 2, "did you mean threads"),
        ("[chats]\nformat = 'md'\n", 2, "no such verb"),
        ("[list\n", 1, "not valid TOML"),
        ("a = 1\na = 2\n", 2, "not valid TOML"),
        ("a = " + "[" * 100_000, None, "not valid TOML"),
        ("\xff\n".encode("utf-16").decode("latin-1"), 1, "not in UTF-8"),
        ("x = '" + "y" * (1 << 20) + "'", None, "too large"),
    ],
)
def test_what_is_wrong_is_named_with_its_line_and_config_still_works(
    file: Path, text: str, line: int | None, why: str
) -> None:
    file.write_bytes(text.encode("latin-1"))
    result = edgellm("list", "--json")
    found = error(result)
    said = f"{found['what']}: {found['why']}"
    assert result.returncode == 2 and found["code"] == "config-invalid" and why in said, said
    assert str(file) in said and (line is None or f"line {line}" in said), said
    shown = data(edgellm("config", "show", "--json"))
    assert len(shown["problems"]) == 1 and why.partition(",")[0] in shown["problems"][0]
    assert edgellm("config", "path").stdout.strip() == str(file) and edgellm("list", "--help").returncode == 0


def test_a_byte_order_mark_crlf_and_a_file_that_is_not_there_are_fine(file: Path) -> None:
    assert data(edgellm("list", "--json")) == [] and not file.exists()
    file.write_bytes(b"\xef\xbb\xbf[list]\r\njson = true\r\n")
    assert data(edgellm("list")) == []
    file.unlink()
    file.mkdir()
    found = error(edgellm("list", "--json"))
    assert found["code"] == "file-access" and str(file) in found["what"]


def test_comments_the_mode_and_links_survive_a_change(file: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text("# mine\nthreads = 2  # two\n\n[chat]\n# calm\ntemp = 0.2\n")
    real.chmod(0o640)
    file.symlink_to(real)
    assert data(edgellm("config", "set", "chat.temp", "0.5", "--json"))["changed"]
    assert data(edgellm("config", "set", "ctx-size", "64", "--json"))["key"] == "ctx-size"
    assert file.is_symlink() and real.stat().st_mode & 0o777 == 0o640
    text = real.read_text()
    assert all(each in text for each in ("# mine", "# two", "# calm", "temp = 0.5")) and text.index("64") < text.index(
        "["
    )
    assert not data(edgellm("config", "set", "chat.temp", "0.5", "--json"))["changed"]
    assert data(edgellm("config", "unset", "chat.temp", "--json"))["changed"] and "# calm" in real.read_text()
    assert not data(edgellm("config", "unset", "chat.temp", "--json"))["changed"]


def test_a_new_file_is_for_its_owner_alone_and_secrets_are_masked(file: Path) -> None:
    assert edgellm("config", "set", "serve.api-key", "abc", "def").stderr.count("abc") == 0
    assert file.stat().st_mode & 0o777 == 0o600 and ConfigFile.read(file).at(("serve", "api-key")) == ["abc", "def"]
    with file.open("a") as more:
        more.write('hf-token = "hf_x"\n')
    shown = edgellm("config", "show", "--origin", env={"HF_TOKEN": "hf_secret", "EDGELLM_API_KEY": "xyz"})
    assert not {"abc", "hf_x", "hf_secret", "xyz"} & set(shown.stdout.split()) and shown.stdout.count("********") == 4
    assert "HF_TOKEN" in shown.stdout and "line 2" in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("chat.tmp", "1"), "did you mean chat.temp?"),
        (("chta.temp", "1"), "did you mean chat.temp?"),
        (("slots", "1"), "batch, serve, fit"),
        (("models.smollm2.port-x", "1"), "no option"),
        (("chat.temp", "hot"), "a number is needed"),
        (("chat.temp", "9"), "9 is not from 0 to 5"),
        (("chat.temp", "nan"), "nan is not from 0 to 5"),
        (("chat.temp", "1", "2"), "one value is needed, not 2"),
        (("json", "maybe"), "true or false is needed"),
        (("on-loop", "again"), "one of stop, retry"),
        (("threads", "4", "--jsn"), "there is no option --jsn"),
    ],
)
def test_set_refuses_what_no_option_takes(file: Path, arguments: tuple[str, ...], said: str) -> None:
    result = edgellm("config", "set", *arguments)
    assert result.returncode == 2 and said in result.stderr and not file.exists()


def test_negative_numbers_lists_and_models_with_dots_are_values(file: Path) -> None:
    for arguments in (("serve.keep-alive", "-1"), ("models.qwen2.5-0.5b.system", "Hi"), ("run.loop-guard", "off")):
        assert edgellm("config", "set", *arguments).returncode == 0
    assert ConfigFile.read(file).values == {
        "serve": {"keep-alive": -1},
        "models": {"qwen2.5-0.5b": {"system": "Hi"}},
        "run": {"loop-guard": False},
    }
    assert data(edgellm("config", "unset", "models.qwen2.5-0.5b.system", "--json"))["changed"]
    assert "models" not in ConfigFile.read(file).values, "an empty section goes"


def test_writers_at_the_same_time_lose_nothing(file: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: change(file, ("models", f"m{n}", "threads"), n), range(1, 25)))
    models = ConfigFile.read(file).values["models"]
    assert {name: each["threads"] for name, each in models.items()} == {f"m{n}": n for n in range(1, 25)}


def test_a_value_where_a_section_is_needed_is_refused(file: Path) -> None:
    file.write_text("chat = 1\n")
    with pytest.raises(ConfigInvalid, match="line 1"):
        change(file, ("chat", "temp"), 0.5)
    assert file.read_text() == "chat = 1\n"


def test_the_editor_gets_the_file_and_what_it_leaves_is_checked(file: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text("import sys; open(sys.argv[1], 'a').write('[chat]\\ntemp = 9\\n')")
    result = edgellm("config", "edit", env={"EDITOR": f"{sys.executable} {editor}", "VISUAL": ""})
    assert result.returncode == 2 and "9 is not from 0 to 5" in result.stderr and "# [chat]" in file.read_text()
    assert "EDITOR" in edgellm("config", "edit", env={"EDITOR": "", "VISUAL": ""}).stderr
    assert edgellm("config", "edit", env={"EDITOR": "false", "VISUAL": ""}).returncode == 1
    assert edgellm("config", "edit", env={"EDITOR": "/no/such", "VISUAL": ""}).returncode == 1


@pytest.mark.parametrize(
    ("variable", "value", "arguments", "said"),
    [
        ("EDGELLM_TEMP", "hot", ("run", "m", "x"), "EDGELLM_TEMP: a number is needed, not 'hot'"),
        ("EDGELLM_TEMP", "nan", ("run", "m", "x"), "EDGELLM_TEMP"),
        ("EDGELLM_SLOTS", "0", ("batch", "in", "-o", "out", "-m", "m"), "EDGELLM_SLOTS: 0 is not from 1 to 256"),
        ("EDGELLM_JSON", "maybe", ("list",), "EDGELLM_JSON: true or false is needed"),
        ("EDGELLM_ON_LOOP", "again", ("run", "m", "x"), "EDGELLM_ON_LOOP: one of stop, retry"),
        ("EDGELLM_RETRY", "-1", ("batch", "in", "-o", "out", "-m", "m"), "EDGELLM_RETRY"),
        ("EDGELLM_MAX_MEMORY", "lots", ("run", "m", "x"), "--max-memory comes from EDGELLM_MAX_MEMORY"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(
    variable: str, value: str, arguments: tuple[str, ...], said: str
) -> None:
    result = edgellm(*arguments, env={variable: value})
    assert result.returncode == 2 and said in result.stderr, result.stderr


def test_what_is_typed_takes_back_settings_that_it_excludes(file: Path) -> None:
    assert "no server is running" in edgellm("stop", "--all", env={"EDGELLM_PORT": "8080"}).stderr
    file.write_text('[chat]\nsystem = "x"\n')
    assert "there is no chat to continue" in edgellm("chat", "--continue").stderr
    private = edgellm("chat", "--continue", env={"EDGELLM_PRIVATE": "1"})
    assert private.returncode == 2 and "--private comes from EDGELLM_PRIVATE" in private.stderr, "never saved unasked"


def test_every_option_has_a_variable_of_one_meaning() -> None:
    meanings: dict[str, set[object]] = {}
    for verb, settings in VerbSettings().items():
        for each in settings:
            assert each.variable.startswith("EDGELLM_") and each.variable not in VARIABLES, (verb, each)
            own = f"EDGELLM_{verb.upper().replace(' ', '_')}_{each.key.upper().replace('-', '_')}"
            assert each.variable in (own, f"EDGELLM_{each.key.upper().replace('-', '_')}")
            if each.key in COMMON and not each.is_own:
                meanings.setdefault(each.variable, set()).add(each.kind)
    # `bench` takes several numbers of threads.
    assert {name for name, kinds in meanings.items() if len(kinds) > 1} == {"EDGELLM_THREADS"}


def test_help_names_the_variable_of_every_option_and_reads_no_file(file: Path) -> None:
    file.write_text("[serve\n")
    text = edgellm("serve", "--help").stdout
    for each in VerbSettings()["serve"]:
        assert each.variable in text.replace("\n", " "), each.variable


def test_python_does_not_read_the_file(file: Path) -> None:
    file.write_text("[list\n")
    code = "import edgellm; print(edgellm.models())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.parametrize(
    ("typed", "value", "key"),
    [("ctx_size", "64", "ctx-size"), ("num_ctx", "64", "ctx-size"), ("temperature", "1", "temp")],
)
def test_other_spellings_of_an_option(file: Path, typed: str, value: str, key: str) -> None:
    assert f"{key} = {value}" in edgellm("config", "set", typed, value).stderr
    assert file.read_text().startswith(f"{key} = {value}")
