"""`edgellm show MODEL`: what a model file says of itself."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from edgellm.commands.workspace import workspace
from edgellm.ui import options


def show(
    model: Annotated[str, typer.Argument(help="An installed model, or the path of a GGUF file.")],
    as_json: options.Json = False,
) -> None:
    """Show a model's architecture, size, tensor types and context.

    Example: edgellm show smollm2
    """
    from edgellm.errors import ModelNotFound
    from edgellm.formats.gguf_file import GGUFFile
    from edgellm.models.recipe import Recipe
    from edgellm.models.resolve import resolve
    from edgellm.models.store import InstalledModel
    from edgellm.ui.console import print_fields, print_json
    from edgellm.ui.units import count, size

    here = workspace()
    found = resolve(model, here.store, here.recipe_directories)
    if isinstance(found, Recipe):
        raise ModelNotFound(f"{model} is not on this machine yet", why=found.summary, hint=f"edgellm pull {model}")
    path = found.path if isinstance(found, InstalledModel) else found
    with GGUFFile.open(path) as gguf:
        types = Counter(info.type.name for info in gguf.tensors.values())
        described = {
            "name": model,
            "path": path,
            "size": gguf.size,
            "title": gguf.get_str("general.name", ""),
            "architecture": gguf.architecture,
            "parameters": gguf.n_params,
            "tensor_types": dict(types.most_common()),
            "context": gguf.get_int(gguf.key("context_length"), 0),
            "chat_template": "tokenizer.chat_template" in gguf.metadata,
            "licence": gguf.get_str("general.license", "unknown"),
            "sha256": found.sha256 if isinstance(found, InstalledModel) else None,
        }
    if as_json:
        print_json(described)
        return
    print_fields(
        [
            ("model", f"{model}  {described['title']}"),
            ("file", f"{path}  {size(gguf.size)}"),
            ("architecture", f"{described['architecture']}, {count(gguf.n_params)} parameters"),
            ("tensors", ", ".join(f"{number} {name}" for name, number in types.most_common())),
            ("context", f"{described['context']:,} tokens"),
            ("chat", "yes" if described["chat_template"] else "no chat template: it continues text"),
            ("licence", str(described["licence"])),
        ]
    )
