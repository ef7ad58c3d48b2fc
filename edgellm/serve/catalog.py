"""The models that a server offers, by the names that clients use.

catalog = Catalog([served_model("smollm2", path, recipe)])
catalog.get("smollm2:latest").kind  ->  Kind.CHAT
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from edgellm.errors import ModelNotFound
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_split import part_paths
from edgellm.models.fit import read_outline
from edgellm.models.outline import Outline, is_encoder
from edgellm.models.recipe import Recipe
from edgellm.serve.tool_prelude import with_tools
from edgellm.suggest import did_you_mean

# What Ollama's clients append to a name that has no tag.
LATEST = ":latest"
# The engine's enum llama_pooling_type: a text is turned into one number, how well it answers a question.
POOLING_RANK = 4


class Kind(str, Enum):
    """What a model does."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that can be loaded.

    `modified` is when its file was written, in seconds since 1970; `system` and `sampling` are what its recipe says
    for chats that say nothing else, as `run` and `chat` take it. `chat_template` is one that is not the file's own, and
    `has_prelude` says that it knows tools by our prelude.
    """

    name: str
    path: Path
    outline: Outline
    kind: Kind
    n_bytes: int
    modified: float
    chat_template: str | None = None
    system: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    has_prelude: bool = False

    def with_system(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages, with the recipe's system message before them if they have none."""
        if self.system is None or any(message["role"] == "system" for message in messages):
            return messages
        return [{"role": "system", "content": self.system}, *messages]

    @property
    def file_name(self) -> str:
        """The name as that of a file."""
        return re.sub(r"[^\w.-]+", "_", self.name)[:100]

    @property
    def created(self) -> int:
        """Seconds since 1970, as OpenAI's listings have them."""
        return int(self.modified)


def served_model(name: str, path: Path, recipe: Recipe | None) -> ServedModel:
    """Read what there is to know about a model's file.

    Raises:
        CorruptFile, UnsupportedModel: the file is no GGUF, damaged, or nothing the engine knows.
    """
    outline = read_outline(path, name)
    with GGUFFile.open(part_paths(path)[0]) as gguf:
        pooling = gguf.get_int(gguf.key("pooling_type"), 0)
        template = gguf.get_str("tokenizer.chat_template", "")
    kind = _kind(outline, pooling, recipe)
    modified = path.stat().st_mtime
    told = recipe.chat_template if recipe else None
    prelude = with_tools(told or template)
    return ServedModel(
        name, path, outline, kind, outline.n_bytes, modified,
        chat_template=prelude or told,
        system=recipe.system if recipe else None,
        sampling=recipe.sampling.model_dump(exclude_none=True) if recipe else {},
        has_prelude=prelude is not None,
    )  # fmt: skip


def _kind(outline: Outline, pooling: int, recipe: Recipe | None) -> Kind:
    if pooling == POOLING_RANK:
        return Kind.RERANK
    if is_encoder(outline.architecture) or (recipe and recipe.embedding):
        return Kind.EMBEDDING
    return Kind.COMPLETION if recipe and not recipe.chat else Kind.CHAT


class Catalog:
    """Models by name; a name finds its model with `:latest` behind it as well."""

    def __init__(self, models: Iterable[ServedModel]) -> None:
        self._models = {model.name: model for model in models}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get(self, name: str) -> ServedModel:
        """The model of that name; `ModelNotFound` suggests the nearest."""
        model = self._models.get(name) or self._models.get(name.removesuffix(LATEST))
        if model is None:
            guess = did_you_mean(name, list(self._models))
            shown = name if len(name) <= 60 else f"{name[:57]}..."
            why = f"did you mean {guess}?" if guess else f"there are: {', '.join(self._models)}"
            raise ModelNotFound(f"there is no model {shown!r} here", why=why, hint="GET /v1/models", suggestion=guess)
        return model
