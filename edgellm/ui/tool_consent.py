"""The tools of a verb: opened by name, with the user's permission asked on the terminal.

    with prepare_tools(here, flags, quiet=False) as tools:
        Chat(model, tools=tools)

Off a terminal nobody can be asked: a tool that may not run by itself is not offered, and a note says how to allow it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgellm.errors import EdgellmError, UsageError
from edgellm.tools.consent import Ask, Consent, Permission
from edgellm.tools.record import call_line
from edgellm.tools.tool import Risk, Tool
from edgellm.ui.console import note, printable
from edgellm.ui.interrupt import echoing
from edgellm.ui.options import ToolFlags
from edgellm.ui.progress import lasting
from edgellm.workspace import Workspace

if TYPE_CHECKING:
    from edgellm.tools.in_use import ToolsInUse
    from edgellm.tools.mcp.faults import McpProblem
    from edgellm.tools.toolbox import Toolbox
    from edgellm.toolset import OpenToolSets

# What opens tools is imported where there are any: a verb without them starts with little.
ANSWERS = {
    "y": Permission.YES, "yes": Permission.YES, "n": Permission.NO, "no": Permission.NO, "": Permission.NO,
    "a": Permission.ALWAYS, "always": Permission.ALWAYS,
}  # fmt: skip
# The option that keeps what is always allowed.
ALLOW = ("allow",)


@contextmanager
def prepare_tools(
    here: Workspace, flags: ToolFlags, *, docs: str | None = None, raw: bool = False, quiet: bool
) -> Iterator[ToolsInUse | None]:
    """Open the tools that `--tools` names; None without any.

    Raises:
        UsageError: there is no such tool, or something of it is missing; or `docs` or `raw` are asked for as well.
    """
    names = _checked_names(flags, docs, raw)
    if not names:
        yield None
        return
    from edgellm.tools.in_use import ToolsInUse
    from edgellm.tools.toolbox import Toolbox
    from edgellm.toolset import open_tools, split_names

    ask = _asker(shows_call=quiet) if sys.stdin.isatty() and sys.stderr.isatty() else None
    consent = Consent(
        split_names(flags.allow or ()), everything=flags.yes_tools, ask=ask, on_always=lambda tool: _keep(here, tool)
    )
    with open_tools(here, names, mcp=flags.mcp, lenient=True, report=lasting(quiet=quiet)) as opened:
        toolbox = Toolbox(opened.tools, consent)
        if not quiet:
            note_problems(opened.problems)
            _note_refused(toolbox)
        yield ToolsInUse(toolbox, opened.chooser)


def batch_tools(here: Workspace, flags: ToolFlags, *, docs: str | None, raw: bool, quiet: bool) -> OpenToolSets:
    """The tools of a batch, which never asks: only what is allowed beforehand runs, whatever its rows name.

    Raises:
        UsageError: there is no such tool, or something of it is missing.
    """
    from edgellm.toolset import OpenToolSets, split_names

    names = _checked_names(flags, docs, raw)
    consent = Consent(split_names(flags.allow or ()), everything=flags.yes_tools)
    toolsets = OpenToolSets(here, names, consent, mcp=flags.mcp, lenient=True, report=lasting(quiet=quiet))
    if names:
        toolbox = toolsets.open(names).toolbox  # a wrong name is refused before a model is loaded
        if not quiet:
            note_problems(toolsets.problems)
            _note_refused(toolbox)
    return toolsets


def _checked_names(flags: ToolFlags, docs: str | None, raw: bool) -> list[str]:
    """The names of `--tools`."""
    if flags.mcp is not None and not flags.tools:
        raise UsageError("--mcp has no effect without --tools", hint="--tools NAME, a server in the file")
    if not flags.tools:
        return []
    from edgellm.toolset import split_names

    names = split_names(flags.tools)
    if names and docs is not None:
        raise UsageError("--docs and --tools are two ways to answer", hint=f"--tools documents:{docs}")
    if names and raw:
        raise UsageError("--tools and --raw do not go together", why="tools stand in messages")
    return names


def note_problems(problems: Iterable[McpProblem]) -> None:
    """Say which MCP servers, or tools of them, cannot be used."""
    for problem in problems:
        note(printable(f"{problem.server}: {problem.text}"))


def _note_refused(toolbox: Toolbox) -> None:
    """Say which tools are not offered, and how they are allowed."""
    for tool in toolbox:
        if not toolbox.consent.may_offer(tool):
            note(f"{tool.name} {_does(tool)}, and nobody can be asked here; --allow {tool.name} lets it run")


def _asker(*, shows_call: bool) -> Ask:
    """Asks on the terminal until an answer is one; `shows_call` where nobody has shown the call before."""

    def ask(tool: Tool, arguments: Mapping[str, Any]) -> Permission:
        if shows_call:
            note(printable(call_line(tool.name, dict(arguments))))
        if tool.risk is Risk.ACTS:  # all of it: a line is cut
            for key, value in arguments.items():
                note(f"  {printable(key)}: {printable(str(value))}")
        note(f"{printable(tool.name)} {_does(tool)}. May it?")
        yes = "once" if tool.risk is Risk.ACTS else "in this chat"
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with echoing():
                return _answered(f"[y] yes, {yes}   [a] always   [n] no, or Enter: ")
        except KeyboardInterrupt:
            sys.stderr.write("\n")
            return Permission.NO
        finally:
            signal.signal(signal.SIGINT, before)

    return ask


def _answered(question: str) -> Permission:
    """The answer to a question on the terminal; the end of the input is a no."""
    while True:
        sys.stderr.write(question)
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            sys.stderr.write("\n")
        answer = ANSWERS.get(line.strip().lower())
        if answer is not None:
            return answer
        note("y, a or n")


def _does(tool: Tool) -> str:
    """What it does that needs a permission, as the rest of a sentence."""
    return "acts on your behalf" if tool.risk is Risk.ACTS else tool.risk.value


def _keep(here: Workspace, tool: Tool) -> None:
    """Allow a tool for good, in the config file."""
    from edgellm.config_file import ConfigFile, change

    path = here.settings.config_file
    try:
        kept = ConfigFile.read(path).at(ALLOW) or []
        names = kept.split(",") if isinstance(kept, str) else [str(each) for each in kept]
        if tool.name not in names:
            change(path, ALLOW, [*names, tool.name])
            note(f"{tool.name} is always allowed now: allow in {path}")
    except EdgellmError as error:
        note(f"allowed in this chat only: {error.what}")
