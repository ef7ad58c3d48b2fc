"""`edgellm engine build|status`: make the engine, and tell what is made."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options

app = typer.Typer(help="Build the engine, or tell what is built.", no_args_is_help=True)


@app.command()
def build(
    tools: Annotated[
        bool,
        typer.Option(
            "--tools",
            help="Also llama-server, llama-bench, llama-quantize, llama-perplexity, llama-imatrix, ggml-rpc-server.",
        ),
    ] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Start over, with nothing from earlier builds.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    offline: options.Offline = False,
) -> None:
    """Fetch the pinned llama.cpp, patch it, compile it for this CPU; returns at once when that is done.

    Example: edgellm engine build --tools
    """
    from edgellm.engine.build import build as build_engine
    from edgellm.engine.installed import find
    from edgellm.ui.console import note, print_fields, print_json
    from edgellm.ui.progress import progress

    here = workspace(offline=offline)
    before = find(here.settings, here.stack)
    with progress(quiet=quiet or as_json) as report:
        engine = build_engine(here.settings, here.stack, tools=tools, clean=clean, report=report)
    if as_json:
        print_json(engine)
    else:
        print_fields([("engine", engine.directory.name), ("tools", ", ".join(engine.tools) or "none yet (--tools)")])
        if not quiet and before is None:
            note("next: edgellm run smollm2 'What is the capital of France?'")


@app.command()
def status(as_json: options.Json = False) -> None:
    """Tell which engine is built, from which source and patches, for which CPU.

    Example: edgellm engine status
    """
    from edgellm.engine.installed import BUILD_COMMAND
    from edgellm.engine.status import status as engine_status
    from edgellm.ui.console import print_fields, print_json
    from edgellm.ui.units import duration

    here = workspace()
    found = engine_status(here.settings, here.stack)
    if as_json:
        print_json(found)
        return
    archive, upstream = found.upstream.archive, found.upstream
    source = f"{archive.package} {archive.version}: {upstream.repository} {upstream.commit}, ggml {upstream.ggml}"
    fields = [("source", source), ("cpu", f"{found.cpu.model}: {' '.join(found.cpu.features)}")]
    if found.engine:
        record = found.engine.record
        fields += [
            ("engine", str(found.engine.directory)),
            ("built", f"{record.built} in {duration(record.build_seconds)} by {record.compiler}"),
            ("tools", ", ".join(found.engine.tools) or "none yet; edgellm engine build --tools"),
        ]
    else:
        fields.append(("engine", f"not built for this CPU and these patches; {BUILD_COMMAND}"))
    fields += [("patch", f"{patch.name}: {patch.subject} ({patch.reason})") for patch in found.patches]
    print_fields(fields)
