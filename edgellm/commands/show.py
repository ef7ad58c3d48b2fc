"""`edgellm show MODEL`: what a model file says of itself."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

from edgellm.adapters import AdapterDescription, find_adapter
from edgellm.errors import ModelNotFound
from edgellm.formats.gguf_file import GGUFFile
from edgellm.machine import memory
from edgellm.models.fit.memory import DEFAULT_CONTEXT, choose_context
from edgellm.models.local.description import ModelDescription, describe, kind_of
from edgellm.models.local.inventory import offered
from edgellm.models.local.store import InstalledModel
from edgellm.models.recipe import Choice, OfferedRecipe
from edgellm.models.resolve import recipe_of, resolve
from edgellm.ui.console import note, print_fields, print_line, print_table
from edgellm.ui.model_names import model_names
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render
from edgellm.units import count, size
from edgellm.weights.tensor_table import Scales, Tensor, TensorTable, tensor_table
from edgellm.workspace import workspace

# What a model is for, by its kind.
PURPOSES = {
    "chat": "chat: it answers",
    "completion": "completion: it continues text, and has no chat template",
    "embedding": "embedding: it turns texts into vectors, for search; edgellm serve and edgellm batch compute them",
    "rerank": "reranking: it says how well a text answers a query; edgellm serve offers it",
}


@dataclass(frozen=True, slots=True)
class ShownModel(ModelDescription):
    """With --tensors, all tensors too, and the bytes of the embeddings and of all others; null without."""

    tensors: tuple[Tensor, ...] | None = None
    embedding_bytes: int | None = None
    other_bytes: int | None = None

    @classmethod
    def of(cls, model: ModelDescription, table: TensorTable | None) -> ShownModel:
        """A description and the table beside it."""
        sums = (table.tensors, table.embedding_bytes, table.other_bytes) if table else (None, None, None)
        return cls(**asdict(model), tensors=sums[0], embedding_bytes=sums[1], other_bytes=sums[2])


def show(
    model: Annotated[
        str,
        typer.Argument(
            help="An installed model, a recipe, an adapter, or the path of a GGUF file.", autocompletion=model_names
        ),
    ],
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Also every tensor: type, shape, size, bits per weight, ternary scales.")
    ] = False,
    *,
    output: JsonOutput,
) -> ShownModel | OfferedRecipe | AdapterDescription:
    """Show a model's architecture, size, tensor types and context; of one that is not here, what its recipe says.

    \b
    Examples: edgellm show smollm2
              edgellm show bitnet-2b:packed
              edgellm show ggml-model-i2_s.gguf --tensors
    """
    here = workspace()
    if here.store.find(model) is None and (adapter := find_adapter(here, model)) is not None:
        return render(output, adapter, _print_adapter)
    found = resolve(model, here.store, here.recipe_directories)
    if isinstance(found, Choice):
        return _show_recipe(model, found, tensors=tensors, output=output)
    recipe = recipe_of(found, here.recipe_directories) if isinstance(found, InstalledModel) else None
    described = describe(model, found, here.settings.usage, recipe)
    table = None
    if tensors:
        with GGUFFile.open(described.path) as gguf:
            table = tensor_table(gguf)
    return render(output, ShownModel.of(described, table), lambda shown: _print(shown, table))


def _show_recipe(name: str, choice: Choice, *, tensors: bool, output: JsonOutput) -> OfferedRecipe:
    """What a recipe knows of a model that is not here, without the network."""
    if choice.recipe is None or tensors:
        why = "its recipe does not list tensors" if choice.recipe else f"it may be {choice.source} on the Hub"
        raise ModelNotFound(f"{name} is not on this machine yet", why=why, hint=f"edgellm pull {shlex.quote(name)}")
    return render(output, offered(choice), lambda recipe: _print_recipe(recipe, choice))


def _print_recipe(recipe: OfferedRecipe, choice: Choice) -> None:
    unknown = "not known before it is here"
    n_ctx = choose_context(recipe.context or DEFAULT_CONTEXT, None)
    needs = (
        f"{size(recipe.needed)} at {n_ctx:,} tokens, {size(memory.room().available)} available"
        if recipe.needed
        else unknown
    )
    print_fields(
        [
            ("model", f"{choice.name}, not on this machine yet"),
            ("what", recipe.summary),
            ("source", f"{choice.source}{', converted here' if choice.convert else ''}"),
            (
                "file",
                f"about {size(recipe.size)}, {choice.quant}" if recipe.size else f"{choice.quant}; size {unknown}",
            ),
            ("types", ", ".join(recipe.choices)),
            (
                "architecture",
                recipe.architecture + (f", {count(recipe.parameters)} parameters" if recipe.parameters else ""),
            ),
            ("context", f"{recipe.context:,} tokens" if recipe.context else unknown),
            ("memory", needs),
            ("for", PURPOSES[kind_of(recipe.architecture, 0, recipe)]),
            ("licence", recipe.licence),
            *([] if recipe.checked else [("checked", "no: from public pages; pull compares it with the Hub")]),
        ]
    )
    note(f"next: edgellm pull {choice.name}")


def _print(model: ShownModel, table: TensorTable | None) -> None:
    if table is not None:
        _print_tensors(table)
    types = ", ".join(f"{number} {name}" for name, number in model.tensor_types.items())
    available = memory.room().available
    print_fields(
        [
            ("model", f"{model.name}  {model.title}"),
            ("file", f"{model.path}  {size(model.size)}"),
            ("source", f"{model.source}, {(model.installed or '')[:10]}" if model.source else "a file"),
            ("architecture", f"{model.architecture}, {count(model.parameters)} parameters, {model.quant}"),
            ("tensors", types),
            ("context", f"{model.default_context:,} tokens here by default; trained with {model.context:,}"),
            ("memory", f"{size(model.needed)} at {model.default_context:,} tokens, {size(available)} available"),
            ("for", PURPOSES[model.kind]),
            ("licence", model.licence),
            ("used", _used_text(model)),
        ]
    )


def _print_adapter(adapter: AdapterDescription) -> None:
    products = f"rank {adapter.rank}, alpha {adapter.alpha:g}, beside {adapter.tensors:,} matrices"
    print_fields(
        [
            ("adapter", adapter.name),
            ("file", f"{adapter.path}  {size(adapter.size)}"),
            ("source", f"{adapter.source}, {(adapter.installed or '')[:10]}" if adapter.source else "a file"),
            ("for", f"{adapter.base or 'a model'}, {adapter.architecture}"),
            ("products", adapter.problem or products),
        ]
    )
    if adapter.base and not adapter.problem:
        note(f"next: edgellm chat {shlex.quote(adapter.base)} --lora {shlex.quote(adapter.name)}")


def _used_text(model: ShownModel) -> str:
    if model.last_used is None:
        return "never"
    return model.last_used[:10] + (f" at {model.decode_rate:.1f} tok/s" if model.decode_rate else "")


def _print_tensors(table: TensorTable) -> None:
    rows = [
        (
            tensor.name,
            tensor.type,
            " x ".join(map(str, tensor.shape)),
            size(tensor.n_bytes),
            f"{tensor.bpw:.2f}",
            {True: "yes", False: "no", None: ""}[tensor.ternary],
            _scales_text(tensor.scales),
            tensor.product or "",
        )
        for tensor in table.tensors
    ]
    headers = ("TENSOR", "TYPE", "SHAPE", "SIZE", "BITS/WEIGHT", "TERNARY", "SCALES", "PRODUCT")
    print_table(headers, rows, right=(3, 4), spare=("PRODUCT", "SCALES", "TERNARY"))
    print_line("")
    print_fields([("embedding", size(table.embedding_bytes)), ("other", size(table.other_bytes))])


def _scales_text(scales: Scales | None) -> str:
    if scales is None:
        return ""
    if scales.count == 1:
        return f"{scales.largest:.6g}"
    return f"{scales.count}, {scales.smallest:.6g} to {scales.largest:.6g}"
