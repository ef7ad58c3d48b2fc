"""Grammars and schemas of requests, tried in a child process before the worker gets them.

    trial = GrammarTrial(engine)
    formed = await trial.admit(model, body)

llama-server steps through a grammar between the tokens of all its clients, and a grammar with many optional parts can
keep it there for ever. So every grammar that may not be harmless first takes a few steps in a process that can be
killed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.grammar.watch import GrammarTooComplex, GrammarWatch
from edgellm.errors import UsageError
from edgellm.serve.answer.forms import Constrained, constrained
from edgellm.serve.http.problems import Problem
from edgellm.serve.workers.catalog import ServedModel

# Steps of a trial, in tokens: the first one opens a string, in which a pattern begins.
N_STEPS = 4
# How many parts of one request are tried, and how many passed ones are remembered.
MOST_PARTS = 256
MOST_KNOWN = 4096
# The fields that ask for a form of the answer or of a call.
CONSTRAINED = frozenset({"grammar", "json_schema", "response_format", "tools"})


class GrammarTrial:
    """Tries grammars, and remembers which ones passed."""

    def __init__(self, engine: InstalledEngine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()
        self._known: dict[bytes, None] = {}

    async def admit(self, model: ServedModel, body: Mapping[str, Any]) -> Constrained:
        """The body with its schemas as llama-server understands them, once all grammars have passed the trial.

        A grammar that is wrong in another way passes: llama-server explains the fault better.

        Raises:
            Problem: the schema of the answer cannot be honoured.
            GrammarTooComplex: llama-server would never finish a step with a grammar.
        """
        if not CONSTRAINED & body.keys():  # most requests: no thread for nothing
            return Constrained(dict(body))
        formed = await asyncio.to_thread(constrained, body, by_grammar=_by_grammar(model, body))
        if len(formed.trials) > MOST_PARTS:
            message = f"the grammars, schemas and patterns of a request may be {MOST_PARTS} at most"
            raise Problem(400, message, code="bad-field")
        for trial in formed.trials:
            try:
                await self._pass(model, trial.grammar)
            except GrammarTooComplex as error:
                if trial.tool is None:
                    raise
                formed.without_arguments(trial.tool, error.what)
        return formed

    async def _pass(self, model: ServedModel, grammar: str) -> None:
        key = hashlib.sha256(f"{model.path}\0{grammar}".encode(errors="replace")).digest()
        if key in self._known:
            return
        async with self._turn:
            await asyncio.to_thread(self._try, model.path, grammar)
        if len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key] = None

    def _try(self, model: Path, text: str) -> None:
        watch = GrammarWatch(self._engine.directory, model)
        try:
            grammar = watch.open(text)
            for _ in range(N_STEPS):
                (tokens,) = grammar.permitted().nonzero()
                if not tokens.size:
                    return
                grammar.accept(int(tokens[0]))
        except GrammarTooComplex:
            raise
        except UsageError:
            pass
        finally:
            watch.close()


def _by_grammar(model: ServedModel, body: Mapping[str, Any]) -> bool:
    """Whether the whole answer of a model is text that a grammar of ours can constrain."""
    if "messages" not in body:
        return True
    has_tools = body.get("tools") and body.get("tool_choice") != "none"
    goes_on = bool(body["messages"]) and body["messages"][-1].get("role") == "assistant"
    return model.answers_plainly and not has_tools and not goes_on
