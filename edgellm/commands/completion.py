"""`edgellm completion SHELL`: the script that completes verbs, options and model names; and those names."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from edgellm.commands.workspace import workspace


class Shell(str, Enum):
    """The shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


def completion(shell: Annotated[Shell, typer.Argument(help="For which shell.")]) -> None:
    """Print the script that completes verbs, options, and names of models.

    \b
    Examples: edgellm completion bash > ~/.local/share/bash-completion/completions/edgellm
              edgellm completion fish > ~/.config/fish/completions/edgellm.fish
              edgellm completion zsh > "${fpath[1]}/_edgellm"
    """
    from typer._completion_shared import get_completion_script

    typer.echo(get_completion_script(prog_name="edgellm", complete_var="_EDGELLM_COMPLETE", shell=shell.value))


def installed_names(incomplete: str) -> list[str]:
    """Names of installed models that begin so."""
    return [name for name in workspace().store.names() if name.startswith(incomplete)]


def model_names(incomplete: str) -> list[str]:
    """The same, and recipes that can be pulled."""
    from edgellm.models.recipe import recipe_names

    known = {*workspace().store.names(), *recipe_names(workspace().recipe_directories)}
    return sorted(name for name in known if name.startswith(incomplete))
