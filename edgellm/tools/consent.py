"""Whether the user lets a tool run: beforehand, when asked, or not at all. Nothing that a model or a page says counts.

consent = Consent(allowed={"web_search"}, ask=ask_on_the_terminal)
consent.may_offer(tool)          # whether it could ever run
consent.permits(tool, arguments) # asks if it must
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from edgellm.tools.tool import Risk, Tool


class Permission(Enum):
    """The user's answer to one question."""

    YES = "yes"
    NO = "no"
    ALWAYS = "always"


Ask = Callable[[Tool, Mapping[str, Any]], Permission]


class Consent:
    """What the user allows in one chat. A tool that reads nothing always may run.

    A yes or a no holds for a reading tool to the end of the chat. A tool that acts is asked for at every call, until
    the answer is `ALWAYS`.
    """

    def __init__(
        self,
        allowed: Iterable[str] = (),
        *,
        everything: bool = False,
        ask: Ask | None = None,
        on_always: Callable[[Tool], None] = lambda _: None,
    ) -> None:
        """Begin with what is allowed beforehand.

        Args:
            allowed: names of tools that may run (`--allow`), or of MCP servers whose tools all may.
            everything: all may run (`--yes-tools`).
            ask: asks the user; None where nobody can be asked, and then only what is allowed beforehand runs.
            on_always: called with a tool that is allowed for good.
        """
        self._allowed = set(allowed)
        self._refused: set[str] = set()
        # The seconds that questions waited for the user: they are no time of a tool.
        self.waited = 0.0
        self._everything = everything
        self._ask = ask
        self._on_always = on_always

    def is_allowed(self, tool: Tool) -> bool:
        """Whether it may run without a question."""
        server = tool.source.removeprefix("mcp:") if tool.source.startswith("mcp:") else None
        is_named = tool.name in self._allowed or (server is not None and server in self._allowed)
        return self._everything or tool.risk is Risk.NOTHING or is_named

    def may_offer(self, tool: Tool) -> bool:
        """Whether it may run, or somebody can be asked; no other tool is shown to the model."""
        return tool.name not in self._refused and (self.is_allowed(tool) or self._ask is not None)

    def permits(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        """Whether this call may run; asks if nothing was decided yet."""
        if self.is_allowed(tool):
            return True
        if self._ask is None or tool.name in self._refused:
            return False
        began = time.monotonic()
        answer = self._ask(tool, arguments)
        self.waited += time.monotonic() - began
        if answer is Permission.NO:
            self._refused.add(tool.name)
            return False
        if answer is Permission.ALWAYS:
            self._on_always(tool)
        if answer is Permission.ALWAYS or tool.risk is not Risk.ACTS:
            self._allowed.add(tool.name)
        return True
