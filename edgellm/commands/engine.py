"""`edgellm engine build|status`: build the engine, and show what is built."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgellm.engine.builds.builder import build as build_engine
from edgellm.engine.builds.builder import find_finished
from edgellm.engine.builds.fetched_compiler import SPACE, download_size, is_missing
from edgellm.engine.builds.installed import BUILD_COMMAND, InstalledEngine, find
from edgellm.engine.builds.status import EngineStatus
from edgellm.engine.builds.status import status as engine_status
from edgellm.settings import Settings
from edgellm.ui import options
from edgellm.ui.console import note, print_fields
from edgellm.ui.options import JsonOutput, QuietOutput
from edgellm.ui.progress import progress
from edgellm.ui.render import render
from edgellm.units import duration, size
from edgellm.workspace import workspace


def build(
    tools: Annotated[
        bool,
        typer.Option(
            "--tools",
            envvar="EDGELLM_ENGINE_BUILD_TOOLS",
            help="Also llama-server, llama-bench, llama-quantize, llama-perplexity, llama-imatrix, ggml-rpc-server.",
        ),
    ] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Start over, with nothing from earlier builds.")] = False,
    fetch_compiler: Annotated[
        bool,
        typer.Option(
            "--fetch-compiler",
            help="Where there is no compiler, fetch Zig's, pinned, into edgellm's cache. [default: ask on a terminal]",
            show_default=False,
        ),
    ] = False,
    offline: options.Offline = False,
    *,
    output: QuietOutput,
) -> InstalledEngine:
    """Fetch the pinned llama.cpp, patch it, and compile it for this CPU; returns at once when that is done.

    \b
    Examples: edgellm engine build --tools
              edgellm engine build --fetch-compiler
    """
    here = workspace(offline=offline)
    before = find(here.settings, here.stack)
    is_finished = not clean and find_finished(here.settings, here.stack, tools=tools) is not None
    may_ask = not (is_finished or offline or output.silent)
    fetch = fetch_compiler or (may_ask and _may_fetch_compiler(here.settings))
    with progress(quiet=output.silent) as report:
        engine = build_engine(here.settings, here.stack, tools=tools, clean=clean, fetch_compiler=fetch, report=report)
    render(output, engine, _print_engine)
    if not output.silent and before is None:
        note("next: edgellm run smollm2 'What is the capital of France?'")
    return engine


def _may_fetch_compiler(settings: Settings) -> bool:
    """Ask whoever sits at the terminal, if a compiler is missing; nobody else can be asked."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or not is_missing(settings):
        return False
    megabytes = f"{size(download_size())} to download, {size(SPACE)} on the disk"
    return typer.confirm(f"There is no C++ compiler. Fetch Zig's, as a Python package ({megabytes})?", err=True)


def _print_engine(engine: InstalledEngine) -> None:
    print_fields([("engine", engine.directory.name), ("tools", ", ".join(engine.tools) or "none yet (--tools)")])


def status(*, output: JsonOutput) -> EngineStatus:
    """Show which engine is built, from which source and patches, for which CPU.

    Example: edgellm engine status
    """
    here = workspace()
    return render(output, engine_status(here.settings, here.stack), _print_status)


def _print_status(found: EngineStatus) -> None:
    archive, upstream = found.upstream.archive, found.upstream
    source = f"{archive.package} {archive.version}: {upstream.repository} {upstream.commit}, ggml {upstream.ggml}"
    fields = [("source", source), ("cpu", f"{found.cpu.model}: {' '.join(found.cpu.features)}")]
    if found.engine:
        record = found.engine.record
        how = f"out of the wheel: {record.variant}, {record.choice}" if record.variant else "compiled for this CPU"
        took = "" if record.variant else f" in {duration(record.build_seconds)}"
        fields += [
            ("engine", str(found.engine.directory)),
            ("variant", how),
            ("built", f"{record.built}{took} by {record.compiler}"),
            ("tools", ", ".join(found.engine.tools) or "none yet; edgellm engine build --tools"),
        ]
    elif found.packaged:
        fields.append(("engine", "in the wheel; it is unpacked when it is first needed"))
    else:
        fields.append(("engine", f"not built for this CPU and these patches; {BUILD_COMMAND}"))
    fields += [("patch", f"{patch.name}: {patch.subject} ({patch.reason})") for patch in found.patches]
    print_fields(fields)
