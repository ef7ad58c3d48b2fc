"""Running `edgellm` as a user does, in a process of its own, or in this one where only words are compared."""

import json
import os
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner

from edgellm.cli import app
from tests.shapes import mismatch, returned


def edgellm(
    *arguments: str, stdin: str | bytes | None = None, env: dict[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the command line; what goes wrong must never show a traceback."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "edgellm", *arguments],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env={**os.environ, **(env or {})},
        timeout=timeout,
        check=False,
    )
    text = subprocess.CompletedProcess(
        result.args,
        result.returncode,
        result.stdout.decode("utf-8", "replace"),
        result.stderr.decode("utf-8", "replace"),
    )
    assert "Traceback" not in text.stderr, text.stderr
    return text


def edgellm_here(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in this process, which has the modules already."""
    result = CliRunner().invoke(app, list(arguments), env=env, catch_exceptions=False)
    return subprocess.CompletedProcess(list(arguments), result.exit_code, result.stdout, result.stderr)


def data(result: subprocess.CompletedProcess[str], code: int = 0) -> Any:
    """The data of the one JSON document on stdout, which has the shape that the reference gives for it."""
    assert result.returncode == code, result.stderr
    found = json.loads(result.stdout)
    head = {"version": 1, "command": found["command"], "data": found["data"]}
    beside = found["data"] if isinstance(found["data"], dict) else {}
    assert found == {key: value for key, value in beside.items() if key != "error"} | head
    assert not (wrong := mismatch(found["data"], returned(found["command"]))), wrong
    return found["data"]


def error(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON error on stderr."""
    assert result.stdout == ""
    document = json.loads(result.stderr)
    assert document["version"] == 1 and set(document) == {"version", "command", "error"}
    found: dict[str, Any] = document["error"]
    assert set(found) == {"code", "what", "why", "try", "facts"}
    return found
