"""Chooses tokens with llama.cpp's samplers: a chain for each answer, and optionally a grammar.

    sampler = LlamaSampler(bindings, context, Sampling(temperature=0), prompt, lambda: -1, grammars, "model.gguf")
    sampler.sample()

It gets the low-level bindings from `engine.llama`, which owns them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engine.finite import require_finite
from edgellm.engine.grammar.bounds import check_grammar
from edgellm.engine.grammar.watch import GrammarWatch
from edgellm.engine.llama_grammar import TOKEN_DATA, Grammar, LlamaGrammar, apply
from edgellm.engine.sampling import Sampling
from edgellm.errors import EngineError

# DRY's sequence breakers, as in llama.cpp's own programs.
DRY_BREAKERS = (b"\n", b":", b'"', b"*")


class LlamaSampler:
    """Penalties, DRY, top-k, typical-p, top-p, min-p, XTC, temperature, draw; at temperature 0 penalties, DRY, greedy.

    `row` returns the row of the last batch's logits that belongs to the last token of this sequence; `name` is the
    model's. The grammar checks only the drawn token, because checking all tokens is slow. If it rejects that token, the
    draw is repeated among permitted tokens.
    """

    def __init__(
        self,
        c: Any,
        context: Any,
        sampling: Sampling,
        history: Sequence[int],
        row: Callable[[], int],
        grammars: GrammarWatch,
        name: str,
    ) -> None:
        self._c = c
        self._name = name
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
        """Yield the samplers that look at earlier tokens."""
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
        if sampling.top_n_sigma > 0:
            yield c.llama_sampler_init_top_n_sigma(sampling.top_n_sigma)
        yield c.llama_sampler_init_top_k(sampling.top_k)
        if sampling.typical_p < 1:
            yield c.llama_sampler_init_typical(sampling.typical_p, 1)
        yield c.llama_sampler_init_top_p(sampling.top_p, 1)
        yield c.llama_sampler_init_min_p(sampling.min_p, 1)
        if sampling.xtc_probability > 0:
            yield c.llama_sampler_init_xtc(sampling.xtc_probability, sampling.xtc_threshold, 1, sampling.seed)
        yield c.llama_sampler_init_temp(sampling.temperature)
        yield c.llama_sampler_init_dist(sampling.seed)

    def sample(self, row: int = -1) -> int:
        """Draw the next token, and advance the chain and the grammar by it; see `base.Sampler`.

        Raises:
            NotFinite: the logits are no numbers.
        """
        index = self._row() + 1 + row  # of a batch's rows, or of its end: the engine takes both
        logits = self._logits(index)
        require_finite(logits, self._name)
        if self._grammar is None:
            return int(self._c.llama_sampler_sample(self._pointer, self._context, index))
        candidates = self._candidates(logits)
        token = self._draw(candidates)
        if not self._grammar.permits(token):
            candidates = self._candidates(logits)
            candidates["logit"][~self._grammar.permitted()] = -np.inf
            if not np.isfinite(candidates["logit"]).any():
                raise EngineError("the grammar permits no further token", why="the vocabulary cannot write it")
            token = self._draw(candidates)
        self._grammar.accept(token)
        self._c.llama_sampler_accept(self._pointer, token)
        return token

    def _candidates(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.void]:
        """Return all tokens with their logits, in the engine's layout."""
        candidates = np.zeros(self._n_vocab, TOKEN_DATA)
        candidates["id"] = np.arange(self._n_vocab)
        candidates["logit"] = logits
        return candidates

    def _logits(self, index: int) -> npt.NDArray[np.float32]:
        """Return the engine's own logits [n_vocab], which the next computation overwrites."""
        pointer = self._c.llama_get_logits_ith(self._context, index)
        return np.ctypeslib.as_array(pointer, shape=(self._n_vocab,))

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
