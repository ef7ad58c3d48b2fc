"""Grammars and schemas of requests, tried before the worker gets them.

    structures = Structures(engine)
    body = await structures.understood(model, body)

The worker steps through a grammar between the tokens of all its clients, and one with much that is optional keeps it
there for ever. So those that are not known to be harmless are first taken some steps in a process that can be ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgellm.engine.grammar import is_harmless, schema_to_gbnf
from edgellm.engine.grammar_watch import GrammarTooComplex, GrammarWatch
from edgellm.engine.installed import InstalledEngine
from edgellm.engine.patterns import check_limits, with_rewritten_patterns
from edgellm.errors import UsageError
from edgellm.serve.catalog import ServedModel
from edgellm.serve.problems import Problem

# Tokens that a grammar is followed: the first opens a string, in which a pattern begins.
N_STEPS = 4
# Parts of one request that are tried, and how many are remembered.
MOST_PARTS = 32
MOST_KNOWN = 4096


class Structures:
    """What was tried already of all models."""

    def __init__(self, engine: InstalledEngine) -> None:
        self._engine = engine
        self._turn = asyncio.Lock()
        self._known: dict[bytes, None] = {}

    async def understood(self, model: ServedModel, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request as the worker understands it, once what the answer is to follow has been tried.

        A grammar that is wrong in other ways is left to the worker, which tells it better.

        Raises:
            Problem: a pattern cannot be honoured, or nothing can match it.
            GrammarTooComplex: the worker would not come to an end with it.
        """
        whole = _honoured(body)
        parts = [part for part, _ in zip(_parts(body), range(MOST_PARTS), strict=False)]
        for part in parts:
            key = hashlib.sha256(f"{model.path}\0{json.dumps(part)}".encode()).digest()
            if key in self._known:
                continue
            async with self._turn:
                await asyncio.to_thread(self._try, model.path, part)
            if len(self._known) >= MOST_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[key] = None
        return whole

    def _try(self, model: Path, part: Any) -> None:
        watch = GrammarWatch(self._engine.directory, model)
        try:
            text = part if isinstance(part, str) else schema_to_gbnf(part, self._engine.bindings)
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


def _honoured(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request whose patterns the worker understands; it takes others for no pattern at all.

    Those of tools stay as they are: the model reads them too.
    """
    whole, field = dict(body), ""
    try:
        for field in ("json_schema", "response_format"):
            if body.get(field):
                whole[field] = with_rewritten_patterns(body[field])
        field = "tools"
        check_limits(body.get(field))
    except RecursionError:
        raise Problem(400, f"{field}: it is nested too deeply", code="bad-field", field=field) from None
    except UsageError as error:
        message = f"{field}: {error.what}{f', {error.why}' if error.why else ''}"
        raise Problem(400, message, code="bad-field", field=field) from None
    return whole


def _parts(body: Mapping[str, Any]) -> Iterator[Any]:
    """Grammars as texts, and schemas, each as a whole and then the patterns within, which only come in its middle."""
    if grammar := body.get("grammar"):
        yield grammar
    form = body.get("response_format") or {}
    schemas = [body.get("json_schema"), form.get("schema"), (form.get("json_schema") or {}).get("schema")]
    schemas += [(tool.get("function") or {}).get("parameters") for tool in body.get("tools") or ()]
    for schema in schemas:
        if schema is not None and not is_harmless(schema):
            yield schema
            for pattern in _patterns(schema):
                yield {"type": "string", "pattern": pattern}


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _patterns(item)
    elif isinstance(schema, dict):
        if isinstance(pattern := schema.get("pattern"), str):
            yield pattern
        for value in schema.values():
            yield from _patterns(value)
