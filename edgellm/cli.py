"""The command line: every verb by name, and how errors leave the program.

    edgellm --help

A verb lives in `edgellm/commands/NAME.py`; what it needs is imported inside it, so that help stays fast.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from edgellm.commands import (
    batch,
    bench,
    chat,
    chats,
    completion,
    connect,
    convert,
    doctor,
    engine,
    env,
    fit,
    import_model,
    overview,
    prune,
    ps,
    pull,
    quality,
    quantize,
    rm,
    run,
    search,
    serve,
    show,
    stop,
    verify,
)
from edgellm.commands import list as list_command
from edgellm.errors import DiskFull, DoesNotFit, EdgellmError, FileAccessError
from edgellm.settings import is_true
from edgellm.ui import options

EXIT_CODES = (
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 no such model, 4 network, 5 does not fit, 6 corrupt file, 7 engine, "
    "8 rows of a batch failed, 129 hangup, 130 Ctrl-C, 141 closed pipe."
)
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143
EXIT_CLOSED_PIPE = 141
# What a file system may answer to a path that a person chose.
REFUSALS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
)
# Python with numpy, the largest library that most verbs need, and room to work.
LEAST_ADDRESS_SPACE = 180_000_000
# What the loader says of a library for which there is no address space left.
NO_MEMORY_FOR_LIBRARY = re.compile(r"failed to map segment|cannot allocate memory", re.IGNORECASE)


class Root(TyperGroup):
    """Turns every expected failure into one message and its exit code; a bug keeps its traceback."""

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        """Parse the command line; help and version print here."""
        with failures():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        with failures():
            try:
                return super().invoke(ctx)
            finally:  # also before an exit code of the verb's own: a closed pipe must be noticed here, not at exit
                sys.stdout.flush()


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Whatever may go wrong outside of edgellm, as a message and an exit code."""
    try:
        yield
    except EdgellmError as error:
        _leave(error)
    except BrokenPipeError:
        _flush_or_discard()
        raise typer.Exit(EXIT_CLOSED_PIPE) from None
    except OSError as error:
        known = _explain(error)
        if known is None:
            raise
        _flush_or_discard()
        _leave(known)
    except (MemoryError, ImportError) as error:
        if isinstance(error, ImportError) and not NO_MEMORY_FOR_LIBRARY.search(str(error)):
            raise
        _leave(_too_little())
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise typer.Exit(EXIT_INTERRUPTED) from None


def _flush_or_discard() -> None:
    """What is buffered for a stdout that takes no more must not fail once again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _explain(error: OSError) -> EdgellmError | None:
    """The file system's refusals as errors of ours; anything else is a bug."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" while writing {error.filename}" if error.filename else ""
        return DiskFull(f"the disk is full{place}", hint="free some space and try again; nothing is half-written")
    if error.errno in REFUSALS and error.filename:
        hint = "set EDGELLM_HOME to a directory that you can write to"
        return FileAccessError(
            f"cannot use {error.filename}", why=str(error.strerror), hint=hint, path=str(error.filename)
        )
    return None


def _too_little() -> DoesNotFit:
    why = "a limit is set (ulimit -v, a container), or other programs hold the memory"
    return DoesNotFit("there is too little memory for edgellm itself", why=why, hint="raise the limit")


def _leave(error: EdgellmError) -> None:
    if is_true(os.environ.get("EDGELLM_DEBUG")):
        raise error
    from edgellm.ui.console import print_error

    print_error(error, as_json=options.json_was_asked())
    raise typer.Exit(error.exit_code) from None


app = typer.Typer(
    cls=Root,
    name="edgellm",
    help="Small, ternary and 4-bit language models on ordinary CPUs.",
    epilog=EXIT_CODES,
    pretty_exceptions_enable=False,
    # Plain help: rendering it with rich would take longer than all the rest of the start.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from edgellm import __version__

        typer.echo(f"edgellm {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Small, ternary and 4-bit language models on ordinary CPUs."""
    if ctx.invoked_subcommand is None:
        overview.overview()


app.command()(run.run)
app.command()(chat.chat)
app.add_typer(chats.app, name="chats")
app.command()(batch.batch)
app.command()(serve.serve)
app.command()(ps.ps)
app.command()(stop.stop)
app.command()(env.env)
app.command()(connect.connect)
app.command()(pull.pull)
app.command("list")(list_command.list_models)
app.command("ls", hidden=True)(list_command.list_models)
app.command()(search.search)
app.command()(show.show)
app.command()(fit.fit)
app.command("import")(import_model.import_model)
app.command()(verify.verify)
app.command()(quality.quality)
app.command()(bench.bench)
app.command()(rm.rm)
app.command()(prune.prune)
app.command()(convert.convert)
app.command()(quantize.quantize)
app.add_typer(engine.app, name="engine")
app.command()(doctor.doctor)
app.command()(completion.completion)


def main() -> None:
    """Entry point."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        # Without the console, whose libraries would be the next not to find any memory.
        error = _too_little()
        sys.stderr.write(
            f"error: {error.what}\n  {limit / 1e6:.0f} MB of address space (ulimit -v), "
            f"{LEAST_ADDRESS_SPACE / 1e6:.0f} MB are needed\n  try: {error.hint}\n"
        )
        sys.exit(error.exit_code)
    if sys.stdout is None:  # closed by the caller
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123, it stays open until the end
    # numpy's BLAS would take memory and a thread for every core, for products that are never computed here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # As an exception, so that what is half-done is put away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    app()
