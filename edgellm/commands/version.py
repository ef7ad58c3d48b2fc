"""`edgellm version`: the same as `edgellm --version`, for those who type it as a verb."""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.ui.console import print_line
from edgellm.ui.options import JsonOutput
from edgellm.ui.render import render
from edgellm.version import __version__


@dataclass(frozen=True, slots=True)
class Version:
    """The version of edgellm."""

    version: str


def version(*, output: JsonOutput) -> Version:
    """Print the version.

    Example: edgellm version
    """
    return render(output, Version(__version__), lambda found: print_line(f"edgellm {found.version}"))
