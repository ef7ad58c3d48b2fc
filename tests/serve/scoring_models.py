"""A model that puts BOS before every text: random weights in F32, so that no rounding hides a shift."""

from pathlib import Path

import numpy as np

from edgellm.engine.base import Model
from edgellm.formats.gguf_file import GGUFFile
from tests.engine import tiny_models


def write_bos_model(path: Path, vocabularies: Path) -> Path:
    """A tiny BitNet over llama's SentencePiece vocabulary, whose greedy choices are far from certain."""
    tiny_models.write_bitnet(path, vocabularies, vocabulary="llama-spm")
    with GGUFFile.open(path) as source:
        assert source.get_int("tokenizer.ggml.bos_token_id") == 1
    return path


def log_probabilities(model: Model, tokens: list[int], n_batch: int) -> list[float]:
    """Of every token but the first, in float64 from logits that are computed with the engine itself."""
    context = model.open_context(n_ctx=512, n_batch=n_batch, n_threads=2)
    try:
        rows = [context.score(tokens[start : start + n_batch]) for start in range(0, len(tokens), n_batch)]
    finally:
        context.close()
    logits = np.concatenate(rows).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return [float(logits[index, token]) for index, token in enumerate(tokens[1:])]
