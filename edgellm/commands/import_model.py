"""`edgellm import PATH`: give a model file on this machine a name, where it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options


def import_model(
    path: Annotated[Path, typer.Argument(help="A GGUF file, or the first part of one.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it. [default: the file's name]")] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a GGUF file known by a name. It stays where it is; nothing is copied.

    Example: edgellm import /data/qwen2.5-3b-q4_k_m.gguf --name qwen
    """
    from edgellm.models.registering import register
    from edgellm.ui.console import note, print_fields, print_json
    from edgellm.ui.progress import progress

    here = workspace()
    with progress(quiet=quiet or as_json) as report:
        model = register(path, here.store, name=name, report=report)
    if as_json:
        print_json(model)
        return
    print_fields([("model", model.name), ("file", str(model.path)), ("sha256", model.sha256)])
    if not quiet:
        note(f"next: edgellm chat {model.name}")
