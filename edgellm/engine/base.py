"""What the rest of edgellm knows of an engine: models, contexts, samplers; no ctypes, no llama.cpp.

    model = engine.load(path)
    context = model.open_context(n_ctx=4096, n_batch=256, n_threads=4)
    context.decode(model.tokenize("The capital of France is"))
    token = context.open_sampler(Sampling(temperature=0)).sample()

`engine.llama` is the real one, `engine.fake` a scripted one for tests of what lies above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgellm.progress import Report, silent

# An engine rounds its contexts up to a multiple of so many tokens.
CONTEXT_PADDING = 256


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; temperature 0 is greedy. The order of the steps is llama.cpp's own:
    penalties, DRY, top-k, top-p, min-p, temperature.

    The three penalties look at the last `repeat_last_n` tokens. DRY ("don't repeat yourself") looks at all tokens and
    lowers whatever would continue a sequence that was there before: `dry_multiplier` x `dry_base` to the power of
    what it is longer than `dry_allowed_length` tokens; a multiplier of 0 is off. `grammar` is GBNF whose start rule
    is `root`: only what it permits is drawn, and the answer ends when it does; empty for none.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    grammar: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a loaded model says of itself. `bos` and `eos` are token texts, empty when there is none.

    `pooled`: it makes one vector of a text, of `n_embd` numbers; such a model is for `open_embedder`.
    """

    path: Path
    architecture: str
    quant: str
    n_params: int
    n_bytes: int
    n_ctx_train: int
    n_vocab: int
    chat_template: str
    bos: str
    eos: str
    n_embd: int = 0
    pooled: bool = False


class Sampler(Protocol):
    """Chooses one sequence's tokens; holds the random state, the recent tokens for the penalties and the place in
    the grammar."""

    def sample(self) -> int:
        """The next token by the logits of the last one; it is remembered for the penalties and the grammar."""

    def close(self) -> None:
        """Give the memory back."""


class Context(Protocol):
    """One sequence and its KV cache."""

    @property
    def n_ctx(self) -> int:
        """Tokens that fit."""

    @property
    def n_batch(self) -> int:
        """Tokens that one `decode` takes at most."""

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens in the KV cache, in order."""

    def keep(self, n_tokens: int) -> int:
        """Drop what comes after the first `n_tokens`; returns how many are left (0 where a cache cannot be cut)."""

    def decode(self, tokens: Sequence[int]) -> None:
        """Append 1 to `n_batch` tokens and compute the logits of the last one."""

    def score(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """As `decode`, with the logits [len(tokens), n_vocab] after each of the tokens (a copy)."""

    def logits(self) -> npt.NDArray[np.float32]:
        """Logits [n_vocab] after the last decoded token (a copy)."""

    def abort_when(self, wanted: Callable[[], bool] | None) -> None:
        """Ask again and again while computing, which then fails once it is true; None: no longer.

        It costs some milliseconds a `decode`, too much for single tokens. What was in the cache before stays.
        """

    def open_sampler(self, sampling: Sampling, history: Sequence[int] = ()) -> Sampler:
        """A new sampler over this context; `history` are the tokens that penalties and DRY already count.

        Raises:
            UsageError: the grammar is wrong.
        """

    def set_threads(self, n_threads: int) -> None:
        """Compute with so many threads from now on."""

    def close(self) -> None:
        """Give the memory back."""


class Sequences(Protocol):
    """Several independent sequences, each with its KV cache, computed together: one reading of the weights for all."""

    @property
    def n_seq(self) -> int:
        """How many; they are named by the numbers 0 to `n_seq` - 1."""

    @property
    def n_ctx(self) -> int:
        """Tokens that fit into each."""

    @property
    def n_batch(self) -> int:
        """Tokens that one `decode` takes at most, those of all sequences together."""

    @property
    def tokens(self) -> Sequence[Sequence[int]]:
        """The tokens in the KV cache of each sequence, in order."""

    def keep(self, seq: int, n_tokens: int) -> int:
        """Drop what comes after the first `n_tokens` of a sequence; returns how many are left, as in `Context`."""

    def copy(self, source: int, target: int, n_tokens: int) -> int:
        """Let a sequence consist of just the first `n_tokens` of another, without computing them again.

        Returns how many there are, 0 where a cache cannot be cut. It costs about as much as copying a whole cache.
        """

    def decode(self, tokens: Mapping[int, Sequence[int]]) -> None:
        """Append tokens to some of the sequences and compute the logits of the last one of each of those."""

    def logits(self, seq: int) -> npt.NDArray[np.float32]:
        """Logits [n_vocab] after the last token of a sequence (a copy); it must have been in the last `decode`."""

    def open_sampler(self, seq: int, sampling: Sampling, history: Sequence[int] = ()) -> Sampler:
        """A new sampler of one sequence, as in `Context`; it samples after a `decode` that the sequence was in."""

    def set_threads(self, n_threads: int) -> None:
        """Compute with so many threads from now on."""

    def close(self) -> None:
        """Give the memory back."""


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def n_seq(self) -> int:
        """Texts that one `embed` takes at most."""

    @property
    def n_ctx(self) -> int:
        """Tokens that they may have together."""

    def embed(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The vectors [len(texts), n_embd] of some texts, given as tokens; each has length 1."""

    def close(self) -> None:
        """Give the memory back."""


class Model(Protocol):
    """Loaded weights and vocabulary."""

    @property
    def info(self) -> ModelInfo:
        """What the model says of itself."""

    def tokenize(self, text: str, *, special: bool = False, bos: bool = True) -> list[int]:
        """Token ids.

        `special`: texts such as "<|im_end|>" become control tokens; `bos`: begin as the vocabulary wants.
        """

    def tokenize_input(self, text: str) -> list[int]:
        """Token ids of a text to embed, with what the vocabulary puts before and after it."""

    def piece(self, token: int) -> bytes:
        """The bytes of a token, empty for control tokens; a character may be split over several tokens."""

    def token_text(self, token: int) -> str:
        """What the vocabulary calls a token: "<|im_end|>", say; it has its own way of writing ordinary text."""

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer."""

    def open_context(
        self, *, n_ctx: int, n_batch: int, n_threads: int, type_k: str = "F16", type_v: str = "F16"
    ) -> Context:
        """A new, empty context that computes up to `n_batch` tokens at once; its cache is kept in these types."""

    def open_sequences(
        self, *, n_seq: int, n_ctx: int, n_batch: int, n_threads: int, type_k: str = "F16", type_v: str = "F16"
    ) -> Sequences:
        """`n_seq` new, empty sequences of `n_ctx` tokens each that are computed together."""

    def open_embedder(self, *, n_seq: int, n_ctx: int, n_threads: int) -> Embedder:
        """What computes the vectors of up to `n_seq` texts at once, of `n_ctx` tokens together."""

    def close(self) -> None:
        """Give the memory back; contexts must be closed before."""


class Engine(Protocol):
    """Loads models."""

    def load(self, path: Path, *, report: Report = silent) -> Model:
        """Map and prepare a GGUF file."""
