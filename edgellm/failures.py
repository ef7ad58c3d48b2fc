"""How errors leave the program: one message, for people or as JSON, and an exit code.

with failures(arguments, command_of): ...
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import typer

from edgellm.errors import DiskFull, DoesNotFit, EdgellmError, FileAccessError, NotText, UsageError
from edgellm.exit_codes import ExitCode
from edgellm.settings import is_true

# The verb that a command line names.
CommandOf = Callable[[Sequence[str]], "str | None"]
# Under which name a verb notes that its errors shall be JSON.
JSON_WANTED = "edgellm.json"
# Errors of the file system that a user's choice of a path can cause.
REFUSALS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
)
# The words when there is no address space left for a library, or for a thread's stack.
NO_MEMORY = re.compile(r"failed to map segment|cannot allocate memory|can't start new thread", re.IGNORECASE)


def json_asked(arguments: Sequence[str]) -> bool:
    """Whether a command line, or the environment, asks for JSON, wherever `--json` stands; errors follow it."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options or is_true(os.environ.get("EDGELLM_JSON"))


@contextlib.contextmanager
def failures(arguments: Sequence[str], command_of: CommandOf, meta: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Turn whatever may go wrong outside of edgellm into a message and an exit code."""

    def leave(error: EdgellmError) -> None:
        as_json = json_asked(arguments) or bool((meta or {}).get(JSON_WANTED))
        _leave(error, command_of(arguments), as_json=as_json)

    try:
        yield
    except EdgellmError as error:
        leave(error)
    except typer.TyperException as error:  # the parser's: a wrong option, a missing argument
        if _is_help(error) and not json_asked(arguments):
            raise
        leave(_usage(error, command_of(arguments)))
    except BrokenPipeError:
        _flush_or_discard()
        raise typer.Exit(ExitCode.CLOSED_PIPE) from None
    except UnicodeEncodeError as error:
        leave(_not_encodable(error))
    except OSError as error:
        known = _explain(error)
        if known is None:
            raise
        _flush_or_discard()
        leave(known)
    except (MemoryError, ImportError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not NO_MEMORY.search(str(error)):
            raise
        leave(too_little())
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _flush_or_discard() -> None:
    """Empty stdout's buffer; what a closed stdout does not take must not fail once more at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: OSError) -> EdgellmError | None:
    """An error of ours for what the file system refuses; None for anything else, which is a bug."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" while writing {error.filename}" if error.filename else ""
        return DiskFull(f"the disk is full{place}", hint="free some space and try again; nothing is half-written")
    if error.errno in REFUSALS and error.filename:
        hint = "set EDGELLM_HOME to a directory that you can write to"
        return FileAccessError(
            f"cannot use {error.filename}", why=str(error.strerror), hint=hint, path=str(error.filename)
        )
    return None


def _not_encodable(error: UnicodeEncodeError) -> NotText:
    """A name or a word whose bytes this locale cannot read, or whose characters it cannot write."""
    part = error.object[error.start : error.end]
    why = f"{part!a} cannot be written in {error.encoding}"
    hint = "the same in UTF-8" if error.encoding.startswith("utf") else "export LC_ALL=C.UTF-8"
    return NotText("a name or a word is not text in this locale", why=why, hint=hint)


def too_little() -> DoesNotFit:
    """The error where not even edgellm itself finds memory."""
    why = "a limit is set (ulimit -v, a container), or other programs hold the memory"
    return DoesNotFit("there is too little memory for edgellm itself", why=why, hint="raise the limit")


def _is_help(error: typer.TyperException) -> bool:
    """Whether the parser's complaint is the help that a family shows without a verb."""
    return error.format_message().startswith("Usage:")


def _usage(error: typer.TyperException, command: str | None) -> UsageError:
    """What the parser refuses, as an error of ours."""
    message = "Missing command." if _is_help(error) else " ".join(error.format_message().split())
    what, _, why = message.partition(". ")
    hint = " ".join(["edgellm", *filter(None, [command]), "--help"])
    return UsageError(_lowered(what).rstrip("."), why=_lowered(why), hint=hint)


def _lowered(sentence: str) -> str:
    """A sentence as our errors have it."""
    return sentence[:1].lower() + sentence[1:]


def _leave(error: EdgellmError, command: str | None, *, as_json: bool) -> None:
    if is_true(os.environ.get("EDGELLM_DEBUG")):
        raise error
    from edgellm.ui.render import render_error

    render_error(error, command=command, as_json=as_json)
    raise typer.Exit(error.exit_code) from None
