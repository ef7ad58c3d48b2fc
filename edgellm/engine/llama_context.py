"""Computes with llama.cpp, over a context of a loaded model: one sequence, several at once, or vectors of texts.

    context = LlamaContext(bindings, pointer, n_ctx=4096, name="model.gguf", grammars=grammars)
    context.decode([1, 2, 3])

The classes get the low-level bindings and the pointer to their context from `engine.llama`, which owns both.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgellm.engine.finite import not_finite, require_finite
from edgellm.engine.grammar.watch import GrammarWatch
from edgellm.engine.llama_sampler import LlamaSampler
from edgellm.engine.sampling import Sampling
from edgellm.errors import DoesNotFit, EngineError, UnsupportedModel

if TYPE_CHECKING:
    from edgellm.engine.rpc.spread import Spread

LLAMA_DECODE_NO_SLOT, LLAMA_DECODE_NO_MEMORY = 1, -2


class _EngineContext:
    """The common part of all three: the engine's context, its threads, and its errors."""

    def __init__(self, c: Any, pointer: Any, n_ctx: int, name: str) -> None:
        """`name` is the model's, for errors."""
        self._c = c
        self._pointer = pointer
        self._name = name
        self._memory = c.llama_get_memory(pointer)
        self.n_ctx = n_ctx
        self.n_batch: int = c.llama_n_batch(pointer)
        # The workers that compute a part of it, if there are any.
        self.spread: Spread | None = None

    def set_threads(self, n_threads: int) -> None:
        """Set the number of threads for the following computations."""
        self._c.llama_set_n_threads(self._pointer, n_threads, n_threads)

    def close(self) -> None:
        """Free the context."""
        if self._pointer:
            self._c.llama_free(self._pointer)
            self._pointer = None

    def _run(self, batch: Any) -> None:
        status = self._c.llama_decode(self._pointer, batch)
        if self.spread is not None:
            self.spread.check()
        if status == LLAMA_DECODE_NO_MEMORY:
            raise DoesNotFit("the engine ran out of memory", hint="use a smaller --ctx-size, or --kv q8_0")
        if status != 0:
            why = "the context is full" if status == LLAMA_DECODE_NO_SLOT else f"llama_decode returned {status}"
            raise EngineError("the computation failed", why=why, status=status)

    def _state(self, seq: int) -> npt.NDArray[np.uint8]:
        """Return a copy of the cache of a sequence."""
        state = np.empty(self._c.llama_state_seq_get_size(self._pointer, seq), np.uint8)
        written = self._c.llama_state_seq_get_data(self._pointer, _bytes_of(state), state.size, seq)
        if self.spread is not None:
            self.spread.check()
        if written != state.size or not written:
            raise EngineError("the engine cannot copy the state of a sequence")
        return state

    def _restore(self, seq: int, state: npt.NDArray[np.uint8]) -> bool:
        """Replace the cache of a sequence; empty if the engine refuses the state."""
        self._c.llama_memory_seq_rm(self._memory, seq, -1, -1)
        read = self._c.llama_state_seq_set_data(self._pointer, _bytes_of(state), state.size, seq)
        if 0 < read == state.size:
            return True
        self._c.llama_memory_seq_rm(self._memory, seq, -1, -1)
        return False

    def _row(self, index: int) -> npt.NDArray[np.float32]:
        """Return a copy of the logits [n_vocab] of one token of the last batch; `NotFinite` if they are no numbers."""
        pointer = self._c.llama_get_logits_ith(self._pointer, index)
        row = np.ctypeslib.as_array(pointer, shape=(self._n_vocab,)).copy()
        require_finite(row, self._name)
        return row

    @property
    def can_truncate(self) -> bool:
        """Whether the cache can be truncated; see `base.Context`."""
        model = self._c.llama_get_model(self._pointer)
        return not (self._c.llama_model_is_recurrent(model) or self._c.llama_model_is_hybrid(model))

    @property
    def _n_vocab(self) -> int:
        model = self._c.llama_get_model(self._pointer)
        return int(self._c.llama_vocab_n_tokens(self._c.llama_model_get_vocab(model)))


def _bytes_of(state: npt.NDArray[np.uint8]) -> Any:
    """The address of an array, as the bindings want it."""
    return state.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


class LlamaContext(_EngineContext):
    """One sequence of a model; `tokens` mirrors the contents of the KV cache."""

    def __init__(self, c: Any, pointer: Any, n_ctx: int, name: str, grammars: GrammarWatch) -> None:
        super().__init__(c, pointer, n_ctx, name)
        self._grammars = grammars
        self.tokens: list[int] = []

    def keep(self, n_tokens: int) -> int:
        """Truncate the cache; a recurrent state cannot be truncated and is cleared instead."""
        if not self._pointer:  # closed, while an answer was under way
            n_tokens = 0
        elif not self._c.llama_memory_seq_rm(self._memory, 0, n_tokens, -1):
            self._c.llama_memory_clear(self._memory, True)
            n_tokens = 0
        del self.tokens[n_tokens:]
        return n_tokens

    def state(self) -> npt.NDArray[np.uint8]:
        """Return a copy of the cache; see `base.Context`."""
        return self._state(0)

    def restore(self, tokens: Sequence[int], state: npt.NDArray[np.uint8]) -> bool:
        """Replace the cache; see `base.Context`."""
        is_restored = self._restore(0, state)
        self.tokens = list(tokens) if is_restored else []
        return is_restored

    def decode(self, tokens: Sequence[int], *, every_logits: bool = False) -> None:
        """Append tokens; see `base.Context`."""
        self._compute(tokens, every_logits=every_logits)

    def score(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append tokens and return the logits of each; see `base.Context`.

        Raises:
            UnsupportedModel: the model does not predict tokens (an embedding model).
            NotFinite: they are no numbers.
        """
        self._compute(tokens, every_logits=True)
        pointer = self._c.llama_get_logits(self._pointer)
        if not pointer:
            raise UnsupportedModel("the model has no logits", why="it is an embedding model, which predicts no tokens")
        rows = np.ctypeslib.as_array(pointer, shape=(len(tokens), self._n_vocab)).copy()
        require_finite(rows, self._name)
        return rows

    def _compute(self, tokens: Sequence[int], *, every_logits: bool) -> None:
        if not 0 < len(tokens) <= self.n_batch:
            raise ValueError(f"decode takes 1 to {self.n_batch} tokens, not {len(tokens)}")
        array = (self._c.llama_token * len(tokens))(*tokens)
        batch = self._c.llama_batch_get_one(array, len(tokens))
        if every_logits:
            batch.logits = (ctypes.c_int8 * len(tokens))(*[1] * len(tokens))
        self._run(batch)
        self.tokens.extend(tokens)

    def logits(self) -> npt.NDArray[np.float32]:
        """Return a copy of the logits [n_vocab] after the last token."""
        return self._row(-1)

    def abort_when(self, condition: Callable[[], bool] | None) -> None:
        """Poll between the operations of a computation; see `base.Context`."""
        kind = self._c.ggml_abort_callback
        self._abort = kind(lambda _: condition()) if condition else kind()  # C keeps the address
        self._c.llama_set_abort_callback(self._pointer, self._abort, None)

    def open_sampler(self, sampling: Sampling, history: Sequence[int] = ()) -> LlamaSampler:
        """Return a chain of samplers in llama.cpp's order; see `base.Context`."""
        return LlamaSampler(self._c, self._pointer, sampling, history, lambda: -1, self._grammars, self._name)


class LlamaSequences(_EngineContext):
    """Several sequences of a model, computed together; `tokens` mirrors the contents of their KV caches."""

    def __init__(self, c: Any, pointer: Any, n_seq: int, n_ctx: int, name: str, grammars: GrammarWatch) -> None:
        super().__init__(c, pointer, n_ctx, name)
        self._grammars = grammars
        self.n_seq = n_seq
        self.tokens: list[list[int]] = [[] for _ in range(n_seq)]
        self._batch = c.llama_batch_init(self.n_batch, 0, 1)
        self._rows: dict[int, int] = {}

    def keep(self, seq: int, n_tokens: int) -> int:
        """Truncate one sequence's cache; a recurrent state cannot be truncated and is cleared instead."""
        if not self._c.llama_memory_seq_rm(self._memory, seq, n_tokens, -1):
            self._c.llama_memory_seq_rm(self._memory, seq, -1, -1)
            n_tokens = 0
        del self.tokens[seq][n_tokens:]
        return n_tokens

    def copy(self, source: int, target: int, n_tokens: int) -> int:
        """Copy a cache and truncate the copy; the engine copies the whole cache in the next `decode`."""
        self._c.llama_memory_seq_rm(self._memory, target, -1, -1)
        self._c.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self.tokens[target] = list(self.tokens[source])
        return self.keep(target, n_tokens) if n_tokens < len(self.tokens[target]) else len(self.tokens[target])

    def state(self, seq: int) -> npt.NDArray[np.uint8]:
        """Return a copy of the cache of a sequence; see `base.Sequences`."""
        return self._state(seq)

    def restore(self, seq: int, tokens: Sequence[int], state: npt.NDArray[np.uint8]) -> bool:
        """Replace the cache of a sequence; see `base.Sequences`."""
        is_restored = self._restore(seq, state)
        self.tokens[seq] = list(tokens) if is_restored else []
        return is_restored

    def decode(self, tokens: Mapping[int, Sequence[int]], *, every_logits: bool = False) -> None:
        """Append tokens to some of the sequences; see `base.Sequences`."""
        self._compute(tokens, every_logits=every_logits)

    def score(self, tokens: Mapping[int, Sequence[int]]) -> dict[int, npt.NDArray[np.float32]]:
        """Append tokens and return the logits of each; see `base.Sequences`.

        Raises:
            NotFinite: they are no numbers.
        """
        self._compute(tokens, every_logits=True)
        pointer = self._c.llama_get_logits(self._pointer)
        rows = np.ctypeslib.as_array(pointer, shape=(sum(map(len, tokens.values())), self._n_vocab)).copy()
        require_finite(rows, self._name)
        return {seq: rows[self._rows[seq] + 1 - len(added) : self._rows[seq] + 1] for seq, added in tokens.items()}

    def _compute(self, tokens: Mapping[int, Sequence[int]], *, every_logits: bool) -> None:
        total = sum(map(len, tokens.values()))
        if not 0 < total <= self.n_batch or not all(tokens.values()):
            raise ValueError(f"decode takes 1 to {self.n_batch} tokens, at least one a sequence, not {total}")
        if not tokens.keys() <= set(range(self.n_seq)):
            raise ValueError(f"sequences are numbered 0 to {self.n_seq - 1}, not {sorted(tokens)}")
        if any(len(self.tokens[seq]) + len(added) > self.n_ctx for seq, added in tokens.items()):
            raise EngineError("the computation failed", why="the context is full")
        batch, index = self._batch, 0
        self._rows = {}
        for seq, added in sorted(tokens.items()):  # the engine computes sequences with consecutive numbers together
            for position, token in enumerate(added, len(self.tokens[seq])):
                batch.token[index], batch.pos[index] = token, position
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, seq
                batch.logits[index] = every_logits
                index += 1
            batch.logits[index - 1] = 1
            self._rows[seq] = index - 1
        batch.n_tokens = total
        self._run(batch)
        for seq, added in tokens.items():
            self.tokens[seq].extend(added)

    def logits(self, seq: int) -> npt.NDArray[np.float32]:
        """Return a copy of the logits [n_vocab] after the last token of a sequence."""
        return self._row(self._rows[seq])

    def open_sampler(self, seq: int, sampling: Sampling, history: Sequence[int] = ()) -> LlamaSampler:
        """Return a chain of samplers for one sequence; see `base.Sequences`."""
        c, pointer, grammars = self._c, self._pointer, self._grammars
        return LlamaSampler(c, pointer, sampling, history, lambda: self._rows[seq], grammars, self._name)

    def close(self) -> None:
        """Free the context and its batch."""
        if self._pointer:
            self._c.llama_batch_free(self._batch)
        super().close()


class _PooledContext(_EngineContext):
    """Computes several texts at once, each as its own sequence, and pools the tokens of each."""

    def __init__(self, c: Any, pointer: Any, n_seq: int, n_ctx: int, name: str) -> None:
        super().__init__(c, pointer, n_ctx, name)
        self.n_seq = n_seq
        self._batch = c.llama_batch_init(n_ctx, 0, 1)

    def _compute(self, texts: Sequence[Sequence[int]]) -> None:
        total = sum(map(len, texts))
        if not 0 < len(texts) <= self.n_seq or not all(texts) or total > self.n_ctx:
            raise ValueError(f"1 to {self.n_seq} texts of {self.n_ctx} tokens together, not {len(texts)} of {total}")
        self._c.llama_memory_clear(self._memory, False)
        batch, index = self._batch, 0
        for seq, tokens in enumerate(texts):
            for position, token in enumerate(tokens):
                batch.token[index], batch.pos[index], batch.logits[index] = token, position, 1
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, seq
                index += 1
        batch.n_tokens = total
        self._run(batch)

    def _pooled(self, seq: int, size: int) -> npt.NDArray[np.float32]:
        """A copy of the first `size` numbers that the engine has for a sequence; more than it has must not be read."""
        pointer = self._c.llama_get_embeddings_seq(self._pointer, seq)
        if not pointer:
            raise UnsupportedModel("the model returns no vectors", why="its token vectors are not pooled")
        return np.ctypeslib.as_array(pointer, shape=(size,)).copy()

    def close(self) -> None:
        """Free the context and its batch."""
        if self._pointer:
            self._c.llama_batch_free(self._batch)
        super().close()


class LlamaEmbedder(_PooledContext):
    """Computes vectors of texts."""

    def __init__(self, c: Any, pointer: Any, n_seq: int, n_ctx: int, name: str, n_embd: int) -> None:
        super().__init__(c, pointer, n_seq, n_ctx, name)
        self.n_embd = n_embd

    def embed(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return the vectors of some texts; see `base.Embedder`."""
        self._compute(texts)
        return np.stack([self._vector(seq) for seq in range(len(texts))])

    def _vector(self, seq: int) -> npt.NDArray[np.float32]:
        vector = self._pooled(seq, self.n_embd)
        length = np.float32(np.linalg.norm(vector))
        if not np.isfinite(length):
            raise not_finite(self._name)
        vector /= length or np.float32(1)
        return vector


class LlamaRanker(_PooledContext):
    """Computes the scores of pairs of texts."""

    def rank(self, pair: Sequence[int]) -> float:
        """Return the score of a pair; see `base.Ranker`.

        Raises:
            NotFinite: it is no number.
        """
        self._compute([pair])
        score = self._pooled(0, 1)  # of several classes, the first one says that the text answers
        require_finite(score, self._name)
        return float(score[0])
