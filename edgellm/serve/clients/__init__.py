"""How to connect programs to a server: what to enter in each client, and files that run a server.

check("anythingllm")
instructions("anythingllm", target)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from edgellm.errors import UsageError
from edgellm.serve.clients import apps, sdks, tools
from edgellm.serve.clients.balancers import BALANCERS
from edgellm.serve.clients.compose import compose_anythingllm, compose_open_webui
from edgellm.serve.clients.environment import Target
from edgellm.suggest import did_you_mean
from edgellm.text import read_text

EXAMPLES = Path(__file__).parent.with_name("examples")
CLIENTS: dict[str, Callable[[Target], str]] = {
    "anythingllm": apps.anythingllm,
    "open-webui": apps.open_webui,
    "continue": apps.continue_,
    "ollama": tools.ollama,
    "aider": tools.aider,
    "codex": tools.codex,
    "llm": tools.llm,
    "promptfoo": tools.promptfoo,
    "lm-eval": tools.lm_eval,
    "curl": tools.curl,
    "python": sdks.python,
    "langchain": sdks.langchain,
    "litellm": sdks.litellm,
    "ai-sdk": sdks.ai_sdk,
}
# Files that run a server.
FILES: dict[str, Callable[[], str]] = {
    "systemd": partial(read_text, EXAMPLES / "edgellm.service"),
    "launchd": partial(read_text, EXAMPLES / "edgellm.plist"),
    "container": partial(read_text, EXAMPLES / "Containerfile"),
    "compose-anythingllm": compose_anythingllm,
    "compose-open-webui": compose_open_webui,
}


def check(client: str) -> None:
    """Raise `UsageError` unless `client` is in `CLIENTS`, `BALANCERS` or `FILES`."""
    known = [*CLIENTS, *BALANCERS, *FILES]
    if client not in known:
        guess = did_you_mean(client.lower(), known)
        why = f"did you mean {guess}?" if guess else f"there are: {', '.join(known)}"
        hint = f"edgellm connect {guess or 'curl'}"
        raise UsageError(f"{client!r:.60} is no client that is known here", why=why, hint=hint)


def instructions(client: str, target: Target, upstreams: Sequence[str] = ()) -> str:
    """What to enter in a client: text that ends with a newline. `upstreams` are the servers behind a balancer."""
    if client in BALANCERS:
        return BALANCERS[client](target, upstreams or [target.url]).strip() + "\n"
    return CLIENTS[client](target).strip() + "\n"
