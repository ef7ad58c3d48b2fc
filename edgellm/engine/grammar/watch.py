"""Runs grammars in a child process, so that one that never terminates can be killed.

    watch = GrammarWatch(installed.directory, model_path)
    grammar = watch.open('root ::= "a"? "b"? "c"?')
    grammar.permits(token)

The engine steps through a grammar in C, and with many optional parts one step may take years or all memory. The process
(`grammar.worker`) limits its own CPU time and memory. When it dies, the grammar it worked on is refused, and a new
process goes on with the others from where they were.
"""

from __future__ import annotations

import threading
import weakref
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.errors import EngineError, UsageError
from edgellm.machine.child import Child, ChildFailed, module

# CPU time that one step may take; an ordinary grammar needs a few milliseconds.
STEP_SECONDS = 5
# Memory that the process may take beside the vocabulary.
SPARE_BYTES = 1 << 30


class GrammarTooComplex(UsageError):
    """A step through a grammar takes too long, or too much memory."""

    code = "grammar-too-complex"


class GrammarWatch:
    """The process of one model's grammars, started when the first one is opened."""

    def __init__(self, engine: Path, model: Path, *, step_seconds: float = STEP_SECONDS) -> None:
        arguments = (str(engine.absolute()), str(model.absolute()), str(step_seconds))
        self._program = module("edgellm.engine.grammar.worker", *arguments)
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._numbers = count()
        self._refused: set[str] = set()
        self._open: dict[int, WatchedGrammar] = {}

    def open(self, text: str) -> WatchedGrammar:
        """A grammar at its beginning.

        Raises:
            UsageError: it cannot be parsed.
            GrammarTooComplex: opening it takes too long.
        """
        grammar = WatchedGrammar(self, next(self._numbers), text)
        self._open[grammar.number] = grammar
        try:
            self.ask(grammar, {"open": text})
            grammar.opened = True
        except BaseException:
            grammar.close()
            raise
        return grammar

    def ask(self, grammar: WatchedGrammar, request: dict[str, Any]) -> bytes:
        """The process's answer to a request about a grammar."""
        with self._lock:
            if grammar.text in self._refused:
                raise _too_complex()
            try:
                child = self._child or self._start()
                return _exchange(child, grammar.number, request)
            except UsageError:
                raise
            except ChildFailed:
                self._refused.add(grammar.text)
                self._end()
                raise _too_complex() from None
            except BaseException:  # the next question would get this one's answer
                self._end()
                raise

    def _start(self) -> Child:
        """A new process with all that the last one had open, except the grammar that it died of."""
        try:
            self._child = child = Child(self._program, name="the process for grammars")
            self._kill = weakref.finalize(self, child.close)
            _exchange(child, -1, {})
        except ChildFailed as error:
            raise EngineError("the process for grammars does not start", hint="edgellm doctor") from error
        for grammar in self._open.values():
            if grammar.text in self._refused or not grammar.opened:
                continue
            _exchange(child, grammar.number, {"open": grammar.text})
            for token in grammar.accepted:
                _exchange(child, grammar.number, {"accept": token})
        return child

    def forget(self, grammar: WatchedGrammar) -> None:
        """Let the process close a grammar."""
        with self._lock:
            if self._open.pop(grammar.number, None) and grammar.opened and self._child is not None:
                try:
                    _exchange(self._child, grammar.number, {"close": True})
                except ChildFailed:
                    self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._kill()
            self._child = None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()


class WatchedGrammar:
    """A grammar in that process; see `llama_grammar.LlamaGrammar`.

    Every step raises GrammarTooComplex if it takes too long.
    """

    def __init__(self, watch: GrammarWatch, number: int, text: str) -> None:
        self._watch, self.number, self.text = watch, number, text
        self.accepted: list[int] = []
        self.opened = False

    def permits(self, token: int) -> bool:
        """Whether a token may come next."""
        return self._watch.ask(self, {"permits": token}) == b"\1"

    def permitted(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, a bool for each of the vocabulary [n_vocab]."""
        return np.frombuffer(self._watch.ask(self, {"permitted": True}), np.bool_)

    def accept(self, token: int) -> None:
        """Append a token."""
        self._watch.ask(self, {"accept": token})
        self.accepted.append(token)

    def close(self) -> None:
        """Free it in the process."""
        self._watch.forget(self)


def _too_complex() -> GrammarTooComplex:
    return GrammarTooComplex(
        "the grammar is too complex for the engine",
        why=f"a step through it takes more than {STEP_SECONDS} s or {SPARE_BYTES >> 30} GiB",
        hint="fewer parts in a row that are optional or repeated, and fewer ways to write the same",
    )


def _exchange(child: Child, number: int, request: dict[str, Any]) -> bytes:
    child.send({"grammar": number, **request})
    return child.read(child.receive()["bytes"])
