"""What to enter in programs with windows: by clicks, and as environment variables for those that run in a container.

anythingllm(target)
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from edgellm.serve.clients.environment import Shell, Target, assignments

# Each of the 36 tools that Open WebUI's browser adds to a message is described in the prompt.
WITHOUT_TOOLS = json.dumps({"capabilities": {"builtin_tools": False}}, separators=(",", ":"))
# Open WebUI's hidden questions. The query that a small model writes for a search in documents finds nothing.
HIDDEN = ("RETRIEVAL_QUERY", "TITLE", "TAGS", "FOLLOW_UP")


def anythingllm(target: Target) -> str:
    """By its connector for Ollama, which reads the context and the abilities of a model, or for OpenAI."""
    return f"""
AnythingLLM: Settings > AI Providers > LLM, provider "Ollama"
  Ollama Base URL  {target.url}
  Auth Token       {target.key or "(none)"}
  Chat Model       {target.model}
  Max Tokens       {target.n_ctx}
{target.with_documents}
Settings > AI Providers > Embedder, provider "Ollama"{_no_embedder(target)}
  Ollama Base URL             {target.url}
  Auth Token                  {target.key or "(none)"}
  Embedding Model             {target.some_embedder}
  Max embedding chunk length  1000

In each workspace, if its answers leave the documents out: Settings > Chat Settings > Chat mode "Chat" or "Query". In
the mode "Automatic" a model that calls tools must search the documents itself, and small models do not.

The provider "Generic OpenAI" works too. AnythingLLM takes its models for ones that call tools: set the chat mode.
  Base URL              {target.openai}
  API Key               {target.some_key}
  Chat Model Name       {target.model}
  Token context window  {target.n_ctx}
  Max Tokens            {target.n_answer}

{_docker(target)}
{_lines(anythingllm_environment(target, target.from_docker))}
"""


def anythingllm_environment(target: Target, url: str) -> dict[str, str]:
    """The environment of AnythingLLM's container, which reaches the server at `url`."""
    return {
        "LLM_PROVIDER": "ollama",
        "OLLAMA_BASE_PATH": url,
        "OLLAMA_MODEL_PREF": target.model,
        "OLLAMA_MODEL_TOKEN_LIMIT": str(target.n_ctx),
        "OLLAMA_AUTH_TOKEN": target.docker_key,
        "EMBEDDING_ENGINE": "ollama",
        "EMBEDDING_BASE_PATH": url,
        "EMBEDDING_MODEL_PREF": target.some_embedder,
        "EMBEDDING_MODEL_MAX_CHUNK_LENGTH": "1000",
        "PROVIDER_DISABLE_NATIVE_TOOL_CALLING": "ollama,generic-openai",
    }


def open_webui(target: Target) -> str:
    """By a connection of OpenAI's API, without its own tools and hidden questions."""
    return f"""
Open WebUI: Admin Panel > Settings > Connections > OpenAI API > +
  URL   {target.openai}
  Auth  Bearer, {target.some_key}
{target.with_documents}
Admin Panel > Settings > Models > {target.model} > Capabilities: untick "Builtin Tools". They take 7,000 tokens of every
prompt: to keep them, start the server with --ctx-size 16384.

Admin Panel > Settings > Documents, embedding engine "OpenAI"{_no_embedder(target)}
  URL    {target.openai}
  Key    {target.some_key}
  Model  {target.some_embedder}

Admin Panel > Settings > Interface: switch off the generation of titles, tags, follow-ups and retrieval queries. A CPU
computes each of these for every message, and a small model's query finds nothing in the documents.

{_docker(target)}
{_lines(open_webui_environment(target, target.from_docker))}
Open WebUI reads these at its first start. Later its Admin Panel counts, unless ENABLE_PERSISTENT_CONFIG=False.
"""


def open_webui_environment(target: Target, url: str) -> dict[str, str]:
    """The environment of Open WebUI's container, which reaches the server at `url`."""
    api = f"{url}/v1"
    return {
        "OPENAI_API_BASE_URL": api,
        "OPENAI_API_KEY": target.docker_key,
        "ENABLE_OLLAMA_API": "False",
        "DEFAULT_MODEL_METADATA": WITHOUT_TOOLS,
        **{f"ENABLE_{question}_GENERATION": "False" for question in HIDDEN},
        "RAG_EMBEDDING_ENGINE": "openai",
        "RAG_OPENAI_API_BASE_URL": api,
        "RAG_OPENAI_API_KEY": target.docker_key,
        "RAG_EMBEDDING_MODEL": target.some_embedder,
    }


def continue_(target: Target) -> str:
    """Continue's file in YAML."""
    embedder = "" if target.embedder is None else f"""
  - name: {json.dumps(target.embedder)}
    provider: openai
    model: {json.dumps(target.embedder)}
    apiBase: {target.openai}
    apiKey: {json.dumps(target.some_key)}
    roles: [embed]"""  # fmt: skip
    return f"""
# Continue: ~/.continue/config.yaml
name: edgellm
version: 0.0.1
schema: v1
models:
  - name: {json.dumps(target.model)}
    provider: openai
    model: {json.dumps(target.model)}
    apiBase: {target.openai}
    apiKey: {json.dumps(target.some_key)}
    roles: [chat, edit, apply]
    defaultCompletionOptions:
      contextLength: {target.n_ctx}{embedder}
"""


def _no_embedder(target: Target) -> str:
    return f"\n  {target.without_embedder}" if target.without_embedder else ""


def _lines(values: dict[str, str]) -> str:
    return "\n".join(f"  {line.removeprefix('export ')}" for line in assignments(values, Shell.SH))


def _docker(target: Target) -> str:
    how = "(on Linux with --add-host=host.docker.internal:host-gateway; a file for --env-file has no quotes)"
    if not target.is_local:
        return f"In Docker, set instead {how}:"
    models = f"{target.served} {target.some_embedder}"
    command = f"edgellm serve {models} --port {urlsplit(target.url).port} --host 0.0.0.0 --api-key KEY"
    return f"""A container cannot reach a server that listens on this machine alone. Start it so that it can:
  {command}
and in Docker set instead, with that key {how}:"""
