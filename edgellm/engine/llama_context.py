"""Computing with llama.cpp: one sequence, several at once, or vectors of texts, each over a context of a loaded model.

    context = LlamaContext(bindings, pointer, n_ctx=4096)
    context.decode([1, 2, 3])

They get the low-level bindings and their context from `engine.llama`, which owns them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engine.base import Sampling
from edgellm.engine.llama_sampler import LlamaSampler
from edgellm.errors import DoesNotFit, EngineError, UnsupportedModel

LLAMA_DECODE_NO_SLOT, LLAMA_DECODE_NO_MEMORY = 1, -2


class _Computing:
    """What one sequence and several have in common: the engine's context, its threads, and how it fails."""

    def __init__(self, c: Any, pointer: Any, n_ctx: int) -> None:
        self._c = c
        self._pointer = pointer
        self._memory = c.llama_get_memory(pointer)
        self.n_ctx = n_ctx
        self.n_batch: int = c.llama_n_batch(pointer)

    def set_threads(self, n_threads: int) -> None:
        """Compute with so many threads from now on."""
        self._c.llama_set_n_threads(self._pointer, n_threads, n_threads)

    def close(self) -> None:
        """Free the context."""
        if self._pointer:
            self._c.llama_free(self._pointer)
            self._pointer = None

    def _run(self, batch: Any) -> None:
        status = self._c.llama_decode(self._pointer, batch)
        if status == LLAMA_DECODE_NO_MEMORY:
            raise DoesNotFit("the memory ran out while computing", hint="a smaller --ctx-size, or --kv q8_0")
        if status != 0:
            why = "the context is full" if status == LLAMA_DECODE_NO_SLOT else f"llama_decode returned {status}"
            raise EngineError("the engine failed while computing", why=why, status=status)

    def _row(self, index: int) -> npt.NDArray[np.float32]:
        """Logits [n_vocab] of one token of the last batch, a copy."""
        pointer = self._c.llama_get_logits_ith(self._pointer, index)
        return np.ctypeslib.as_array(pointer, shape=(self._n_vocab,)).copy()

    @property
    def _n_vocab(self) -> int:
        model = self._c.llama_get_model(self._pointer)
        return int(self._c.llama_vocab_n_tokens(self._c.llama_model_get_vocab(model)))


class LlamaContext(_Computing):
    """One sequence over a model; `tokens` mirrors what the KV cache holds."""

    def __init__(self, c: Any, pointer: Any, n_ctx: int) -> None:
        super().__init__(c, pointer, n_ctx)
        self.tokens: list[int] = []

    def keep(self, n_tokens: int) -> int:
        """Cut the cache; a recurrent state cannot be cut and is cleared instead."""
        if not self._c.llama_memory_seq_rm(self._memory, 0, n_tokens, -1):
            self._c.llama_memory_clear(self._memory, True)
            n_tokens = 0
        del self.tokens[n_tokens:]
        return n_tokens

    def decode(self, tokens: Sequence[int]) -> None:
        """Append tokens; see `base.Context`."""
        self._compute(tokens, every_logits=False)

    def score(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append tokens, with the logits of each; see `base.Context`.

        Raises:
            UnsupportedModel: the model predicts no tokens (an embedding model).
        """
        self._compute(tokens, every_logits=True)
        pointer = self._c.llama_get_logits(self._pointer)
        if not pointer:
            raise UnsupportedModel("the model gives no logits", why="it predicts no next token, as embedding models do")
        return np.ctypeslib.as_array(pointer, shape=(len(tokens), self._n_vocab)).copy()

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
        """Logits [n_vocab] after the last token."""
        return self._row(-1)

    def abort_when(self, wanted: Callable[[], bool] | None) -> None:
        """Ask between the operations of a computation; see `base.Context`."""
        kind = self._c.ggml_abort_callback
        self._abort = kind(lambda _: wanted()) if wanted else kind()  # C keeps the address
        self._c.llama_set_abort_callback(self._pointer, self._abort, None)

    def open_sampler(self, sampling: Sampling, history: Sequence[int] = ()) -> LlamaSampler:
        """A chain of samplers in llama.cpp's order."""
        return LlamaSampler(self._c, self._pointer, sampling, history, lambda: -1)


class LlamaSequences(_Computing):
    """Several sequences over a model, computed together; `tokens` mirrors what the KV cache of each holds."""

    def __init__(self, c: Any, pointer: Any, n_seq: int, n_ctx: int) -> None:
        super().__init__(c, pointer, n_ctx)
        self.n_seq = n_seq
        self.tokens: list[list[int]] = [[] for _ in range(n_seq)]
        self._batch = c.llama_batch_init(self.n_batch, 0, 1)
        self._rows: dict[int, int] = {}

    def keep(self, seq: int, n_tokens: int) -> int:
        """Cut the cache of one sequence; a recurrent state cannot be cut and is cleared instead."""
        if not self._c.llama_memory_seq_rm(self._memory, seq, n_tokens, -1):
            self._c.llama_memory_seq_rm(self._memory, seq, -1, -1)
            n_tokens = 0
        del self.tokens[seq][n_tokens:]
        return n_tokens

    def copy(self, source: int, target: int, n_tokens: int) -> int:
        """Copy a cache, which the engine does in whole and with the next `decode`, and cut the copy."""
        self._c.llama_memory_seq_rm(self._memory, target, -1, -1)
        self._c.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self.tokens[target] = list(self.tokens[source])
        return self.keep(target, n_tokens) if n_tokens < len(self.tokens[target]) else len(self.tokens[target])

    def decode(self, tokens: Mapping[int, Sequence[int]]) -> None:
        """Append tokens to some of the sequences; see `base.Sequences`."""
        total = sum(map(len, tokens.values()))
        if not 0 < total <= self.n_batch or not all(tokens.values()):
            raise ValueError(f"decode takes 1 to {self.n_batch} tokens, at least one a sequence, not {total}")
        if not tokens.keys() <= set(range(self.n_seq)):
            raise ValueError(f"sequences are numbered 0 to {self.n_seq - 1}, not {sorted(tokens)}")
        if any(len(self.tokens[seq]) + len(added) > self.n_ctx for seq, added in tokens.items()):
            raise EngineError("the engine failed while computing", why="the context is full")
        batch, index = self._batch, 0
        self._rows = {}
        for seq, added in sorted(tokens.items()):  # those whose numbers follow each other are computed at once
            for position, token in enumerate(added, len(self.tokens[seq])):
                batch.token[index], batch.pos[index] = token, position
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, seq
                batch.logits[index] = 0
                index += 1
            batch.logits[index - 1] = 1
            self._rows[seq] = index - 1
        batch.n_tokens = total
        self._run(batch)
        for seq, added in tokens.items():
            self.tokens[seq].extend(added)

    def logits(self, seq: int) -> npt.NDArray[np.float32]:
        """Logits [n_vocab] after the last token of a sequence."""
        return self._row(self._rows[seq])

    def open_sampler(self, seq: int, sampling: Sampling, history: Sequence[int] = ()) -> LlamaSampler:
        """A chain of samplers for one sequence."""
        return LlamaSampler(self._c, self._pointer, sampling, history, lambda: self._rows[seq])

    def close(self) -> None:
        """Free the context and its batch."""
        if self._pointer:
            self._c.llama_batch_free(self._batch)
        super().close()


class LlamaEmbedder(_Computing):
    """Vectors of texts, several in one computation, each a sequence of its own."""

    def __init__(self, c: Any, pointer: Any, n_seq: int, n_ctx: int, n_embd: int) -> None:
        super().__init__(c, pointer, n_ctx)
        self.n_seq, self.n_embd = n_seq, n_embd
        self._batch = c.llama_batch_init(n_ctx, 0, 1)

    def embed(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The vectors of some texts; see `base.Embedder`."""
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
        return np.stack([self._vector(seq) for seq in range(len(texts))])

    def _vector(self, seq: int) -> npt.NDArray[np.float32]:
        pointer = self._c.llama_get_embeddings_seq(self._pointer, seq)
        if not pointer:
            raise UnsupportedModel("the model gives no vectors", why="its tokens' vectors are not pooled")
        vector = np.ctypeslib.as_array(pointer, shape=(self.n_embd,)).copy()
        vector /= np.float32(np.linalg.norm(vector)) or np.float32(1)
        return vector

    def close(self) -> None:
        """Free the context and its batch."""
        if self._pointer:
            self._c.llama_batch_free(self._batch)
        super().close()
