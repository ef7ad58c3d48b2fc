"""The exit codes of the command line, each once: its number, its name in `--help`, and what it stands for.

raise typer.Exit(ExitCode.DOES_NOT_FIT)
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended; `brief` is for `--help`, `meaning` for the reference."""

    brief: str
    meaning: str

    def __new__(cls, code: int, brief: str, meaning: str) -> ExitCode:
        """A code with its two texts."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.brief = brief
        member.meaning = meaning
        return member

    OK = 0, "ok", "ok"
    FAILED = (
        1,
        "failed",
        "failed: the disk is full, an answer does not have the form asked for, a directory cannot be used, there is no "
        "such chat or server, a check of `doctor` failed",
    )
    USAGE = 2, "usage", "usage: a wrong option, a context larger than the model's, a prompt longer than the context"
    NO_MODEL = 3, "no such model", "no such model"
    NETWORK = 4, "network", "network, or offline"
    DOES_NOT_FIT = 5, "does not fit", "does not fit into memory"
    CORRUPT = 6, "corrupt file", "a checksum does not match, or a file is corrupt or unsupported"
    ENGINE = 7, "engine", "the engine, or a tool to build it, is missing or failed"
    ROWS_FAILED = 8, "rows of a batch failed", "a batch is finished, and rows of it failed"
    HANGUP = 129, "hangup", "the terminal of a chat went away; the answer is saved as far as it came"
    INTERRUPTED = 130, "Ctrl-C", "Ctrl-C"
    CLOSED_PIPE = 141, "closed pipe", "the reader of stdout went away"
    TERMINATED = 143, "terminated", "ended by SIGTERM; unfinished work was put away"


def summary() -> str:
    """All codes in one sentence, as the end of `--help`."""
    return f"Exit codes: {', '.join(f'{code.value} {code.brief}' for code in ExitCode)}."
