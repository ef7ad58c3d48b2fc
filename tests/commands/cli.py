"""Running `edgellm` as a user does, in a process of its own."""

import json
import os
import subprocess
import sys
from typing import Any


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


def data(result: subprocess.CompletedProcess[str]) -> Any:
    """The JSON document on stdout."""
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def error(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON error on stderr."""
    assert result.stdout == ""
    found: dict[str, Any] = json.loads(result.stderr)["error"]
    return found
