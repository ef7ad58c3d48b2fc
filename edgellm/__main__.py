"""The program: `edgellm`, and `python -m edgellm`. What is slow to import comes after Ctrl-C is taken care of."""

import sys

from edgellm.early import leave_on_interrupt

# `ExitCode.ENGINE`; its module is not imported before Ctrl-C is taken care of.
ENGINE = 7
WINDOWS = "error: edgellm runs on Linux and macOS; on Windows, run it in WSL2: wsl --install, then install it there\n"


def main() -> None:
    """Entry point."""
    if sys.platform == "win32":
        sys.stderr.write(WINDOWS)
        sys.exit(ENGINE)
    leave_on_interrupt()
    from edgellm.cli import main as run

    run()


if __name__ == "__main__":
    main()
