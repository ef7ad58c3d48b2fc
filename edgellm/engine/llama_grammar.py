"""A grammar and its state within an answer, run by llama.cpp's grammar code.

grammar = LlamaGrammar(bindings, vocabulary, 'root ::= "yes" | "no"')
if grammar.permits(token): grammar.accept(token)

Its calls cannot be interrupted, and with many optional parts they may never return. A grammar that is not known to be
harmless belongs in another process; see `grammar.watch`.
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

from edgellm.engine.grammar.bounds import check_grammar
from edgellm.errors import UsageError

# struct llama_token_data.
TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Grammar(Protocol):
    """A grammar, and the position that an answer has reached in it."""

    def permits(self, token: int) -> bool:
        """Whether this token may come next."""

    def permitted(self) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next, as booleans [n_vocab]."""

    def accept(self, token: int) -> None:
        """Advance by this token, which must be permitted."""

    def close(self) -> None:
        """Free the memory."""


class LlamaGrammar:
    """A grammar that runs in this process."""

    def __init__(self, c: Any, vocab: Any, text: str) -> None:
        check_grammar(text)
        self._c = c
        self._n_vocab = int(c.llama_vocab_n_tokens(vocab))
        with _stderr_captured() as said:
            self._pointer = c.llama_sampler_init_grammar(vocab, text.encode(errors="replace"), b"root")
        if not self._pointer:
            why = " ".join(said.getvalue().split())[:200] or "it has no rule `root`, or one that begins with itself"
            raise UsageError("the engine cannot parse the grammar", why=why)

    def permits(self, token: int) -> bool:
        """Whether this token may come next."""
        return bool(self._possible(np.array([token], np.int32))[0])

    def permitted(self) -> npt.NDArray[np.bool_]:
        """Return which tokens may come next, as booleans [n_vocab]; this is slow."""
        return self._possible(np.arange(self._n_vocab, dtype=np.int32))

    def _possible(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
        candidates = np.zeros(len(tokens), TOKEN_DATA)
        candidates["id"] = tokens
        apply(self._c, self._pointer, candidates)
        permitted: npt.NDArray[np.bool_] = np.isfinite(candidates["logit"])
        return permitted

    def accept(self, token: int) -> None:
        """Advance by this token; a token that is not permitted aborts the process."""
        self._c.llama_sampler_accept(self._pointer, token)

    def close(self) -> None:
        """Free the grammar."""
        if self._pointer:
            self._c.llama_sampler_free(self._pointer)
            self._pointer = None


def apply(c: Any, sampler: Any, candidates: npt.NDArray[np.void]) -> Any:
    """Run a sampler on the candidates in place, and return the engine's view of them."""
    data = candidates.ctypes.data_as(ctypes.POINTER(c.llama_token_data))
    array = c.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
    c.llama_sampler_apply(sampler, ctypes.byref(array))
    return array


@contextlib.contextmanager
def _stderr_captured() -> Iterator[StringIO]:
    """Capture what C code writes to stderr; the text is complete when the block ends."""
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
