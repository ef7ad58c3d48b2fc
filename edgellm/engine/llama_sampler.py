"""Choosing tokens with llama.cpp's samplers: one chain for each answer, and a grammar beside it.

    sampler = LlamaSampler(bindings, context, Sampling(temperature=0), prompt, lambda: -1)
    sampler.sample()

It gets the low-level bindings from `engine.llama`, which owns them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engine.base import Sampling
from edgellm.engine.grammar import check_grammar
from edgellm.errors import EngineError, UsageError

# llama_token_data.
TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
# What ends a sequence for DRY, as in llama.cpp's own programs.
DRY_BREAKERS = (b"\n", b":", b'"', b"*")


class LlamaSampler:
    """penalties -> DRY -> top-k -> top-p -> min-p -> temperature -> draw, or penalties -> DRY -> greedy.

    `row` tells which row of the last batch's logits is this sequence's. A grammar is asked about the drawn token, and
    only if it says no about all tokens, because that takes long; then the draw is repeated among what it permits.
    """

    def __init__(
        self, c: Any, context: Any, sampling: Sampling, history: Sequence[int], row: Callable[[], int]
    ) -> None:
        self._c = c
        self._context = context
        self._row = row
        self._vocab = c.llama_model_get_vocab(c.llama_get_model(context))
        self._n_vocab = int(c.llama_vocab_n_tokens(self._vocab))
        self._grammar = self._open_grammar(sampling.grammar) if sampling.grammar else None
        self._pointer = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        for sampler in self._memories(sampling):
            for token in history:
                c.llama_sampler_accept(sampler, token)
            c.llama_sampler_chain_add(self._pointer, sampler)
        for sampler in self._choices(sampling):
            c.llama_sampler_chain_add(self._pointer, sampler)

    def _open_grammar(self, text: str) -> Any:
        check_grammar(text)
        with _stderr_captured() as said:
            grammar = self._c.llama_sampler_init_grammar(self._vocab, text.encode(errors="replace"), b"root")
        if not grammar:
            why = " ".join(said.getvalue().split())[:200] or "it has no rule `root`, or one that begins with itself"
            raise UsageError("the engine does not understand the grammar", why=why)
        return grammar

    def _memories(self, sampling: Sampling) -> Iterator[Any]:
        """The steps that look at earlier tokens."""
        c, penalties = self._c, (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
        if penalties != (1.0, 0.0, 0.0):
            yield c.llama_sampler_init_penalties(self._n_vocab, sampling.repeat_last_n, *penalties)
        if sampling.dry_multiplier > 0:
            breakers = (ctypes.c_char_p * len(DRY_BREAKERS))(*DRY_BREAKERS)
            base, allowed, n_ctx = sampling.dry_base, sampling.dry_allowed_length, self._c.llama_n_ctx(self._context)
            yield c.llama_sampler_init_dry(
                self._vocab, sampling.dry_multiplier, base, allowed, n_ctx, breakers, len(breakers)
            )

    def _choices(self, sampling: Sampling) -> Iterator[Any]:
        c = self._c
        if sampling.temperature <= 0:
            yield c.llama_sampler_init_greedy()
            return
        yield c.llama_sampler_init_top_k(sampling.top_k)
        yield c.llama_sampler_init_top_p(sampling.top_p, 1)
        yield c.llama_sampler_init_min_p(sampling.min_p, 1)
        yield c.llama_sampler_init_temp(sampling.temperature)
        yield c.llama_sampler_init_dist(sampling.seed)

    def sample(self) -> int:
        """Draw the next token; the chain and the grammar remember it."""
        if self._grammar is None:
            return int(self._c.llama_sampler_sample(self._pointer, self._context, self._row()))
        candidates = self._candidates()
        token = self._draw(candidates)
        if not self._permits(token):
            candidates = self._candidates()
            self._apply(self._grammar, candidates)
            if not np.isfinite(candidates["logit"]).any():
                raise EngineError("the grammar leaves no token to go on with", why="the vocabulary cannot write it")
            token = self._draw(candidates)
        self._c.llama_sampler_accept(self._grammar, token)
        self._c.llama_sampler_accept(self._pointer, token)
        return token

    def _candidates(self) -> npt.NDArray[np.void]:
        """All tokens with their logits, as the engine's steps take them."""
        pointer = self._c.llama_get_logits_ith(self._context, self._row())
        candidates = np.zeros(self._n_vocab, TOKEN_DATA)
        candidates["id"] = np.arange(self._n_vocab)
        candidates["logit"] = np.ctypeslib.as_array(pointer, shape=(self._n_vocab,))
        return candidates

    def _draw(self, candidates: npt.NDArray[np.void]) -> int:
        array = self._apply(self._pointer, candidates)
        return int(candidates["id"][array.selected])

    def _permits(self, token: int) -> bool:
        one = np.array([(token, 1.0, 0.0)], TOKEN_DATA)
        self._apply(self._grammar, one)
        return bool(np.isfinite(one["logit"][0]))

    def _apply(self, sampler: Any, candidates: npt.NDArray[np.void]) -> Any:
        """Let a step work on the candidates in place; returns the engine's view of them."""
        c = self._c
        data = candidates.ctypes.data_as(ctypes.POINTER(c.llama_token_data))
        array = c.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        c.llama_sampler_apply(sampler, ctypes.byref(array))
        return array

    def close(self) -> None:
        """Free the chain and the grammar."""
        for pointer in (self._pointer, self._grammar):
            if pointer:
                self._c.llama_sampler_free(pointer)
        self._pointer = self._grammar = None


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
