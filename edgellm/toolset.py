"""The tools of a user by name, for the verbs and for Python: what there is, what is missing, and how each is opened.

    with open_tools(here, ["calculator", "web_search:http://localhost:8888"]) as opened:
        toolbox = Toolbox(opened.tools, Consent())

A name may say where: `documents:manuals`, `web_search:URL` (a SearXNG server), `wikipedia:FILE.zim`. Any other name is
that of an MCP server, for all its tools, or SERVER_TOOL for one of them; `mcp` stands for all servers.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.answers import QuestionEmbedder
from edgellm.documents.shelf import Shelf
from edgellm.errors import EdgellmError, UsageError
from edgellm.progress import Report, silent
from edgellm.suggest import did_you_mean
from edgellm.tools.builtin.calculator import calculator
from edgellm.tools.builtin.clock import clock
from edgellm.tools.builtin.code import python
from edgellm.tools.builtin.documents import documents
from edgellm.tools.builtin.fetch import fetch
from edgellm.tools.builtin.web_search import web_search
from edgellm.tools.builtin.wikipedia import wikipedia
from edgellm.tools.choice import ToolChooser, by_meaning
from edgellm.tools.consent import Consent
from edgellm.tools.function import from_function
from edgellm.tools.in_use import ToolsInUse
from edgellm.tools.mcp.choice import known_servers, servers_named, tools_named
from edgellm.tools.mcp.config import ServerConfig
from edgellm.tools.mcp.faults import McpFailed, McpProblem
from edgellm.tools.mcp.servers import McpServers
from edgellm.tools.tool import Risk, Tool
from edgellm.tools.toolbox import Toolbox
from edgellm.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgellm.documents.search import Passage
    from edgellm.library import Documents

SEARXNG, ZIM = "EDGELLM_SEARXNG", "EDGELLM_ZIM"
# Every tool that is ready here.
ALL = "all"
# All tools of all MCP servers.
MCP = "mcp"
EXTRA = "pip install 'edgellm[tools]'"
# A name, a tool, or a function with type hints.
Given = str | Tool | Callable[..., Any]


@dataclass(frozen=True, slots=True)
class ToolStatus:
    """A tool, or an MCP server: what it may touch, where it looks, and what is missing; empty when it is ready."""

    name: str
    risk: str
    description: str
    where: str
    missing: str


class OpenTools:
    """Tools that are open; close it, or use it as a context manager.

    `chooser` says which tools fit a question. It compares meanings with the embedding model if that is on this machine;
    the model is loaded by the first question that needs it.
    """

    def __init__(self, here: Workspace, *, report: Report = silent) -> None:
        self.tools: list[Tool] = []
        # What of MCP servers cannot be used, and whose tools are whose: the server and the name there, by name.
        self.problems: list[McpProblem] = []
        self.origins: dict[str, tuple[str, str]] = {}
        self._here, self._report = here, report
        self._stack = ExitStack()
        self._embedder = QuestionEmbedder(here, report=report) if _has_embedder(here) else None
        self.chooser: ToolChooser = by_meaning(self._embed) if self._embedder else ToolChooser()
        if self._embedder:
            self._stack.callback(self._embedder.close)

    def _embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        import numpy as np

        if self._embedder is None:
            raise UsageError("there is no embedding model")
        return np.stack([self._embedder(text) for text in texts])

    def open(self, given: Given) -> None:
        """Open one more tool.

        Raises:
            UsageError: there is no such tool, or something of it is missing.
            CollectionNotFound: there are no such documents.
        """
        if isinstance(given, Tool):
            self.tools.append(given)
        elif not isinstance(given, str):
            self.tools.append(from_function(given))
        elif given == ALL:
            self.tools += [self._named(each.name, "") for each in tool_statuses(self._here) if not each.missing]
        else:
            name, _, where = given.partition(":")
            self.tools.append(self._named(name.strip(), where.strip()))

    def open_servers(self, words: Sequence[str], file: Path | None) -> list[str]:
        """Start the MCP servers that words mean, and take their tools; returns the words that mean none.

        Raises:
            ConfigInvalid, FileAccessError: the file of the servers cannot be read.
            McpMissing: the library for MCP is not installed.
            UsageError: a server has no such tool.
        """
        configs = known_servers(file, self._here.settings, os.environ)
        if MCP in words:
            words = [*words, *(each.name for each in configs if not each.is_disabled)]
        chosen, others = servers_named([word for word in words if word != MCP], configs)
        servers = self._stack.enter_context(McpServers(chosen, logs=self._here.settings.logs, environ=os.environ))
        servers.start(taken=list(_MAKERS), report=self._report)
        self.tools += tools_named(words, servers)
        self.problems += servers.problems
        self.origins |= servers.origins
        return others

    def _named(self, name: str, where: str) -> Tool:
        maker = _MAKERS.get(name)
        if maker is None:
            servers = [each.name for each in _servers_if_readable(self._here)]
            guess = did_you_mean(name, [*_MAKERS, *servers])
            why = f"did you mean {guess}?" if guess else f"there are {', '.join([*_MAKERS, *servers])}, and {ALL}"
            raise UsageError(f"there is no tool {name!r:.60}", why=why, hint="edgellm tools")
        return maker(self, where)

    def plain(self, make: Callable[[], Tool], name: str, where: str) -> Tool:
        """A tool that looks nowhere."""
        if where:
            raise UsageError(
                f"{name} takes nothing after a colon", why=f"it says {where!r:.60}", hint=f"--tools {name}"
            )
        return make()

    def web_search(self, where: str) -> Tool:
        """The search of the web, by the server that is named here or in the environment."""
        server = where or os.environ.get(SEARXNG, "")
        if server and not server.startswith(("http://", "https://")):
            raise UsageError(f"{server!r:.60} is no address of a server", hint="web_search:http://localhost:8888")
        if missing := _missing_search(server):
            raise UsageError("web_search is not ready", why=missing, hint=f"{EXTRA}, or web_search:URL")
        return web_search(server)

    def wikipedia(self, where: str) -> Tool:
        """The encyclopedia in a ZIM file."""
        path = where or os.environ.get(ZIM, "")
        if missing := _missing_zim(path):
            raise UsageError("wikipedia is not ready", why=missing, hint=f"{EXTRA}, and wikipedia:FILE.zim")
        return wikipedia(Path(os.path.expanduser(path)))  # noqa: PTH111, Path's own raises for unknown users

    def documents(self, where: str) -> Tool:
        """The documents of a collection, or of all."""
        names = [where] if where else Shelf(self._here.settings.documents).names()
        if not names:
            raise UsageError("documents is not ready", why="there are no documents yet", hint="edgellm docs add PATH")
        from edgellm.library import existing_documents

        existing_documents(self._here, names[0]).close() if where else None
        opened: dict[str, Documents] = {}

        def search(query: str, most: int) -> list[Passage]:
            from edgellm.library import open_documents

            for name in names:
                if name not in opened:
                    opened[name] = self._stack.enter_context(open_documents(self._here, name, report=self._report))
            found = [each for name in names for each in opened[name].search(query, most)]
            return sorted(found, key=lambda each: -each.score)[:most]

        return documents(search, names)

    def close(self) -> None:
        """Close what the tools have opened."""
        self._stack.close()

    def __enter__(self) -> OpenTools:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_MAKERS: Mapping[str, Callable[[OpenTools, str], Tool]] = {
    "calculator": lambda opened, where: opened.plain(calculator, "calculator", where),
    "clock": lambda opened, where: opened.plain(clock, "clock", where),
    "documents": OpenTools.documents,
    "wikipedia": OpenTools.wikipedia,
    "web_search": OpenTools.web_search,
    "fetch": lambda opened, where: opened.plain(fetch, "fetch", where),
    "python": lambda opened, where: opened.plain(python, "python", where),
}


def open_tools(
    here: Workspace,
    given: Sequence[Given],
    *,
    mcp: Path | None = None,
    lenient: bool = False,
    report: Report = silent,
) -> OpenTools:
    """Open tools; of several with one name the last one counts.

    Args:
        mcp: a file of MCP servers in place of the user's.
        lenient: an MCP server that cannot be used is among the `problems`, and no error.

    Raises:
        McpFailed: an MCP server cannot be used.
        UsageError: there is no such tool, or something of it is missing; the hint says what to install.
        ConfigInvalid, FileAccessError: the file of the MCP servers cannot be read.
    """
    opened = OpenTools(here, report=report)
    try:
        foreign = [each for each in given if isinstance(each, str) and not _is_own(each)]
        unknown = opened.open_servers(foreign, mcp) if foreign or mcp else []
        for each in given:
            if each not in foreign or each in unknown:
                opened.open(each)
        if not lenient and (fatal := next((each for each in opened.problems if each.is_fatal), None)):
            raise McpFailed(fatal.text, hint=f"edgellm tools {fatal.server}")
    except BaseException:
        opened.close()
        raise
    opened.tools = list({tool.name: tool for tool in opened.tools}.values())
    return opened


def _is_own(word: str) -> bool:
    return word.partition(":")[0].strip() in {*_MAKERS, ALL}


def _servers_if_readable(here: Workspace) -> tuple[ServerConfig, ...]:
    """The user's own MCP servers; none where the file is wrong."""
    try:
        return known_servers(None, here.settings, os.environ)
    except EdgellmError:
        return ()


def server_statuses(here: Workspace, file: Path | None = None) -> list[ToolStatus]:
    """The MCP servers of a file or of the user, without starting any.

    Raises:
        ConfigInvalid, FileAccessError, UsageError: the file cannot be read.
    """
    return [
        ToolStatus(
            each.name, Risk.ACTS.value, f"MCP server; its tools: edgellm tools {each.name}", each.place,
            "disabled" if each.is_disabled else each.fault,
        )
        for each in known_servers(file, here.settings, os.environ)
    ]  # fmt: skip


class OpenToolSets:
    """The tools of a batch: `names` are those of rows that name none; other built-in ones are opened when a row names
    them, without a place after a colon: where a tool looks is not for a row to say.
    """

    def __init__(
        self,
        here: Workspace,
        given: Sequence[Given],
        consent: Consent,
        *,
        mcp: Path | None = None,
        lenient: bool = False,
        report: Report = silent,
    ) -> None:
        """Nothing is open yet; `mcp` and `lenient` are those of `open_tools`."""
        self._lenient = lenient
        self._here, self._given, self._consent, self._mcp, self._report = here, given, consent, mcp, report
        self._opened: OpenTools | None = None
        self.names = tuple(each if isinstance(each, str) else name_of(each) for each in given)

    def open(self, names: Sequence[str]) -> ToolsInUse:
        """The tools of these names.

        Raises:
            UsageError: there is no such tool, something of it is missing, or a row names one that is not allowed.
        """
        if self._opened is None:
            self._opened = open_tools(
                self._here, self._given, mcp=self._mcp, lenient=self._lenient, report=self._report
            )
        opened = self._opened
        if tuple(names) == self.names:
            return ToolsInUse(Toolbox(opened.tools, self._consent), opened.chooser)
        if placed := next((name for name in names if ":" in name), None):
            raise UsageError(f"a row cannot say where a tool looks: {placed!r:.80}", hint=f"--tools {placed:.80}")
        for name in names:
            if name not in {tool.name for tool in opened.tools}:
                opened.open(name)
        chosen = [tool for tool in opened.tools if tool.name in names or ALL in names]
        if barred := next((tool for tool in chosen if not self._consent.may_offer(tool)), None):
            what = f"{barred.name} may not run here"
            raise UsageError(what, why=f"it {barred.risk.value}", hint=f"--allow {barred.name}")
        return ToolsInUse(Toolbox({tool.name: tool for tool in chosen}.values(), self._consent), opened.chooser)

    @property
    def problems(self) -> list[McpProblem]:
        """What of MCP servers cannot be used."""
        return self._opened.problems if self._opened is not None else []

    def close(self) -> None:
        """Close what the tools have opened."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def name_of(given: Given) -> str:
    """The name of a tool, however it is given."""
    if isinstance(given, str):
        return given.partition(":")[0]
    return given.name if isinstance(given, Tool) else str(getattr(given, "__name__", given))


def split_names(values: Sequence[str]) -> list[str]:
    """The names in values of `--tools` and `--allow`: separated by commas, but not inside a URL or a path after `:`."""
    names: list[str] = []
    for value in values:
        for part in value.split(","):
            is_name = part.partition(":")[0].strip() in {*_MAKERS, ALL}
            if names and not is_name and ":" in names[-1]:
                names[-1] += f",{part}"
            else:
                names.append(part.strip())
    return list(filter(None, names))


def tool_statuses(here: Workspace) -> Iterator[ToolStatus]:
    """Every built-in tool, with what it misses on this machine."""
    shelf = Shelf(here.settings.documents).names()
    server, zim = os.environ.get(SEARXNG, ""), os.environ.get(ZIM, "")
    found: list[tuple[Tool, str, str]] = [
        (calculator(), "", ""),
        (clock(), "", ""),
        (documents(lambda *_: [], shelf), ", ".join(shelf), "" if shelf else "no documents; edgellm docs add PATH"),
        (wikipedia(Path(zim)), zim, _missing_zim(zim)),
        (web_search(server), server or "ddgs", _missing_search(server)),
        (fetch(), "", ""),
        (python(), "", _missing_sandbox()),
    ]
    for tool, where, missing in found:
        yield ToolStatus(tool.name, tool.risk.value, tool.description, where, missing)


def _has_embedder(here: Workspace) -> bool:
    from edgellm.cache.decision import EMBEDDER

    return EMBEDDER in here.store.names()


def _missing_search(server: str) -> str:
    if server or importlib.util.find_spec("ddgs") is not None:
        return ""
    return f"no SearXNG server ({SEARXNG}=URL), and no package ddgs"


def _missing_zim(path: str) -> str:
    if importlib.util.find_spec("libzim") is None:
        return "no package libzim"
    if not path:
        return f"no ZIM file ({ZIM}=FILE.zim)"
    return "" if os.path.isfile(os.path.expanduser(path)) else f"no file {path}"  # noqa: PTH111, PTH113


def _missing_sandbox() -> str:
    from edgellm.sandbox.run import require_closed

    try:
        require_closed()
    except EdgellmError as error:
        return error.why or error.what
    return ""
