"""Which MCP servers the words of `--tools` mean, and which of their tools.

    configs = known_servers(None, settings, os.environ)
    chosen, others = servers_named(["calculator", "files"], configs)   # ("files",), ["calculator"]
    servers.start()
    tools = tools_named(["files"], servers)

A word is the name of a server, for all its tools, or SERVER_TOOL for one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from edgellm.errors import UsageError
from edgellm.settings import Settings
from edgellm.suggest import did_you_mean
from edgellm.tools.mcp.config import ServerConfig, read_servers
from edgellm.tools.mcp.servers import McpServers, plain_name
from edgellm.tools.tool import Tool


def known_servers(file: Path | None, settings: Settings, environ: Mapping[str, str]) -> tuple[ServerConfig, ...]:
    """The servers of a file; without one those of the user's own `mcp.json`, if there is one.

    Raises:
        FileAccessError, UsageError: it cannot be read.
        ConfigInvalid: it is not one.
    """
    if file is not None:
        return read_servers(file, environ)
    return read_servers(settings.mcp_servers, environ) if settings.mcp_servers.is_file() else ()


def servers_named(words: Sequence[str], configs: Iterable[ServerConfig]) -> tuple[tuple[ServerConfig, ...], list[str]]:
    """The servers that must be started for these words, and the words that mean no server.

    A server that somebody names is used even if the file disables it.
    """
    configs, rest = tuple(configs), list(words)
    chosen: list[ServerConfig] = []
    for config in configs:
        mine = [word for word in words if _means(word, config)]
        if mine:
            chosen.append(replace(config, is_disabled=False))
            rest = [word for word in rest if word not in mine]
    return tuple(chosen), rest


def tools_named(words: Sequence[str], servers: McpServers) -> list[Tool]:
    """Those tools of started servers that these words mean.

    Raises:
        UsageError: a server has no such tool; one that could not be started is a problem of `servers`, and no error.
    """
    found: list[Tool] = []
    failed = {problem.server for problem in servers.problems if problem.is_fatal}
    for word in words:
        config = next((each for each in servers.configs if _means(word, each)), None)
        if config is None:
            continue
        own = [tool for tool in servers.tools if tool.source == f"mcp:{config.name}"]
        meant = own if word in (config.name, plain_name(config.name)) else [tool for tool in own if tool.name == word]
        if not meant and config.name not in failed:
            guess = did_you_mean(word, [tool.name for tool in own])
            why = f"did you mean {guess}?" if guess else f"it has {', '.join(tool.name for tool in own) or 'none'}"
            raise UsageError(f"the MCP server {config.name} has no tool {word}", why=why, hint="edgellm tools")
        found += [tool for tool in meant if tool not in found]
    return found


def _means(word: str, config: ServerConfig) -> bool:
    return word == config.name or word == plain_name(config.name) or word.startswith(f"{plain_name(config.name)}_")
