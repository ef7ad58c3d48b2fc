"""What a model's file says of itself: its metadata and its chat template, and what they let it do.

card = await card_of(model)
card.facts["general.license"], card.capabilities  ->  "apache-2.0", ("completion", "tools")
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_metadata import GGUFArray
from edgellm.serve.catalog import Kind, ServedModel

TEMPLATE = "tokenizer.chat_template"
MOST_CARDS = 64


@dataclass(frozen=True, slots=True)
class ModelCard:
    """`facts` are the metadata of the file by their keys, arrays as None unless they were asked for."""

    kind: Kind
    facts: Mapping[str, Any]
    template: str

    @property
    def takes_tools(self) -> bool:
        """Whether the template shows tools to the model."""
        return self.kind is Kind.CHAT and re.search(r"\btools\b", self.template) is not None

    @property
    def thinks(self) -> bool:
        """Whether the model reasons before it answers."""
        signs = ("enable_thinking", "<think>", "reasoning_content", "reasoning_effort")
        return self.kind is Kind.CHAT and any(sign in self.template for sign in signs)

    @property
    def knows_effort(self) -> bool:
        """Whether it can be told how much to reason."""
        return self.kind is Kind.CHAT and "reasoning_effort" in self.template

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do, in Ollama's words."""
        if self.kind is Kind.EMBEDDING:
            return ("embedding",)
        return ("completion", *["tools"] * self.takes_tools, *["thinking"] * self.thinks)


async def card_of(model: ServedModel, *, arrays: bool = False) -> ModelCard:
    """Read a model's card; with `arrays` the vocabulary is in it.

    Raises:
        ModelNotFound, CorruptFile: the file has gone, or has been overwritten.
    """
    read = _read if arrays else _read_once
    facts = await asyncio.to_thread(read, model.path, model.modified)
    template = "" if model.kind is Kind.EMBEDDING else model.chat_template or str(facts.get(TEMPLATE) or "")
    return ModelCard(model.kind, {name: value for name, value in facts.items() if name != TEMPLATE}, template)


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
