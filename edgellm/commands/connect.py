"""`edgellm connect CLIENT [MODEL]`: exactly what to enter in a program so that it uses the server here."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.target import ApiKey, Port, find_target
from edgellm.commands.workspace import workspace
from edgellm.ui import options


def _clients(incomplete: str) -> list[str]:
    from edgellm.serve.clients import CLIENTS

    return [name for name in CLIENTS if name.startswith(incomplete)]


def connect(
    client: Annotated[
        str,
        typer.Argument(
            help="anythingllm, open-webui, continue, aider, lm-eval, curl, python; systemd and container print files "
            "that run the server.",
            autocompletion=_clients,
        ),
    ],
    model: Annotated[
        str | None, typer.Argument(help="A model of the server. [default: its first]", autocompletion=model_names)
    ] = None,
    port: Port = None,
    api_key: ApiKey = None,
    as_json: options.Json = False,
) -> None:
    """Print what to enter in a client, with the address, model, context and key of the server here.

    \b
    Examples: edgellm connect anythingllm
              edgellm connect open-webui bitnet-2b --api-key KEY
              edgellm connect systemd > ~/.config/systemd/user/edgellm.service
    """
    from dataclasses import asdict

    from edgellm.serve.clients import FILES, check, told
    from edgellm.ui.console import print_json, print_raw

    check(client)
    target = None if client in FILES else find_target(workspace(), model, port=port, key=api_key)
    text = FILES[client]() if target is None else told(client, target)
    if as_json:
        print_json({"client": client, "target": asdict(target) if target else None, "text": text})
    else:
        print_raw(text)
