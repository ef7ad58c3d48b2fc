"""The program's entry point, before anything of it is loaded."""

import subprocess
import sys

from edgellm.exit_codes import ExitCode


def test_windows_is_told_where_edgellm_runs() -> None:
    code = "import sys; sys.platform = 'win32'; from edgellm.__main__ import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == ExitCode.ENGINE and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "WSL2" in result.stderr
