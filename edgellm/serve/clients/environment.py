"""A server as clients see it, and the environment variables that they read.

environment(target)["OPENAI_BASE_URL"]
assignments({"OPENAI_MODEL": "smollm2"}, Shell.FISH)  ->  ["set -gx OPENAI_MODEL 'smollm2'"]
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit, urlunsplit

# Clients insist on a key even where the server has none.
ANY_KEY = "edgellm"
# The embedding model to serve where there is none.
EMBEDDER = "minilm"


@dataclass(frozen=True, slots=True)
class Target:
    """A server as clients use it: its address, a model with its context in tokens, and a key if it has one.

    `documents` are the collections that its models answer from, as MODEL@NAME. `embedder` is an embedding model of the
    same server, if there is one. `is_local` means that only programs on this machine, outside containers, can reach it.
    """

    url: str
    model: str
    n_ctx: int
    key: str | None = None
    embedder: str | None = None
    is_local: bool = True
    documents: tuple[str, ...] = ()

    @property
    def openai(self) -> str:
        """Where the OpenAI API is."""
        return f"{self.url}/v1"

    @property
    def from_docker(self) -> str:
        """Its address, seen from a container on this machine."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=f"host.docker.internal:{parts.port}"))

    @property
    def docker_key(self) -> str:
        """The key for a container: a server that one can reach has a key."""
        return self.key or ("KEY" if self.is_local else ANY_KEY)

    @property
    def some_embedder(self) -> str:
        """The embedding model, or the one that `without_embedder` asks for."""
        return self.embedder or EMBEDDER

    @property
    def without_embedder(self) -> str:
        """How to get an embedding model; empty where there is one."""
        command = f"edgellm serve {self.served} {EMBEDDER}"
        return "" if self.embedder else f"The server needs a model for it: {command}"

    @property
    def served(self) -> str:
        """What `edgellm serve` must be given for the model."""
        if not self._collection:
            return shlex.quote(self.model)
        return f"{shlex.quote(self.model.removesuffix(f'@{self._collection}'))} --docs {self._collection}"

    @property
    def _collection(self) -> str:
        """The collection that the model answers from; empty for a model alone."""
        name = self.model.rpartition("@")[2]
        return name if name in self.documents else ""

    @property
    def with_documents(self) -> str:
        """The models that answer from documents, as a paragraph; empty where there are none."""
        if not self.documents or self._collection:
            return ""
        names = " or ".join(f"{self.model}@{name}" for name in self.documents)
        return f"\nTo ask the documents of the server, choose the model {names}\n"

    @property
    def n_answer(self) -> int:
        """A limit for answers, in tokens, that leaves most of the context to the prompt."""
        return self.n_ctx // 4

    @property
    def some_key(self) -> str:
        """What to enter where a program insists on a key."""
        return self.key or ANY_KEY


class Shell(str, Enum):
    """A shell, for the syntax of variables."""

    SH = "sh"
    FISH = "fish"
    POWERSHELL = "powershell"


def environment(target: Target) -> dict[str, str]:
    """The variables that clients of OpenAI, Ollama and Anthropic read."""
    return {
        "OPENAI_BASE_URL": target.openai,
        "OPENAI_API_BASE": target.openai,
        "OPENAI_API_KEY": target.some_key,
        "OPENAI_MODEL": target.model,
        "OLLAMA_HOST": target.url,
        "OLLAMA_API_BASE": target.url,
        **({"OLLAMA_API_KEY": target.key} if target.key else {}),  # read by its SDK for Python
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_API_KEY": target.some_key,
        "ANTHROPIC_MODEL": target.model,
    }


def assignments(values: dict[str, str], shell: Shell) -> list[str]:
    """The lines that set them."""
    if shell is Shell.FISH:
        # fish has two escapes inside single quotes.
        quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in values.items()}
        return [f"set -gx {name} '{value}'" for name, value in quoted.items()]
    if shell is Shell.POWERSHELL:
        return [f"$env:{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in values.items()]
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
