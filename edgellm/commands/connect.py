"""`edgellm connect CLIENT [MODEL]`: exactly what to enter in a program so that it uses the server here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from edgellm.errors import UsageError
from edgellm.serve.clients import CLIENTS, FILES, check, instructions
from edgellm.serve.clients.balancers import BALANCERS
from edgellm.serve.clients.environment import Target
from edgellm.serve.target import find_target, target_behind
from edgellm.serve.upstreams.addresses import upstream_urls
from edgellm.ui import options
from edgellm.ui.console import note, print_raw
from edgellm.ui.model_names import model_names
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render
from edgellm.workspace import workspace


@dataclass(frozen=True, slots=True)
class ClientTarget:
    """The server as a client is to use it; `key` is null when there is none, `embedder` a model that gives vectors."""

    url: str
    model: str
    n_ctx: int
    key: str | None
    embedder: str | None
    is_local: bool

    @classmethod
    def of(cls, target: Target) -> ClientTarget:
        """The part of a target that is shown."""
        return cls(target.url, target.model, target.n_ctx, target.key, target.embedder, target.is_local)


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The text to enter; `target` is null for files that run the server, such as `systemd` and `container`."""

    client: str
    target: ClientTarget | None
    text: str


def _clients(incomplete: str) -> list[str]:
    return [name for name in [*CLIENTS, *BALANCERS, *FILES] if name.startswith(incomplete)]


def connect(
    client: Annotated[
        str,
        typer.Argument(
            help=f"{', '.join(CLIENTS)}; {', '.join(FILES)} print files that run the server; "
            f"{', '.join(BALANCERS)} print configurations that spread requests over several.",
            autocompletion=_clients,
        ),
    ],
    model: Annotated[
        str | None, typer.Argument(help="A model of the server. [default: its first]", autocompletion=model_names)
    ] = None,
    port: options.Port = None,
    api_key: options.ApiKey = None,
    upstreams: Annotated[
        list[str] | None,
        typer.Option(
            "--upstreams",
            metavar="URL,...",
            envvar="EDGELLM_CONNECT_UPSTREAMS",
            help=f"The servers behind {', '.join(BALANCERS)}. Can be repeated. [default: the one here]",
            show_default=False,
        ),
    ] = None,
    *,
    output: JsonOutput,
) -> ClientSettings:
    """Print what to enter in a client, with the address, model, context and key of the server here.

    \b
    Examples: edgellm connect anythingllm
              edgellm connect open-webui bitnet-2b --api-key KEY
              edgellm connect haproxy --upstreams http://box1:11435,http://box2:11435 > haproxy.cfg
              edgellm connect systemd > ~/.config/systemd/user/edgellm.service
    """
    check(client)
    urls = upstream_urls(upstreams) if upstreams else []
    if urls and client not in BALANCERS:
        hint = f"edgellm connect {next(iter(BALANCERS))} --upstreams URL,URL"
        raise UsageError(f"{client} takes no --upstreams", why="it talks to one server", hint=hint)
    if client in FILES:
        found = ClientSettings(client, None, FILES[client]())
    elif urls:
        target = target_behind(urls, model, key=api_key, note=note)
        found = ClientSettings(client, ClientTarget.of(target), instructions(client, target, urls))
    else:
        here = workspace()
        target = find_target(
            here.settings, here.store, here.recipe_directories, model, port=port, key=api_key, note=note
        )
        found = ClientSettings(client, ClientTarget.of(target), instructions(client, target))
    return render(output, found, lambda found: print_raw(found.text))
