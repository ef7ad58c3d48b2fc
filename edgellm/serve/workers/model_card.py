"""What a model's file says about the model: metadata, chat template, and the abilities that follow from them.

card = await card_of(model)
card.facts["general.license"], card.capabilities  ->  "apache-2.0", ("completion", "tools")
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_metadata import GGUFArray
from edgellm.serve.workers.catalog import TEMPLATE, TOOL_TEMPLATE, ModelKind, ServedModel
from edgellm.serve.workers.tool_prelude import has_tools, without_prelude

MOST_CARDS = 64


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`facts` is the file's metadata by key; arrays are None unless they were requested.

    `template` is the model's own, and `has_tools` whether it shows tools to the model. Lists claim tools only then:
    a client that reads "tools" makes an agent of the model. With `takes_tools` our prelude may show them instead.
    """

    kind: ModelKind
    facts: Mapping[str, Any]
    template: str
    has_tools: bool = False
    takes_tools: bool = False

    @property
    def thinks(self) -> bool:
        """Whether the model reasons before it answers."""
        signs = ("enable_thinking", "<think>", "reasoning_content", "reasoning_effort")
        return self.kind is ModelKind.CHAT and any(sign in self.template for sign in signs)

    @property
    def knows_effort(self) -> bool:
        """Whether the template takes a reasoning effort."""
        return self.kind is ModelKind.CHAT and "reasoning_effort" in self.template

    @property
    def capabilities(self) -> tuple[str, ...]:
        """Its abilities in Ollama's terms."""
        if self.kind in (ModelKind.EMBEDDING, ModelKind.RERANK):
            return (self.kind.value,)
        return ("completion", *["tools"] * self.has_tools, *["thinking"] * self.thinks)


async def card_of(model: ServedModel, *, arrays: bool = False) -> ModelCard:
    """Read a model's card; `arrays` includes the vocabulary.

    Raises:
        ModelNotFound, CorruptFile: the file was removed or overwritten.
    """
    read = _read if arrays else _read_once
    facts = await asyncio.to_thread(read, model.path, model.modified)
    template = without_prelude(model.chat_template or str(facts.get(TEMPLATE) or ""))
    chats = model.kind is ModelKind.CHAT
    shows_tools = chats and (has_tools(template) or (model.chat_template is None and bool(facts.get(TOOL_TEMPLATE))))
    return ModelCard(
        model.kind,
        {name: value for name, value in facts.items() if name != TEMPLATE},
        "" if model.kind is ModelKind.EMBEDDING else template,
        has_tools=shows_tools,
        takes_tools=shows_tools or (chats and model.has_prelude),
    )


@lru_cache(maxsize=MOST_CARDS)
def _read_once(path: Path, modified: float) -> dict[str, Any]:
    with GGUFFile.open(path) as file:
        return {name: None if isinstance(value, GGUFArray) else _plain(value) for name, value in file.metadata.items()}


def _read(path: Path, modified: float) -> dict[str, Any]:
    with GGUFFile.open(path) as file:
        return {
            name: [_plain(each) for each in value] if isinstance(value, GGUFArray) else _plain(value)
            for name, value in file.metadata.items()
        }


def _plain(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
