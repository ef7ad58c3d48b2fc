"""`edgellm engine build|status`: make the engine, and tell what is made."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options

app = typer.Typer(help="Build the engine, or tell what is built.", no_args_is_help=True)


@app.command()
def build(
    tools: Annotated[bool, typer.Option("--tools", help="Also llama-server, llama-bench, llama-quantize, llama-perplexity, llama-imatrix, rpc-server.")] = False,
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
        print_json({"directory": engine.directory, "tools": engine.tools, **vars_of(engine.record)})
    else:
        print_fields([("engine", engine.directory.name), ("tools", ", ".join(engine.tools) or "none yet (--tools)")])
        if not quiet and before is None:
            note("next: edgellm run smollm2 'What is the capital of France?'")


@app.command()
def status(as_json: options.Json = False) -> None:
    """Tell which engine is built, from which source and patches, for which CPU.

    Example: edgellm engine status
    """
    from edgellm.engine.installed import BUILD_COMMAND, every, find
    from edgellm.machine.cpu import detect
    from edgellm.ui.console import print_fields, print_json
    from edgellm.ui.units import duration

    here = workspace()
    stack, cpu = here.stack, detect()
    engine = find(here.settings, stack, cpu)
    patches = [
        {"name": p.name, "subject": p.subject, "reason": p.reason, "forwarded": p.forwarded, "drop_when": p.drop_when} for p in stack.patches
    ]
    if as_json:
        others = [other.directory.name for other in every(here.settings) if engine is None or other.directory != engine.directory]
        print_json(
            {
                "built": engine is not None,
                "directory": engine.directory if engine else None,
                "tools": engine.tools if engine else [],
                "record": engine.record if engine else None,
                "stamp": stack.stamp,
                "upstream": stack.upstream,
                "cpu": cpu,
                "patches": patches,
                "others": others,
            }
        )
        return
    upstream = stack.upstream
    fields = [("source", f"{upstream.archive.package} {upstream.archive.version}: {upstream.repository} {upstream.commit}, ggml {upstream.ggml}")]
    if engine:
        record = engine.record
        fields += [
            ("engine", str(engine.directory)),
            ("built", f"{record.built} in {duration(record.build_seconds)} by {record.compiler}"),
            ("cpu", f"{record.cpu_model}: {' '.join(record.cpu_features)}"),
            ("tools", ", ".join(engine.tools) or "none yet; edgellm engine build --tools"),
        ]
    else:
        fields += [("engine", f"not built for this CPU and these patches; {BUILD_COMMAND}"), ("cpu", f"{cpu.model}: {' '.join(cpu.features)}")]
    fields += [("patch" if index == 0 else "", f"{p['name']}: {p['subject']} ({p['reason']})") for index, p in enumerate(patches)]
    print_fields(fields)


def vars_of(record: object) -> dict[str, object]:
    """The fields of a dataclass with slots."""
    import dataclasses

    return dataclasses.asdict(record)  # type: ignore[call-overload,no-any-return]
