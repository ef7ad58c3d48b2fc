"""`edgellm show MODEL`: what a model file says of itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from edgellm.commands.completion import installed_names
from edgellm.commands.workspace import workspace
from edgellm.ui import options

if TYPE_CHECKING:
    from edgellm.models.usage import Usage
    from edgellm.weights.tensor_table import Scales, TensorTable


def show(
    model: Annotated[
        str, typer.Argument(help="An installed model, or the path of a GGUF file.", autocompletion=installed_names)
    ],
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Also every tensor: type, shape, size, bits a weight, ternary scales.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show a model's architecture, size, tensor types and context.

    \b
    Examples: edgellm show smollm2
              edgellm show ggml-model-i2_s.gguf --tensors
    """
    from edgellm.errors import ModelNotFound
    from edgellm.formats.gguf_file import GGUFFile
    from edgellm.machine import memory
    from edgellm.models.fit import largest_context, read_outline
    from edgellm.models.memory import RunPlan, choose_context, estimate
    from edgellm.models.recipe import Choice
    from edgellm.models.resolve import resolve
    from edgellm.models.store import InstalledModel
    from edgellm.models.usage import read_usage
    from edgellm.ui.console import print_fields, print_json
    from edgellm.ui.units import count, size
    from edgellm.weights.tensor_table import tensor_table

    here = workspace()
    found = resolve(model, here.store, here.recipe_directories)
    if isinstance(found, Choice):
        why = found.recipe.summary if found.recipe else f"it may be {found.source} on the Hub"
        raise ModelNotFound(f"{model} is not on this machine yet", why=why, hint=f"edgellm pull {model}")
    path = found.path if isinstance(found, InstalledModel) else found
    outline = read_outline(path, model)
    plan = RunPlan(choose_context(outline.n_ctx_train, None))
    need, room = estimate(outline, plan), memory.room()
    used = read_usage(here.settings.usage).get(path)
    with GGUFFile.open(path) as gguf:
        types = Counter(info.type.name for info in gguf.tensors.values())
        described = {
            "name": model,
            "path": path,
            "size": outline.n_bytes,
            "title": gguf.get_str("general.name", ""),
            "architecture": gguf.architecture,
            "quant": outline.quant,
            "parameters": outline.n_params,
            "tensor_types": dict(types.most_common()),
            "context": gguf.get_int(gguf.key("context_length"), 0),
            "chat_template": "tokenizer.chat_template" in gguf.metadata,
            "licence": gguf.get_str("general.license", "unknown"),
            "sha256": found.sha256 if isinstance(found, InstalledModel) else None,
            "source": found.source if isinstance(found, InstalledModel) else None,
            "installed": found.installed if isinstance(found, InstalledModel) else None,
            "needed": need.total,
            "fits": need.fits(room),
            "largest_context": largest_context(outline, plan, room),
            "kv_bytes_per_token": outline.cache_row("F16"),
            "last_used": used.last_used if used else None,
            "decode_rate": used.decode_rate if used else None,
        }
        table = tensor_table(gguf) if tensors else None
    if as_json:
        print_json(described if table is None else {**described, **asdict(table)})
        return
    if table is not None:
        _print_tensors(table)
    print_fields(
        [
            ("model", f"{model}  {described['title']}"),
            ("file", f"{path}  {size(outline.n_bytes)}"),
            ("source", f"{found.source}, {found.installed[:10]}" if isinstance(found, InstalledModel) else "a file"),
            ("architecture", f"{described['architecture']}, {count(outline.n_params)} parameters, {outline.quant}"),
            ("tensors", ", ".join(f"{number} {name}" for name, number in types.most_common())),
            ("context", f"{described['context']:,} tokens"),
            (
                "memory",
                f"{size(need.total)} at {plan.n_ctx:,} tokens, {size(room.available)} available",
            ),
            ("chat", "yes" if described["chat_template"] else "no chat template: it continues text"),
            ("licence", str(described["licence"])),
            ("used", _used_text(used)),
        ]
    )


def _used_text(used: Usage | None) -> str:
    if used is None:
        return "never"
    return used.last_used[:10] + (f" at {used.decode_rate:.1f} tok/s" if used.decode_rate else "")


def _print_tensors(table: TensorTable) -> None:
    from edgellm.ui.console import print_fields, print_table
    from edgellm.ui.units import size

    rows = [
        (
            tensor.name,
            tensor.type,
            " x ".join(map(str, tensor.shape)),
            size(tensor.n_bytes),
            f"{tensor.bpw:.2f}",
            {True: "yes", False: "no", None: ""}[tensor.ternary],
            _scales_text(tensor.scales),
        )
        for tensor in table.tensors
    ]
    print_table(("TENSOR", "TYPE", "SHAPE", "SIZE", "BITS/WEIGHT", "TERNARY", "SCALES"), rows, right=(3, 4))
    typer.echo()
    print_fields([("embedding", size(table.embedding_bytes)), ("other", size(table.other_bytes))])


def _scales_text(scales: Scales | None) -> str:
    if scales is None:
        return ""
    if scales.count == 1:
        return f"{scales.largest:.6g}"
    return f"{scales.count}, {scales.smallest:.6g} to {scales.largest:.6g}"
