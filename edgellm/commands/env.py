"""`edgellm env [MODEL]`: the environment that makes clients use the server here."""

from __future__ import annotations

from typing import Annotated

import typer

from edgellm.serve.clients.environment import Shell, assignments, environment
from edgellm.serve.target import find_target
from edgellm.ui import options
from edgellm.ui.console import note, print_line
from edgellm.ui.model_names import model_names
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render
from edgellm.workspace import workspace


def env(
    model: Annotated[
        str | None, typer.Argument(help="A model of the server. [default: its first]", autocompletion=model_names)
    ] = None,
    shell: Annotated[Shell, typer.Option("--shell", help="Whose lines to print.")] = Shell.SH,
    port: options.Port = None,
    api_key: options.ApiKey = None,
    *,
    output: JsonOutput,
) -> dict[str, str]:
    """Print the variables that clients of OpenAI, Ollama and Anthropic read, as lines for a shell.

    \b
    Examples: eval "$(edgellm env)"
              edgellm env bitnet-2b --shell fish | source
              edgellm env --json
    """
    here = workspace()
    target = find_target(here.settings, here.store, here.recipe_directories, model, port=port, key=api_key, note=note)

    def show(values: dict[str, str]) -> None:
        for line in assignments(values, shell):
            print_line(line)

    return render(output, environment(target), show)
