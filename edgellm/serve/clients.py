"""What to enter in programs that use a server: environment variables, and settings, client by client.

environment(target)["OPENAI_BASE_URL"]
told("anythingllm", target)
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from edgellm.errors import UsageError
from edgellm.suggest import did_you_mean

EXAMPLES = Path(__file__).with_name("examples")
# Clients insist on a key even where the server has none.
ANY_KEY = "edgellm"


@dataclass(frozen=True, slots=True)
class Target:
    """A server as clients are to use it: its address, a model with its context in tokens, and a key if it has one.

    `embedder` is a model of the same server that gives vectors, if there is one; `is_local` whether only programs on
    this machine, outside of containers, can reach it.
    """

    url: str
    model: str
    n_ctx: int
    key: str | None = None
    embedder: str | None = None
    is_local: bool = True

    @property
    def openai(self) -> str:
        """Where the OpenAI API is."""
        return f"{self.url}/v1"

    @property
    def from_docker(self) -> str:
        """The same, seen from a container on this machine."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=f"host.docker.internal:{parts.port}", path="/v1"))

    @property
    def docker_key(self) -> str:
        """The key there: a server that a container can reach has one."""
        return self.key or ("KEY" if self.is_local else ANY_KEY)

    @property
    def some_key(self) -> str:
        """What to enter where a key is asked for."""
        return self.key or ANY_KEY


class Shell(str, Enum):
    """How variables are set."""

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
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_API_KEY": target.some_key,
        "ANTHROPIC_MODEL": target.model,
    }


def assignments(values: dict[str, str], shell: Shell) -> list[str]:
    """The lines that set them."""
    if shell is Shell.FISH:
        # In single quotes fish knows two escapes.
        quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in values.items()}
        return [f"set -gx {name} '{value}'" for name, value in quoted.items()]
    if shell is Shell.POWERSHELL:
        return [f"$env:{name} = '{value.replace(chr(39), chr(39) * 2)}'" for name, value in values.items()]
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


def check(client: str) -> None:
    """Raise `UsageError` unless `client` is one that is known here, or one of the files."""
    known = [*CLIENTS, *FILES]
    if client not in known:
        guess = did_you_mean(client.lower(), known)
        why = f"did you mean {guess}?" if guess else f"there are: {', '.join(known)}"
        hint = f"edgellm connect {guess or 'curl'}"
        raise UsageError(f"{client!r:.60} is no client that is known here", why=why, hint=hint)


def told(client: str, target: Target) -> str:
    """What to enter in a client, as text that ends with a newline."""
    return CLIENTS[client](target).strip() + "\n"


def _anythingllm(target: Target) -> str:
    embedder = target.embedder or "minilm"
    return f"""
AnythingLLM: Settings > AI Providers > LLM, provider "Generic OpenAI"
  Base URL              {target.openai}
  API Key               {target.some_key}
  Chat Model Name       {target.model}
  Token context window  {target.n_ctx}
  Max Tokens            {target.n_ctx // 4}

Settings > AI Providers > Embedder, provider "Generic OpenAI"{_no_embedder(target)}
  Base URL                    {target.openai}
  API Key                     {target.some_key}
  Embedding Model             {embedder}
  Max embedding chunk length  1000

{_docker(target)}
  LLM_PROVIDER=generic-openai
  GENERIC_OPEN_AI_BASE_PATH={target.from_docker}
  GENERIC_OPEN_AI_MODEL_PREF={target.model}
  GENERIC_OPEN_AI_MODEL_TOKEN_LIMIT={target.n_ctx}
  GENERIC_OPEN_AI_API_KEY={target.docker_key}
  EMBEDDING_ENGINE=generic-openai
  EMBEDDING_BASE_PATH={target.from_docker}
  EMBEDDING_MODEL_PREF={embedder}
  EMBEDDING_MODEL_MAX_CHUNK_LENGTH=1000
  GENERIC_OPEN_AI_EMBEDDING_API_KEY={target.docker_key}
"""


def _open_webui(target: Target) -> str:
    embedder = target.embedder or "minilm"
    return f"""
Open WebUI: Admin Panel > Settings > Connections > OpenAI API > +
  URL   {target.openai}
  Auth  Bearer, {target.some_key}

Admin Panel > Settings > Documents, embedding engine "OpenAI"{_no_embedder(target)}
  URL    {target.openai}
  Key    {target.some_key}
  Model  {embedder}

Every turn it also asks for titles, tags and queries, which a CPU pays for: Admin Panel > Settings > Interface
switches them off.

{_docker(target)}
  OPENAI_API_BASE_URL={target.from_docker}
  OPENAI_API_KEY={target.docker_key}
  ENABLE_OLLAMA_API=false
  RAG_EMBEDDING_ENGINE=openai
  RAG_OPENAI_API_BASE_URL={target.from_docker}
  RAG_OPENAI_API_KEY={target.docker_key}
  RAG_EMBEDDING_MODEL={embedder}
"""


def _continue(target: Target) -> str:
    embedder = "" if target.embedder is None else f"""
  - name: {target.embedder}
    provider: openai
    model: {target.embedder}
    apiBase: {target.openai}
    apiKey: {target.some_key}
    roles: [embed]"""  # fmt: skip
    return f"""
# Continue: ~/.continue/config.yaml
name: edgellm
version: 0.0.1
schema: v1
models:
  - name: {target.model}
    provider: openai
    model: {target.model}
    apiBase: {target.openai}
    apiKey: {target.some_key}
    roles: [chat, edit, apply]
    defaultCompletionOptions:
      contextLength: {target.n_ctx}{embedder}
"""


def _aider(target: Target) -> str:
    return f"""
export OPENAI_API_BASE={shlex.quote(target.openai)} OPENAI_API_KEY={shlex.quote(target.some_key)}
aider --model {shlex.quote(f"openai/{target.model}")}
"""


def _lm_eval(target: Target) -> str:
    settings = f"model={target.model},base_url={target.openai}/completions,tokenizer_backend=remote"
    return f"""
export OPENAI_API_KEY={shlex.quote(target.some_key)}
lm_eval --model local-completions --tasks hellaswag --limit 100 \\
  --model_args {shlex.quote(f"{settings},max_length={target.n_ctx}")}
"""


def _curl(target: Target) -> str:
    key = f" \\\n  -H {shlex.quote(f'Authorization: Bearer {target.key}')}" if target.key else ""
    body = f'{{"model": "{target.model}", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return f"""
curl -N {shlex.quote(f"{target.openai}/chat/completions")}{key} \\
  -H 'Content-Type: application/json' \\
  -d {shlex.quote(body)}
"""


def _python(target: Target) -> str:
    return f"""
from openai import OpenAI

client = OpenAI(base_url="{target.openai}", api_key="{target.some_key}")
messages = [{{"role": "user", "content": "Hello"}}]
for chunk in client.chat.completions.create(model="{target.model}", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)
"""


def _no_embedder(target: Target) -> str:
    if target.embedder is not None:
        return ""
    return f"\n  The server needs a model for it: edgellm serve {shlex.quote(target.model)} minilm"


def _docker(target: Target) -> str:
    how = "(on Linux with --add-host=host.docker.internal:host-gateway)"
    if not target.is_local:
        return f"In Docker, set instead {how}:"
    models = f"{shlex.quote(target.model)} {target.embedder or 'minilm'}"
    command = f"edgellm serve {models} --port {urlsplit(target.url).port} --host 0.0.0.0 --api-key KEY"
    return f"""A container cannot reach a server that listens on this machine alone. Start it so that it can:
  {command}
and in Docker set instead, with that key {how}:"""


CLIENTS: dict[str, Callable[[Target], str]] = {
    "anythingllm": _anythingllm,
    "open-webui": _open_webui,
    "continue": _continue,
    "aider": _aider,
    "lm-eval": _lm_eval,
    "curl": _curl,
    "python": _python,
}
# What runs a server, as files.
FILES: dict[str, Callable[[], str]] = {
    "systemd": (EXAMPLES / "edgellm.service").read_text,
    "container": (EXAMPLES / "Containerfile").read_text,
}
