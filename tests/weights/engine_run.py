"""Runs a converted file in the engine: tokens, logits and embeddings, with a float32 KV cache.

with Loaded(llama, path) as model:
    logits = model.logits(model.tokenize("the cat"))
"""

from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Loaded:
    """One model in memory."""

    def __init__(self, llama: ModuleType, path: Path) -> None:
        self._llama = llama
        self._model = llama.llama_model_load_from_file(str(path).encode(), llama.llama_model_default_params())
        assert self._model, f"the engine refuses {path}"
        self._vocab = llama.llama_model_get_vocab(self._model)

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._llama.llama_model_free(self._model)

    def tokenize(self, text: str, *, add_special: bool = True) -> list[int]:
        tokens = (self._llama.llama_token * 256)()
        data = text.encode()
        n = self._llama.llama_tokenize(self._vocab, data, len(data), tokens, len(tokens), add_special, True)
        return list(tokens[:n])

    def logits(self, tokens: list[int]) -> Floats:
        """Logits [tokens, vocabulary]."""
        context = self._context()
        self._decode(context, tokens)
        n_vocab = self._llama.llama_vocab_n_tokens(self._vocab)
        logits = np.ctypeslib.as_array(self._llama.llama_get_logits(context), (len(tokens), n_vocab)).copy()
        self._llama.llama_free(context)
        return logits

    def embedding(self, tokens: list[int]) -> Floats:
        """The pooled vector of a text, of length 1."""
        context = self._context(embeddings=True)
        self._decode(context, tokens)
        n_embd = self._llama.llama_model_n_embd(self._model)
        vector = np.ctypeslib.as_array(self._llama.llama_get_embeddings_seq(context, 0), (n_embd,)).copy()
        self._llama.llama_free(context)
        return vector / np.sqrt((vector**2).sum())

    def _context(self, *, embeddings: bool = False) -> Any:
        parameters = self._llama.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = 64
        parameters.n_threads = parameters.n_threads_batch = 2
        parameters.type_k = parameters.type_v = self._llama.GGML_TYPE_F32
        parameters.flash_attn_type = 0
        parameters.embeddings = embeddings
        return self._llama.llama_init_from_model(self._model, parameters)

    def _decode(self, context: Any, tokens: list[int]) -> None:
        batch = self._llama.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = token, i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        assert self._llama.llama_decode(context, batch) == 0
        self._llama.llama_batch_free(batch)


def relative_rmse(logits: Floats, reference: Floats) -> Floats:
    """Return, for every position, the RMS of the difference divided by the RMS of the reference."""
    return np.sqrt(((logits - reference) ** 2).mean(-1) / (reference**2).mean(-1))


def divergence(logits: Floats, reference: Floats) -> float:
    """The mean KL divergence over all positions, in nats."""
    p, q = (y - y.max(-1, keepdims=True) for y in (reference.astype(np.float64), logits.astype(np.float64)))
    p, q = (y - np.log(np.exp(y).sum(-1, keepdims=True)) for y in (p, q))
    return float((np.exp(p) * (p - q)).sum(-1).mean())
