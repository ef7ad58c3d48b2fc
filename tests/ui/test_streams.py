"""Every text can be written, whatever the console's encoding; the program starts and leaves without a traceback."""

import codecs
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgellm.early import EXIT_CODE
from edgellm.exit_codes import ExitCode
from edgellm.settings import Settings
from edgellm.ui.render import json_text
from edgellm.ui.streams import SUBSTITUTE, prepare_streams, substitute
from tests.commands.cli import data, edgellm, error

ENCODINGS = ("ascii", "latin-1", "gbk", "cp437", "utf-8")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_text_can_be_written(encoding: str) -> None:
    codecs.register_error(SUBSTITUTE, substitute)
    text = "“quoted” – 世界 😀 \udce9 \ufffd é"
    written = text.encode(encoding, SUBSTITUTE).decode(encoding)
    assert len(written) >= len(text) and "quoted" in written
    if encoding == "ascii":
        assert written == '"quoted" - ?? ? ? ? ?'


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_loses_nothing(encoding: str) -> None:
    document = {"text": "“世界” 😀 é", "n": 1.5}
    text = json_text(document, encoding)
    assert json.loads(text.encode(encoding).decode(encoding)) == document
    assert json.loads(json_text("\ud800", encoding)) == "?"


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError):
        json_text({"loss": float("nan")}, "utf-8")


def test_closed_streams_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    prepare_streams()
    opened = (sys.stdin, sys.stdout, sys.stderr)
    assert all(isinstance(stream, io.TextIOWrapper) for stream in opened)
    assert sys.stdin.read() == "" and sys.stdout.write("é") == 1
    for stream in opened:
        stream.close()


@pytest.mark.parametrize("encoding", ["ascii", "gbk"])
def test_verbs_on_a_console_without_unicode(encoding: str, tmp_path: Path) -> None:
    nowhere, env = str(tmp_path / "模型😀.gguf"), {"PYTHONIOENCODING": encoding}
    plain = edgellm("show", nowhere, env=env)
    assert plain.returncode == 3 and "?.gguf" in plain.stderr
    found = error(edgellm("show", nowhere, "--json", env=env))
    assert "模型😀.gguf" in found["what"]


@pytest.mark.engine
@pytest.mark.model
def test_an_answer_on_a_console_without_unicode(with_engine: Settings) -> None:
    asked = ("run", "smollm2", "--raw", "--temp", "0", "-n", "4", "-q")
    prompt = "“一二三四五六七八”“一二三四五六七八”“一二三四"
    answers = [edgellm(*asked, "--json", stdin=prompt, env={"PYTHONIOENCODING": each}) for each in ("utf-8", "ascii")]
    texts = [data(each)["text"] for each in answers]
    assert texts[0] == texts[1] and not texts[0].isascii() and answers[1].stdout.isascii()
    shown = edgellm(*asked, stdin=prompt, env={"PYTHONIOENCODING": "ascii"})
    assert shown.returncode == 0 and "?" in shown.stdout
    marked = data(edgellm(*asked, "--json", stdin=b"\xef\xbb\xbf" + prompt.encode()))
    wide = data(edgellm(*asked, "--json", stdin=prompt.encode("utf-16")))
    assert marked["text"] == wide["text"] == texts[0]


def test_a_prompt_that_is_no_text(tmp_path: Path) -> None:
    for stdin in (b"caf\xe9", b"a\0b", "Hello".encode("utf-16-le")):
        refused = edgellm("run", "smollm2", "--json", stdin=stdin)
        assert refused.returncode == 2 and error(refused)["code"] == "not-text"
    program = [sys.executable, "-m", "edgellm"]
    for arguments in (["run", "smollm2", b"caf\xe9"], ["run", "smollm2", "hi", "-s", b"\xff"], ["show", b"\xff"]):
        done = subprocess.run([*program, *arguments], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.returncode == 2 and b"Traceback" not in done.stderr
    lines = tmp_path / "lines.txt"
    lines.write_text("one\ntwo\n", encoding="utf-16")
    refused = edgellm("batch", str(lines), "-o", str(tmp_path / "out"), "-m", "smollm2", "--json")
    assert error(refused)["code"] == "not-text" and "iconv -f UTF-16" in error(refused)["try"]


@pytest.mark.parametrize("verb", [("list",), ("show", "smollm2")])
def test_ctrl_c_while_it_starts(verb: tuple[str, ...]) -> None:
    """From the first line of ours on; before that the interpreter itself has no answer to a signal."""
    program = "import sys, time; import edgellm.early as e; e.leave_on_interrupt(); print(flush=True); time.sleep({}); "
    for seconds in (0, 0.2):
        code = program.format(seconds) + "from edgellm.__main__ import main; main()"
        with subprocess.Popen(
            [sys.executable, "-c", code, *verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == "\n"
            time.sleep(0.15)
            process.send_signal(2)
            said = process.communicate(timeout=60)[1]
        # Where it was done before the signal came: 0, or by the signal where the interpreter was leaving already.
        assert process.returncode in (ExitCode.INTERRUPTED, 0, -signal.SIGINT), said
        assert "Traceback" not in said and "Exception" not in said


def test_the_exit_code_of_an_early_interrupt() -> None:
    assert EXIT_CODE == ExitCode.INTERRUPTED


def test_a_reader_that_goes_away() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-m", "edgellm", "list", "--available"], stdout=stdout, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (ExitCode.CLOSED_PIPE, b"")
