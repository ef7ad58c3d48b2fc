"""What `edgellm doctor --report` writes: enough for a bug report, and nothing that says whose it is."""

import json
from pathlib import Path

import pytest

from edgellm.bug_report import Redaction, bug_report
from edgellm.diagnosis import Check
from edgellm.settings import Settings
from tests.commands.cli import edgellm

REDACT = Redaction(Path("/home/ada"), "ada", "engine-room")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/home/ada/.local/share/edgellm is full", "~/.local/share/edgellm is full"),
        ("/home/grace/models/x.gguf", "~/models/x.gguf"),
        ("ada@engine-room: no", "(user)@(host): no"),
        ("the adapter of adam", "the adapter of adam"),
        ("HF_TOKEN hf_abcdefghijkl0123", "HF_TOKEN (key)"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer (key)"),
        ("http://me:secret@proxy:3128 refused", "http://(user)@proxy:3128 refused"),
        ("mail to a.lovelace@example.org", "mail to (address)"),
        ("127.0.0.1 and 192.168.7.20", "127.0.0.1 and (address)"),
        ("key 0123456789abcdef0123456789abcdef", "key (key)"),
        ("stamp 8c47fa12ab3f stays", "stamp 8c47fa12ab3f stays"),
    ],
)
def test_names_and_keys_are_taken_out(text: str, clean: str) -> None:
    assert REDACT(text) == clean


def test_root_and_a_home_at_the_root_of_the_disk_change_no_words() -> None:
    assert Redaction(Path("/"), "root", "localhost")("/root of all: localhost") == "/root of all: localhost"
    assert Redaction(Path("/"), "", "")("a/b") == "a/b"


def test_the_report_tells_machine_checks_and_settings() -> None:
    checks = [
        Check("engine", False, "in /home/ada", "edgellm engine build"),
        Check("patch", True, "a.patch: does a (edgellm-only)"),
    ]
    environ = {"EDGELLM_HOME": "/home/ada/big", "EDGELLM_API_KEY": "s3cret", "HF_TOKEN": "x", "PATH": "/bin"}
    text = bug_report(checks, ["smollm2", "divorce-lawyer"], ["smollm2"], environ, REDACT)
    assert "FAIL engine: in ~" in text and "a.patch" not in text
    assert "EDGELLM_HOME=~/big" in text and "EDGELLM_API_KEY=(set)" in text and "HF_TOKEN=(set)" in text
    assert "PATH" not in text and "s3cret" not in text
    assert "smollm2" in text and "divorce" not in text and "1 with names of the user's own" in text
    assert "numpy " in text and "Python 3." in text


def test_doctor_writes_it(with_engine: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGELLM_OFFLINE", "1")
    result = edgellm("doctor", "--json", "--report", str(tmp_path / "report.md"))
    assert json.loads(result.stdout)["data"]["checks"]
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("## edgellm doctor --report") and "ok   engine: llama.cpp" in text
    assert str(Path.home()) not in text
    assert "is written" in result.stderr


def test_a_report_that_cannot_be_written_is_one_line(with_engine: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = edgellm("doctor", "--report", str(tmp_path / "file" / "report.md"))
    assert result.returncode != 0 and "Traceback" not in result.stderr
    assert "report.md" in result.stderr or "file" in result.stderr
