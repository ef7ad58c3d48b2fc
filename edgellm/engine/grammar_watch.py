"""Grammars in a process of their own, which a grammar that never comes to an end can be ended with.

    watch = GrammarWatch(installed.directory, model_path)
    grammar = watch.open('root ::= "a"? "b"? "c"?')
    grammar.permits(token)

The engine's steps through a grammar are calls into C, and with much that is optional one of them may take years or all
memory. The process (`grammar_worker`) limits its own CPU time and memory; where it dies, the grammar that it worked on
is refused, and a new process goes on with the others from where they were.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import weakref
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import edgellm
from edgellm.errors import EngineError, UsageError

# CPU time that one step may take; one through an ordinary grammar takes some milliseconds.
STEP_SECONDS = 5
# What the process may take beside the vocabulary.
SPARE_BYTES = 1 << 30


class GrammarTooComplex(UsageError):
    """A step through a grammar takes too long, or too much memory."""

    code = "grammar-too-complex"


class GrammarWatch:
    """The process of one model's grammars, started when the first one is opened."""

    def __init__(self, engine: Path, model: Path, *, step_seconds: float = STEP_SECONDS) -> None:
        worker = [sys.executable, "-m", "edgellm.engine.grammar_worker"]
        self._command = [*worker, str(engine), str(model.absolute()), str(step_seconds)]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._numbers = count()
        self._refused: set[str] = set()
        self._open: dict[int, WatchedGrammar] = {}

    def open(self, text: str) -> WatchedGrammar:
        """A grammar at its beginning.

        Raises:
            UsageError: it is wrong.
            GrammarTooComplex: it takes too long.
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
        """What the process answers about a grammar."""
        with self._lock:
            if grammar.text in self._refused:
                raise _too_complex()
            try:
                if self._process is None:
                    self._start()
                    self._bring_back()
                return self._exchange(grammar.number, request)
            except UsageError:
                raise
            except EOFError:
                self._refused.add(grammar.text)
                self._end()
                raise _too_complex() from None
            except BaseException:  # its answer would be taken for that to the next question
                self._end()
                raise

    def _start(self) -> None:
        # `-m` puts the working directory first in the module path: this one holds nothing but packages.
        where = Path(edgellm.__file__).parent.parent
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, cwd=where, start_new_session=True
        )
        self._ending = weakref.finalize(self, _end, self._process)
        try:
            self._exchange(-1, {})
        except EOFError:
            self._end()
            raise EngineError("the process for grammars does not start", hint="edgellm doctor") from None

    def _bring_back(self) -> None:
        """What the last process had open, but for the grammar that it died of."""
        for grammar in self._open.values():
            if grammar.text in self._refused or not grammar.opened:
                continue
            self._exchange(grammar.number, {"open": grammar.text})
            for token in grammar.accepted:
                self._exchange(grammar.number, {"accept": token})

    def _exchange(self, number: int, request: dict[str, Any]) -> bytes:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise EOFError
        try:
            process.stdin.write(json.dumps({"grammar": number, **request}).encode() + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline() or b"null")
            if answer is None:
                raise EOFError
            if "error" in answer:
                raise UsageError(answer["error"], why=answer["why"])
            data = process.stdout.read(answer["bytes"])
        except OSError:
            raise EOFError from None
        if len(data) < answer["bytes"]:
            raise EOFError
        return data

    def forget(self, grammar: WatchedGrammar) -> None:
        """It is not needed any more."""
        with self._lock:
            if self._open.pop(grammar.number, None) and grammar.opened and self._process is not None:
                try:
                    self._exchange(grammar.number, {"close": True})
                except EOFError:
                    self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._ending()
            self._process = None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()


class WatchedGrammar:
    """A grammar in that process; see `llama_grammar.Grammar`.

    Every step raises GrammarTooComplex where it takes too long.
    """

    def __init__(self, watch: GrammarWatch, number: int, text: str) -> None:
        self._watch, self.number, self.text = watch, number, text
        self.accepted: list[int] = []
        self.opened = False

    def permits(self, token: int) -> bool:
        """Whether it may come next."""
        return self._watch.ask(self, {"permits": token}) == b"\1"

    def permitted(self) -> npt.NDArray[np.bool_]:
        """Which tokens [n_vocab] may come next."""
        return np.frombuffer(self._watch.ask(self, {"permitted": True}), np.bool_)

    def accept(self, token: int) -> None:
        """It comes next."""
        self._watch.ask(self, {"accept": token})
        self.accepted.append(token)

    def close(self) -> None:
        """Forget it."""
        self._watch.forget(self)


def _too_complex() -> GrammarTooComplex:
    return GrammarTooComplex(
        "the grammar is too complex for the engine",
        why=f"a step through it takes more than {STEP_SECONDS} s or {SPARE_BYTES >> 30} GiB",
        hint="fewer parts in a row that are optional or repeated, and fewer ways to write the same",
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):  # what was not written any more
                stream.close()
