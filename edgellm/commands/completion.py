"""`edgellm completion SHELL`: the script that completes verbs, options and names of models."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Annotated

import typer
from typer._completion_shared import get_completion_script

from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render


class CompletedShell(str, Enum):
    """The shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"
    POWERSHELL = "powershell"


@dataclass(frozen=True, slots=True)
class CompletionScript:
    """The script, and the shell that reads it."""

    shell: CompletedShell
    script: str


def completion(
    shell: Annotated[CompletedShell, typer.Argument(help="For which shell.")], *, output: JsonOutput
) -> CompletionScript:
    """Print the script that completes verbs, options, and names of models.

    \b
    Examples: edgellm completion bash > ~/.local/share/bash-completion/completions/edgellm
              edgellm completion fish > ~/.config/fish/completions/edgellm.fish
              edgellm completion zsh > "${fpath[1]}/_edgellm"
    """
    script = get_completion_script(prog_name="edgellm", complete_var="_EDGELLM_COMPLETE", shell=shell.value)
    return render(output, CompletionScript(shell, script), lambda result: typer.echo(result.script))
