"""Choosing tokens with llama.cpp's samplers: one chain for each answer, and a grammar beside it.

    sampler = LlamaSampler(bindings, context, Sampling(temperature=0), prompt, lambda: -1, grammars)
    sampler.sample()

It gets the low-level bindings from `engine.llama`, which owns them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engine.base import Sampling
from edgellm.engine.grammar import check_grammar
from edgellm.engine.grammar_watch import GrammarWatch
from edgellm.engine.llama_grammar import TOKEN_DATA, Grammar, LlamaGrammar, apply
from edgellm.errors import EngineError

# What ends a sequence for DRY, as in llama.cpp's own programs.
DRY_BREAKERS = (b"\n", b":", b'"', b"*")


class LlamaSampler:
    """penalties -> DRY -> top-k -> top-p -> min-p -> temperature -> draw, or penalties -> DRY -> greedy.

    `row` tells which row of the last batch's logits is this sequence's. A grammar is asked about the drawn token, and
    only if it says no about all tokens, because that takes long; then the draw is repeated among what it permits.
    """

    def __init__(
        self,
        c: Any,
        context: Any,
        sampling: Sampling,
        history: Sequence[int],
        row: Callable[[], int],
        grammars: GrammarWatch,
    ) -> None:
        self._c = c
        self._context = context
        self._row = row
        self._vocab = c.llama_model_get_vocab(c.llama_get_model(context))
        self._n_vocab = int(c.llama_vocab_n_tokens(self._vocab))
        self._grammar: Grammar | None = None
        if sampling.grammar and sampling.grammar_is_harmless:
            self._grammar = LlamaGrammar(c, self._vocab, sampling.grammar)
        elif sampling.grammar:
            check_grammar(sampling.grammar)
            self._grammar = grammars.open(sampling.grammar)
        self._pointer = c.llama_sampler_chain_init(c.llama_sampler_chain_default_params())
        for sampler in self._memories(sampling):
            for token in history:
                c.llama_sampler_accept(sampler, token)
            c.llama_sampler_chain_add(self._pointer, sampler)
        for sampler in self._choices(sampling):
            c.llama_sampler_chain_add(self._pointer, sampler)

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
        if not self._grammar.permits(token):
            candidates = self._candidates()
            candidates["logit"][~self._grammar.permitted()] = -np.inf
            if not np.isfinite(candidates["logit"]).any():
                raise EngineError("the grammar leaves no token to go on with", why="the vocabulary cannot write it")
            token = self._draw(candidates)
        self._grammar.accept(token)
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
        array = apply(self._c, self._pointer, candidates)
        return int(candidates["id"][array.selected])

    def close(self) -> None:
        """Free the chain and the grammar."""
        if self._grammar is not None:
            self._grammar.close()
            self._grammar = None
        if self._pointer:
            self._c.llama_sampler_free(self._pointer)
            self._pointer = None
