"""What a model file says about itself, and what it would need on this machine.

described = describe("smollm2", installed_model, settings.usage)
described.architecture, described.needed
"""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from edgellm.errors import EdgellmError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.machine import memory
from edgellm.models.fit.memory import estimate
from edgellm.models.fit.outline import is_encoder
from edgellm.models.fit.verdict import default_plan, largest_context, read_outline
from edgellm.models.local.store import InstalledModel, Store
from edgellm.models.local.usage import read_usage
from edgellm.models.recipe import Recipe

# llama.cpp's llama_pooling_type for rerankers: one number a text, how well it answers a query.
POOLING_RANK = 4
_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """One model; sizes are bytes, `context` and `largest_context` tokens, `decode_rate` tokens per second.

    `context` is what the model was trained with, `default_context` what it gets here without `--ctx-size`. `needed` is
    the memory at the latter, `fits` whether that much is available, `largest_context` what would fit. `kind` is what
    the model is for: "chat", "completion" (it continues text), "embedding" or "rerank". `sha256`, `source` and
    `installed` are null for a file that is not installed, `last_used` and `decode_rate` for a model that was never
    used.
    """

    name: str
    path: Path
    size: int
    title: str
    architecture: str
    quant: str
    parameters: int
    tensor_types: dict[str, int]
    context: int
    default_context: int
    chat_template: bool
    kind: str
    licence: str
    sha256: str | None
    source: str | None
    installed: str | None
    needed: int
    fits: bool
    largest_context: int
    kv_bytes_per_token: int
    last_used: str | None
    decode_rate: float | None


def kind_of(architecture: str, pooling: int, recipe: Recipe | None, *, has_template: bool = True) -> str:
    """What a model is for: "chat", "completion", "embedding" or "rerank".

    Args:
        pooling: llama.cpp's `llama_pooling_type`; 0 for a model that generates.
        has_template: whether its file has a chat template.
    """
    if pooling == POOLING_RANK:
        return "rerank"
    if is_encoder(architecture) or (recipe and recipe.embedding):
        return "embedding"
    return "chat" if (recipe.chat if recipe else has_template) else "completion"


def kind_of_file(path: Path) -> str:
    """What a GGUF file is for, as `kind_of` says it."""
    with GGUFFile.open(path) as gguf:
        return _kind(gguf, None)


def chat_models(store: Store) -> list[str]:
    """The names of the installed models that chat; files that cannot be read are left out."""
    found = []
    for model in store.list():
        with contextlib.suppress(EdgellmError, OSError):
            if kind_of_file(model.path) == "chat":
                found.append(model.name)
    return found


def _kind(gguf: GGUFFile, recipe: Recipe | None) -> str:
    pooling = gguf.get_int(gguf.key("pooling_type"), 0)
    return kind_of(gguf.architecture, pooling, recipe, has_template=_TEMPLATE in gguf.metadata)


def first_use(kind: str, name: str) -> str:
    """The command that uses a model of this kind for the first time."""
    name = shlex.quote(name)
    commands = {"chat": f"edgellm chat {name}", "completion": f"edgellm run --raw {name} 'Once upon a time'"}
    return commands.get(kind, f"edgellm serve {name}")


def describe(name: str, found: InstalledModel | Path, usage: Path, recipe: Recipe | None = None) -> ModelDescription:
    """Read the header of a model.

    Args:
        name: how the user calls it.
        found: an installed model, or the path of a GGUF file.
        usage: the file with the record of use (`Settings.usage`).
        recipe: its recipe, if it has one.

    Raises:
        CorruptFile, UnsupportedModel: the file is no GGUF, damaged, or nothing the engine knows.
    """
    path = found.path if isinstance(found, InstalledModel) else found
    installed = found if isinstance(found, InstalledModel) else None
    outline = read_outline(path, name)
    room = memory.room()
    plan = default_plan(outline, room, n_ctx=None, kv_type=None)
    need = estimate(outline, plan)
    used = read_usage(usage).get(path)
    with GGUFFile.open(path) as gguf:
        types = Counter(info.type.name for info in gguf.tensors.values())
        return ModelDescription(
            name=name,
            path=path,
            size=outline.n_bytes,
            title=gguf.get_str("general.name", ""),
            architecture=gguf.architecture,
            quant=outline.quant,
            parameters=outline.n_params,
            tensor_types=dict(types.most_common()),
            context=gguf.get_int(gguf.key("context_length"), 0),
            default_context=plan.n_ctx,
            chat_template=_TEMPLATE in gguf.metadata,
            kind=_kind(gguf, recipe),
            licence=gguf.get_str("general.license", "unknown"),
            sha256=installed.sha256 if installed else None,
            source=installed.source if installed else None,
            installed=installed.installed if installed else None,
            needed=need.total,
            fits=need.fits(room),
            largest_context=largest_context(outline, plan, room),
            kv_bytes_per_token=outline.cache_row("F16"),
            last_used=used.last_used if used else None,
            decode_rate=used.decode_rate if used else None,
        )
