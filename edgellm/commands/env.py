"""`edgellm env [MODEL]`: the environment that makes clients use the server here."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.commands.completion import model_names
from edgellm.commands.target import ApiKey, Port, find_target
from edgellm.commands.workspace import workspace
from edgellm.serve.clients import Shell
from edgellm.ui import options


def env(
    model: Annotated[
        str | None, typer.Argument(help="A model of the server. [default: its first]", autocompletion=model_names)
    ] = None,
    shell: Annotated[Shell, typer.Option("--shell", help="Whose lines to print.")] = Shell.SH,
    port: Port = None,
    api_key: ApiKey = None,
    as_json: options.Json = False,
) -> None:
    """Print the variables that clients of OpenAI, Ollama and Anthropic read, as lines for a shell.

    \b
    Examples: eval "$(edgellm env)"
              edgellm env bitnet-2b --shell fish | source
              edgellm env --json
    """
    from edgellm.serve.clients import assignments, environment
    from edgellm.ui.console import print_json, print_line

    values = environment(find_target(workspace(), model, port=port, key=api_key))
    if as_json:
        print_json(values)
        return
    for line in assignments(values, shell):
        print_line(line)
