"""Compose files: edgellm in a container and a program with windows beside it, set up for each other.

compose_anythingllm()   # a compose.yaml for docker compose and podman-compose
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from edgellm.serve.clients.apps import anythingllm_environment, open_webui_environment
from edgellm.serve.clients.environment import EMBEDDER, Target

URL = "http://edgellm:11435"
# Variables of .env or the shell; without a key compose says so and starts nothing.
MODEL, KEY = "${MODEL:-qwen-7b-chat}", "${EDGELLM_API_KEY:?write EDGELLM_API_KEY=... into .env}"
TARGET = Target(URL, MODEL, 8192, KEY, EMBEDDER, is_local=False)


@dataclass(frozen=True, slots=True)
class _App:
    """A program beside edgellm: its image, its port, where it keeps its data, and its other options."""

    name: str
    title: str
    image: str
    port: int
    data: str
    more: str = ""


ANYTHINGLLM = _App(
    "anythingllm", "AnythingLLM", "docker.io/mintplexlabs/anythingllm:latest", 3001, "/app/server/storage",
    # Its program that reads web pages runs Chromium, whose sandbox needs this.
    "\n    cap_add: [SYS_ADMIN]",
)  # fmt: skip
OPEN_WEBUI = _App("open-webui", "Open WebUI", "ghcr.io/open-webui/open-webui:main", 8080, "/app/backend/data")


def compose_anythingllm() -> str:
    """AnythingLLM beside edgellm."""
    return _compose(ANYTHINGLLM, {"STORAGE_DIR": ANYTHINGLLM.data, **anythingllm_environment(TARGET, URL)})


def compose_open_webui() -> str:
    """Open WebUI beside edgellm."""
    return _compose(OPEN_WEBUI, open_webui_environment(TARGET, URL))


def _compose(app: _App, environment: Mapping[str, str]) -> str:
    # JSON strings are YAML strings; "$" begins a variable only in the model and the key.
    variables = "\n".join(f"      {name}: {json.dumps(value)}" for name, value in environment.items())
    return f"""# edgellm and {app.title}, in containers that only this machine can reach. In a checkout of edgellm:
#   make wheel
#   edgellm connect container > dist/Containerfile
#   edgellm connect compose-{app.name} > dist/compose.yaml
#   echo "EDGELLM_API_KEY=$(openssl rand -hex 16)" > dist/.env
#   docker compose --project-directory dist up -d
# The model is pulled first; then open http://127.0.0.1:{app.port}. MODEL=NAME in .env takes another model.

services:
  edgellm:
    build: &source {{context: ., dockerfile: Containerfile}}
    image: localhost/edgellm
    command: [serve, "{MODEL}", {EMBEDDER}]
    environment: &settings
      EDGELLM_API_KEY: {json.dumps(KEY)}
      EDGELLM_ALLOWED_HOST: edgellm
      EDGELLM_CTX_SIZE: "{TARGET.n_ctx}"
    volumes: [edgellm:/data]
    depends_on:
      pull: {{condition: service_completed_successfully}}
    restart: unless-stopped
    stop_grace_period: 45s

  pull:
    build: *source
    image: localhost/edgellm
    entrypoint: [sh, -ec, 'for model; do "$$0" pull "$$model"; done', edgellm]
    command: ["{MODEL}", {EMBEDDER}]
    environment: *settings
    volumes: [edgellm:/data]

  {app.name}:
    image: {app.image}
    ports: ["127.0.0.1:{app.port}:{app.port}"]{app.more}
    environment:
{variables}
    volumes: [{app.name}:{app.data}]
    depends_on:
      edgellm: {{condition: service_healthy}}
    restart: unless-stopped

volumes:
  edgellm:
  {app.name}:
"""
