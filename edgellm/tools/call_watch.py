"""Sees where the text of a model begins a tool call, and holds back what may become one.

    watch = CallWatch(form, {"calculator"})
    watch.feed("Let me see.\\n<tool_")  ->  "Let me see.\\n"
    watch.feed("call>")                ->  ""
    watch.found                        ->  True

Small models often write the call's JSON without the marks of their template, or in a fence; that counts too, if it is
all that they have written and it names a tool, or has arguments.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from edgellm.run.call_form import CallForm

_FENCE = r"\s*(?:```\w*\s*|</?tools?>\s*)?"
_KEY = r'"(?:name|function|tool)"'
# What may still become a call.
_BEGINS = re.compile(
    rf"\s*(?:`{{1,2}}|```\w*\s*|<(?:/?t?o?o?l?s?)>?\s*|{_FENCE}\{{\s*(?:\"\w{{0,8}}|{_KEY}[^\n]{{0,150}})?)"
)


class CallWatch:
    """Watches one text."""

    def __init__(self, form: CallForm, names: Collection[str]) -> None:
        tool = "|".join(map(re.escape, names))
        self._bare = re.compile(
            rf'{_FENCE}\{{\s*{_KEY}\s*:\s*"(?:(?:{tool})"|[^"\n]*"\s*,\s*"(?:arguments|parameters)"\s*:)'
        )
        self._marker = form.marker.strip()
        self._text = ""
        self._shown = 0
        self.found = False

    @property
    def before(self) -> str:
        """The text before the call."""
        return self._text[: self._shown]

    @property
    def held(self) -> str:
        """Text that was held back."""
        return self._text[self._shown :]

    def feed(self, piece: str) -> str:
        """Take a piece of text; returns what can be shown."""
        self._text += piece
        end = len(self._text)
        if self._marker and (at := self._text.find(self._marker, self._shown)) >= 0:
            self.found, end = True, at
        elif not self.before.strip() and self._bare.match(self._text):
            self.found, end = True, self._shown
        elif not self.before.strip() and _BEGINS.fullmatch(self._text):
            end = self._shown
        elif self._marker:
            end -= next((n for n in range(len(self._marker) - 1, 0, -1) if self._text.endswith(self._marker[:n])), 0)
        shown, self._shown = self._text[self._shown : end], end
        return shown
