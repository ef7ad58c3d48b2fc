"""One grammar at one place in an answer, by llama.cpp's engine of grammars.

grammar = LlamaGrammar(bindings, vocabulary, 'root ::= "yes" | "no"')
if grammar.permits(token): grammar.accept(token)

Its calls cannot be interrupted, and for a grammar with much that is optional they may take for ever: what is not known
to be harmless belongs into another process, see `grammar_watch`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Iterator
from io import StringIO
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgellm.engine.grammar import check_grammar
from edgellm.errors import UsageError

# llama_token_data.
TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Grammar(Protocol):
    """A grammar, and how far an answer has come in it."""

    def permits(self, token: int) -> bool:
        """Whether it may come next."""

    def permitted(self) -> npt.NDArray[np.bool_]:
        """Which tokens [n_vocab] may come next."""

    def accept(self, token: int) -> None:
        """It comes next; it must be permitted."""

    def close(self) -> None:
        """Give the memory back."""


class LlamaGrammar:
    """A grammar in this process."""

    def __init__(self, c: Any, vocab: Any, text: str) -> None:
        check_grammar(text)
        self._c = c
        self._n_vocab = int(c.llama_vocab_n_tokens(vocab))
        with _stderr_captured() as said:
            self._pointer = c.llama_sampler_init_grammar(vocab, text.encode(errors="replace"), b"root")
        if not self._pointer:
            why = " ".join(said.getvalue().split())[:200] or "it has no rule `root`, or one that begins with itself"
            raise UsageError("the engine does not understand the grammar", why=why)

    def permits(self, token: int) -> bool:
        """Whether it may come next."""
        return bool(self._possible(np.array([token], np.int32))[0])

    def permitted(self) -> npt.NDArray[np.bool_]:
        """Which tokens [n_vocab] may come next; this takes long."""
        return self._possible(np.arange(self._n_vocab, dtype=np.int32))

    def _possible(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        candidates = np.zeros(len(tokens), TOKEN_DATA)
        candidates["id"] = tokens
        apply(self._c, self._pointer, candidates)
        permitted: npt.NDArray[np.bool_] = np.isfinite(candidates["logit"])
        return permitted

    def accept(self, token: int) -> None:
        """It comes next; what is not permitted ends the process."""
        self._c.llama_sampler_accept(self._pointer, token)

    def close(self) -> None:
        """Free it."""
        if self._pointer:
            self._c.llama_sampler_free(self._pointer)
            self._pointer = None


def apply(c: Any, sampler: Any, candidates: npt.NDArray[np.void]) -> Any:
    """Let a step work on the candidates in place; returns the engine's view of them."""
    data = candidates.ctypes.data_as(ctypes.POINTER(c.llama_token_data))
    array = c.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
    c.llama_sampler_apply(sampler, ctypes.byref(array))
    return array


@contextlib.contextmanager
def _stderr_captured() -> Iterator[StringIO]:
    """What C code writes to stderr by itself; it is there when the block has ended."""
    said = StringIO()
    before = os.dup(2)
    try:
        with tempfile.TemporaryFile() as file:
            os.dup2(file.fileno(), 2)
            try:
                yield said
            finally:
                os.dup2(before, 2)
                file.seek(0)
                said.write(file.read().decode(errors="replace"))
    finally:
        os.close(before)
