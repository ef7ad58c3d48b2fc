"""The models that a server offers, by the names that clients use.

catalog = Catalog([served_model("smollm2", path, recipe)])
catalog.get("smollm2:latest").kind  ->  ModelKind.CHAT
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from edgellm.engine.adapters import Adapter
from edgellm.errors import ModelNotFound
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_split import part_paths
from edgellm.models.fit.outline import Outline
from edgellm.models.fit.verdict import read_outline
from edgellm.models.local.description import kind_of
from edgellm.models.local.store import LATEST
from edgellm.models.recipe import Recipe
from edgellm.serve.workers.tool_prelude import with_tools
from edgellm.suggest import did_you_mean

# A model's own template, and the one that llama-server prefers where a request has tools.
TEMPLATE = "tokenizer.chat_template"
TOOL_TEMPLATE = f"{TEMPLATE}.tool_use"
# How a reranker's question and text are put together.
RERANK_TEMPLATE = f"{TEMPLATE}.rerank"


class ModelKind(str, Enum):
    """What a model can do."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RERANK = "rerank"


# Signs in a template that something comes before the answer, or around it.
MARKS = ("think", "reason", "channel|>", "start_response")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that can be loaded.

    `modified` is when its file was written, in seconds since 1970; `system` and `sampling` are what its recipe says
    for chats that say nothing else, as `run` and `chat` take it. `chat_template` replaces the file's own,
    and `has_prelude` says that our prelude gives it tools. `template` is the one without our prelude; `tool_template`
    is another one of the file, for requests with tools. It `answers_plainly` if nothing but the answer comes: no
    thoughts before it, and no marks around it. `recipe` is what it was pulled by, if it was. `rerank_template` is how
    a reranker wants "{query}" and "{document}". `adapters` change its answers, so nothing is kept of it for others.
    """

    name: str
    path: Path
    outline: Outline
    kind: ModelKind
    n_bytes: int
    modified: float
    chat_template: str | None = None
    system: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    has_prelude: bool = False
    template: str = ""
    tool_template: str = ""
    answers_plainly: bool = False
    recipe: Recipe | None = None
    rerank_template: str = ""
    adapters: tuple[Adapter, ...] = ()

    def with_system(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages, with the recipe's system message before them if they have none."""
        if self.system is None or any(message["role"] == "system" for message in messages):
            return messages
        return [{"role": "system", "content": self.system}, *messages]

    @property
    def writes(self) -> bool:
        """Whether it writes text."""
        return self.kind in (ModelKind.CHAT, ModelKind.COMPLETION)

    def serves(self, name: str) -> bool:
        """Whether this is the model of that name, or of that path."""
        return self.name in (name, name.removesuffix(LATEST), Path(name).stem if name.endswith(".gguf") else name)

    @property
    def file_name(self) -> str:
        """The name, made safe for a file name."""
        return re.sub(r"[^\w.-]+", "_", self.name)[:100]

    @property
    def created(self) -> int:
        """Seconds since 1970, as OpenAI's listings have them."""
        return int(self.modified)


def served_model(name: str, path: Path, recipe: Recipe | None) -> ServedModel:
    """Read a model's file and recipe.

    Raises:
        CorruptFile, UnsupportedModel: the file is no GGUF, damaged, or nothing the engine knows.
    """
    outline = read_outline(path, name)
    with GGUFFile.open(part_paths(path)[0]) as gguf:
        pooling = gguf.get_int(gguf.key("pooling_type"), 0)
        template, tool_template, rerank_template = (
            gguf.get_str(key, "") for key in (TEMPLATE, TOOL_TEMPLATE, RERANK_TEMPLATE)
        )
    kind = ModelKind(kind_of(outline.architecture, pooling, recipe))
    modified = path.stat().st_mtime
    replacement = recipe.chat_template if recipe else None
    prelude = None if tool_template and not replacement else with_tools(replacement or template)
    return ServedModel(
        name, path, outline, kind, outline.n_bytes, modified,
        chat_template=prelude or replacement,
        system=recipe.system if recipe else None,
        sampling=recipe.sampling.model_dump(exclude_none=True) if recipe else {},
        has_prelude=prelude is not None,
        template=replacement or template,
        tool_template="" if replacement else tool_template,
        answers_plainly=not any(mark in (replacement or template).lower() for mark in MARKS),
        recipe=recipe,
        rerank_template=rerank_template,
    )  # fmt: skip


class Catalog:
    """Models by name, with or without `:latest`. `helpers` are there for the server itself, and no list names them."""

    def __init__(self, models: Iterable[ServedModel], helpers: Iterable[ServedModel] = ()) -> None:
        self._models = {model.name: model for model in models}
        self._helpers = {model.name: model for model in helpers}

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    def get(self, name: str) -> ServedModel:
        """The model of that name; `ModelNotFound` suggests the nearest."""
        short = name.removesuffix(LATEST)
        model = self._models.get(name) or self._models.get(short) or self._helpers.get(short)
        if model is None:
            guess = did_you_mean(name, list(self._models))
            base, at, _ = short.rpartition("@")
            shown = name if len(name) <= 60 else f"{name[:57]}..."
            why = f"did you mean {guess}?" if guess else f"there are: {', '.join(self._models)}"
            if at and base in self._models:
                why = f"{base} answers from documents in chats alone, such as /v1/chat/completions and /api/chat"
            raise ModelNotFound(f"there is no model {shown!r} here", why=why, hint="GET /v1/models", suggestion=guess)
        return model

    def embedder(self, name: str) -> ServedModel | None:
        """The embedding model of that name or path, None if it is not here."""
        return self._find(name, ModelKind.EMBEDDING)

    def reranker(self, name: str) -> ServedModel | None:
        """The reranker of that name or path, None if it is not here."""
        return self._find(name, ModelKind.RERANK)

    def _find(self, name: str, kind: ModelKind) -> ServedModel | None:
        all_models = (*self._models.values(), *self._helpers.values())
        return next((each for each in all_models if each.kind is kind and each.serves(name)), None)
