"""Returns the engine's logits of a whole sequence, with a float32 KV cache and various ways of loading.

logits(llama, path, [1, 2, 3], use_mmap=False)      # float32 [tokens, vocabulary]
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engine.llama import LlamaEngine


def logits(
    llama: LlamaEngine,
    path: Path,
    tokens: Sequence[int],
    *,
    use_mmap: bool = True,
    extra_bufts: bool = True,
    n_threads: int = 2,
    n_batch: int = 512,
) -> npt.NDArray[np.float32]:
    c = llama._c
    loading = c.llama_model_default_params()
    loading.load_mode = c.LLAMA_LOAD_MODE_MMAP if use_mmap else c.LLAMA_LOAD_MODE_NONE
    loading.use_extra_bufts = extra_bufts
    model = c.llama_model_load_from_file(str(path).encode(), loading)
    assert model, list(llama.messages)

    running = c.llama_context_default_params()
    running.n_ctx, running.n_batch, running.n_ubatch = 256, n_batch, n_batch
    running.n_threads = running.n_threads_batch = n_threads
    running.type_k = running.type_v = c.GGML_TYPE_F32
    running.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = c.llama_init_from_model(model, running)
    n_vocab = c.llama_vocab_n_tokens(c.llama_model_get_vocab(model))
    try:
        starts = range(0, len(tokens), n_batch)
        return np.concatenate([_decode(c, context, tokens[i : i + n_batch], i, n_vocab) for i in starts])
    finally:
        c.llama_free(context)
        c.llama_model_free(model)


def _decode(c: Any, context: int, tokens: Sequence[int], first: int, n_vocab: int) -> npt.NDArray[np.float32]:
    batch = c.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for i, token in enumerate(tokens):
        batch.token[i], batch.pos[i] = token, first + i
        batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
    assert c.llama_decode(context, batch) == 0
    rows = np.ctypeslib.as_array(c.llama_get_logits(context), (len(tokens), n_vocab)).copy()
    c.llama_batch_free(batch)
    return rows
