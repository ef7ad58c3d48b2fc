"""The engine interface that the rest of edgellm uses: models, contexts and samplers, without ctypes or llama.cpp.

    model = engine.load(path)
    context = model.open_context(n_ctx=4096, n_batch=256, n_threads=4)
    context.decode(model.tokenize("The capital of France is"))
    token = context.open_sampler(Sampling(temperature=0)).sample()

`engine.llama` is the real engine; `engine.fake` is a scripted one for tests of the layers above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgellm.engine.adapters import Adapter
from edgellm.engine.sampling import Sampling
from edgellm.progress import Report, silent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgellm.engine.rpc.split import Split

# An engine rounds the size of a context up to a multiple of this many tokens.
CONTEXT_PADDING = 256


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A loaded model's description of itself. `bos` and `eos` are token texts, empty when there is none.

    `n_shared` bytes of it are not in this process's own memory, but in a packed file that processes share.
    `pooled` means that the model turns a text into one vector of `n_embd` numbers; use `open_embedder` for it. If it
    `ranks`, it turns a question and a text into one number instead; use `open_ranker`. The cache of a `recurrent` one
    cannot be truncated.
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
    ranks: bool = False
    n_shared: int = 0
    recurrent: bool = False


class Sampler(Protocol):
    """Chooses the tokens of one sequence. It holds the random state, the recent tokens for the penalties, and the
    state of the grammar."""

    def sample(self, row: int = -1) -> int:
        """Return the next token, and update the penalties and the grammar.

        It is drawn from the logits after the last token of the sequence in the last `decode`, or after an earlier one
        of that `decode` if it had `every_logits`: -2 is the last but one.
        """

    def close(self) -> None:
        """Free the memory."""


class Context(Protocol):
    """One sequence and its KV cache."""

    @property
    def n_ctx(self) -> int:
        """The number of tokens that fit in the context."""

    @property
    def n_batch(self) -> int:
        """The maximum number of tokens in one `decode`."""

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens in the KV cache, in order."""

    @property
    def can_truncate(self) -> bool:
        """Whether `keep` can leave a part of the cache; a recurrent state is kept whole or not at all."""

    def keep(self, n_tokens: int) -> int:
        """Drop all but the first `n_tokens`, and return how many are left (0 if the cache cannot be truncated)."""

    def decode(self, tokens: Sequence[int], *, every_logits: bool = False) -> None:
        """Append 1 to `n_batch` tokens and compute the logits of the last one, or of each of them."""

    def state(self) -> npt.NDArray[np.uint8]:
        """Return a copy of the KV cache, for `restore` in a context of the same kind."""

    def restore(self, tokens: Sequence[int], state: npt.NDArray[np.uint8]) -> bool:
        """Replace the KV cache with that of `tokens`; return whether it was possible, else the cache is empty.

        The state must be exactly what `state` returned: the engine computes on with a damaged one.
        """

    def score(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Like `decode`, but return a copy of the logits [len(tokens), n_vocab] after each token."""

    def logits(self) -> npt.NDArray[np.float32]:
        """Return a copy of the logits [n_vocab] after the last decoded token."""

    def abort_when(self, condition: Callable[[], bool] | None) -> None:
        """Poll `condition` during each computation, which fails once it returns True; None stops polling.

        Polling costs a few milliseconds per `decode`, too much for single tokens. An abort leaves the earlier
        contents of the cache intact.
        """

    def open_sampler(self, sampling: Sampling, history: Sequence[int] = ()) -> Sampler:
        """Return a new sampler for this context; `history` holds the tokens that penalties and DRY already count.

        Raises:
            UsageError: the grammar is invalid.
        """

    def set_threads(self, n_threads: int) -> None:
        """Set the number of threads for the following computations."""

    def close(self) -> None:
        """Free the memory."""


class Sequences(Protocol):
    """Several independent sequences, each with its own KV cache, computed together with one pass over the weights."""

    @property
    def n_seq(self) -> int:
        """The number of sequences; they are numbered 0 to `n_seq` - 1."""

    @property
    def n_ctx(self) -> int:
        """The number of tokens that fit in each sequence."""

    @property
    def n_batch(self) -> int:
        """The maximum number of tokens in one `decode`, over all sequences."""

    @property
    def tokens(self) -> Sequence[Sequence[int]]:
        """The tokens in the KV cache of each sequence, in order."""

    @property
    def can_truncate(self) -> bool:
        """Whether `keep` can leave a part of a cache, as in `Context`."""

    def keep(self, seq: int, n_tokens: int) -> int:
        """Drop all but the first `n_tokens` of a sequence, and return how many are left, as in `Context`."""

    def copy(self, source: int, target: int, n_tokens: int) -> int:
        """Replace a sequence with the first `n_tokens` of another, without computing them again.

        Return how many tokens it has now (0 if the cache cannot be truncated). The cost is that of copying a whole
        cache, or nothing if the sequences share one.
        """

    def state(self, seq: int) -> npt.NDArray[np.uint8]:
        """Return a copy of the KV cache of a sequence, as in `Context`."""

    def restore(self, seq: int, tokens: Sequence[int], state: npt.NDArray[np.uint8]) -> bool:
        """Replace the KV cache of a sequence, as in `Context`."""

    def decode(self, tokens: Mapping[int, Sequence[int]], *, every_logits: bool = False) -> None:
        """Append tokens to some of the sequences; compute the logits of the last token of each, or of every token."""

    def score(self, tokens: Mapping[int, Sequence[int]]) -> dict[int, npt.NDArray[np.float32]]:
        """Like `decode`, but return a copy of the logits [len(tokens), n_vocab] of each sequence, after each token."""

    def logits(self, seq: int) -> npt.NDArray[np.float32]:
        """Return a copy of the logits [n_vocab] after a sequence's last token; it must be in the last `decode`."""

    def open_sampler(self, seq: int, sampling: Sampling, history: Sequence[int] = ()) -> Sampler:
        """Return a new sampler for one sequence, as in `Context`; call it after a `decode` with that sequence."""

    def set_threads(self, n_threads: int) -> None:
        """Set the number of threads for the following computations."""

    def close(self) -> None:
        """Free the memory."""


class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def n_seq(self) -> int:
        """The maximum number of texts in one `embed`."""

    @property
    def n_ctx(self) -> int:
        """The maximum number of tokens of all these texts together."""

    def embed(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return the unit vectors [len(texts), n_embd] of texts given as tokens."""

    def close(self) -> None:
        """Free the memory."""


class Ranker(Protocol):
    """Says how well a text answers a question."""

    @property
    def n_ctx(self) -> int:
        """The maximum number of tokens of question and text together."""

    def rank(self, pair: Sequence[int]) -> float:
        """Return the score of a pair given as tokens; more is better, and the range is the model's."""

    def close(self) -> None:
        """Free the memory."""


class Model(Protocol):
    """Loaded weights and vocabulary."""

    @property
    def info(self) -> ModelInfo:
        """The model's description of itself."""

    def tokenize(self, text: str, *, special: bool = False, bos: bool = True) -> list[int]:
        """Return the token ids of a text.

        With `special`, texts such as "<|im_end|>" become control tokens. With `bos`, the result starts with a BOS
        token if the vocabulary asks for one.
        """

    def tokenize_input(self, text: str) -> list[int]:
        """Return the token ids of a text to embed, with the tokens that the vocabulary puts around it."""

    def tokenize_pair(self, question: str, text: str) -> list[int]:
        """Return the token ids of a question and a text to rank, as the file says that they are put together."""

    def piece(self, token: int) -> bytes:
        """Return the bytes of a token, empty for control tokens; several tokens may share one character."""

    def token_text(self, token: int) -> str:
        """Return a token as the vocabulary writes it, such as "<|im_end|>"; its spelling may differ from the text."""

    def is_end(self, token: int) -> bool:
        """Whether the token ends an answer."""

    def open_context(
        self,
        *,
        n_ctx: int,
        n_batch: int,
        n_threads: int,
        n_threads_batch: int | None = None,
        type_k: str = "F16",
        type_v: str = "F16",
        flash_attention: bool | None = None,
    ) -> Context:
        """Return a new, empty context for up to `n_batch` tokens per `decode`, with a cache of these types.

        `n_threads_batch` threads compute several tokens at once; None: as many as for one. `flash_attention` None
        leaves that to the engine, and some cache types need it or cannot have it.
        """

    def open_sequences(
        self,
        *,
        n_seq: int,
        n_ctx: int,
        n_batch: int,
        n_threads: int,
        n_threads_batch: int | None = None,
        type_k: str = "F16",
        type_v: str = "F16",
        flash_attention: bool | None = None,
        shared: bool = False,
    ) -> Sequences:
        """Return `n_seq` new, empty sequences of `n_ctx` tokens each, to be computed together.

        If `shared`, they have one cache of `n_ctx` tokens in all, in which tokens that were copied count once.
        """

    def open_embedder(self, *, n_seq: int, n_ctx: int, n_threads: int) -> Embedder:
        """Return an embedder for up to `n_seq` texts at once, with `n_ctx` tokens together."""

    def open_ranker(self, *, n_ctx: int, n_threads: int) -> Ranker:
        """Return a ranker for pairs of up to `n_ctx` tokens."""

    def use_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Load adapters, which contexts that are opened afterwards compute with.

        Raises:
            UnsupportedModel: the engine rejects one.
        """

    def close(self) -> None:
        """Free the memory; close all contexts first."""


class Engine(Protocol):
    """Loads GGUF files as models."""

    def load(self, path: Path, *, report: Report = silent, split: Split | None = None) -> Model:
        """Map and prepare a GGUF file; with a `split`, workers hold a part of it."""


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the common beginning of two sequences."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
