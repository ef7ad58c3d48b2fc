"""A scripted engine without weights, for tests of the layers above the engine.

    model = FakeModel(answers=["Hello!"])

Tokens are the bytes of UTF-8 text plus one end token. Answers come in turn, byte by byte, so characters arrive
split, as they can from a real model. Logits depend only on the last token and come from a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from edgellm.engine.adapters import Adapter
from edgellm.engine.base import ModelInfo
from edgellm.engine.sampling import Sampling

END = 256
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"


class FakeSampler:
    """Returns scripted tokens; `opened` is the sampling it was opened with."""

    def __init__(self, next_token: Callable[[], int], opened: Sampling) -> None:
        self._next_token = next_token
        self.opened = opened

    def sample(self, row: int = -1) -> int:
        """Return the next token of the script."""
        return self._next_token()

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


class FakeContext:
    """Stores tokens; `decoded` lists the number of tokens of each `decode`."""

    can_truncate = True

    def __init__(self, model: FakeModel, n_ctx: int, n_batch: int) -> None:
        self.n_ctx = n_ctx
        self.n_batch = n_batch
        self.tokens: list[int] = []
        self.decoded: list[int] = []
        self._model = model
        self._answer: list[int] = []
        self._position = 0

    def keep(self, n_tokens: int) -> int:
        """Truncate the tokens, and return how many are left."""
        del self.tokens[n_tokens:]
        return n_tokens

    def decode(self, tokens: Sequence[int], *, every_logits: bool = False) -> None:
        """Append tokens and record their number."""
        if not 0 < len(tokens) <= self.n_batch or len(self.tokens) + len(tokens) > self.n_ctx:
            raise ValueError("more tokens than fit")
        self.tokens.extend(tokens)
        self.decoded.append(len(tokens))

    def state(self) -> npt.NDArray[np.uint8]:
        """Return the tokens, a byte each."""
        return np.array(self.tokens, np.uint8)

    def restore(self, tokens: Sequence[int], state: npt.NDArray[np.uint8]) -> bool:
        """Take over the tokens, if the state is theirs."""
        fits = len(tokens) <= self.n_ctx and state.tolist() == [token % 256 for token in tokens]
        self.tokens = list(tokens) if fits else []
        return fits

    def score(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append tokens, and return the table's row for each."""
        self.decode(tokens)
        return np.stack([self._model.table[token] for token in tokens])

    def logits(self) -> npt.NDArray[np.float32]:
        """Return the table's row for the last token."""
        return np.array(self._model.table[self.tokens[-1]])

    def abort_when(self, condition: Callable[[], bool] | None) -> None:
        """Do nothing: no computation takes long."""

    def open_sampler(self, sampling: Sampling, history: Sequence[int] = ()) -> FakeSampler:
        """Return a sampler that follows the script of the next answer."""
        self._answer = []
        return FakeSampler(self.next_token, sampling)

    def next_token(self) -> int:
        """Return the next byte of the current answer, or the end token."""
        if not self._answer:
            self._answer = [*self._model.next_answer().encode(), END]
            self._position = 0
        token = self._answer[self._position]
        self._position += 1
        return token

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


class FakeSequences:
    """Several sequences; the answer of each is the model's `reply` to the tokens before it.

    `decoded` lists the token counts by sequence of each `decode`, `copied` the token count of each copy.
    """

    can_truncate = True

    def __init__(self, model: FakeModel, n_seq: int, n_ctx: int, n_batch: int) -> None:
        self.n_seq, self.n_ctx, self.n_batch = n_seq, n_ctx, n_batch
        self.tokens: list[list[int]] = [[] for _ in range(n_seq)]
        self.decoded: list[dict[int, int]] = []
        self.copied: list[tuple[int, int, int]] = []
        self._model = model

    def keep(self, seq: int, n_tokens: int) -> int:
        """Truncate a sequence, and return how many tokens are left."""
        del self.tokens[seq][n_tokens:]
        return n_tokens

    def state(self, seq: int) -> npt.NDArray[np.uint8]:
        """Return the tokens, a byte each."""
        return np.array(self.tokens[seq], np.uint8)

    def restore(self, seq: int, tokens: Sequence[int], state: npt.NDArray[np.uint8]) -> bool:
        """Take over the tokens, if the state is theirs."""
        fits = len(tokens) <= self.n_ctx and state.tolist() == [token % 256 for token in tokens]
        self.tokens[seq] = list(tokens) if fits else []
        return fits

    def copy(self, source: int, target: int, n_tokens: int) -> int:
        """Copy the beginning of a sequence to another one."""
        self.tokens[target] = self.tokens[source][:n_tokens]
        self.copied.append((source, target, n_tokens))
        return n_tokens

    def decode(self, tokens: Mapping[int, Sequence[int]], *, every_logits: bool = False) -> None:
        """Append tokens and record their number."""
        counts = {seq: len(added) for seq, added in tokens.items()}
        if not 0 < sum(counts.values()) <= self.n_batch or not all(counts.values()):
            raise ValueError("more tokens than fit, or none")
        for seq, added in tokens.items():
            if len(self.tokens[seq]) + len(added) > self.n_ctx:
                raise ValueError("more tokens than fit")
            self.tokens[seq].extend(added)
        self.decoded.append(counts)

    def score(self, tokens: Mapping[int, Sequence[int]]) -> dict[int, npt.NDArray[np.float32]]:
        """Append tokens, and return the table's row for each."""
        self.decode(tokens)
        return {seq: np.stack([self._model.table[token] for token in added]) for seq, added in tokens.items()}

    def logits(self, seq: int) -> npt.NDArray[np.float32]:
        """Return the table's row for the last token."""
        return np.array(self._model.table[self.tokens[seq][-1]])

    def open_sampler(self, seq: int, sampling: Sampling, history: Sequence[int] = ()) -> FakeSampler:
        """Return a sampler that produces the reply to the history."""
        reply = iter([*self._model.reply(bytes(history).decode(errors="replace")).encode(), END])
        return FakeSampler(lambda: next(reply), sampling)

    def set_threads(self, n_threads: int) -> None:
        """Do nothing: there are no threads."""

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


class FakeEmbedder:
    """Returns vectors that hold only the number of tokens of a text."""

    def __init__(self, n_seq: int, n_ctx: int) -> None:
        self.n_seq, self.n_ctx = n_seq, n_ctx

    def embed(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """Return the vector [number of tokens, 0, 0, 0] of each text."""
        if len(texts) > self.n_seq or sum(map(len, texts)) > self.n_ctx:
            raise ValueError("more than fits")
        return np.array([[len(tokens), 0, 0, 0] for tokens in texts], np.float32)

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


class FakeRanker:
    """Prefers short texts: the score is the number of tokens, negated."""

    def __init__(self, n_ctx: int) -> None:
        self.n_ctx = n_ctx

    def rank(self, pair: Sequence[int]) -> float:
        """Return the score of a pair."""
        if len(pair) > self.n_ctx:
            raise ValueError("more than fits")
        return -float(len(pair))

    def close(self) -> None:
        """Do nothing: there is no memory to free."""


class FakeModel:
    """Gives scripted answers in turn and then repeats the last one; `table` holds logits [last token, next token].

    `replies` are a batch's answers by a part of the prompt; the first that stands in it counts.
    """

    def __init__(
        self,
        answers: Sequence[str] = ("Hello!",),
        *,
        chat_template: str = TEMPLATE,
        n_ctx_train: int = 4096,
        table: npt.NDArray[np.float32] | None = None,
        replies: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._answers = list(answers)
        self._replies = replies
        self.table = np.zeros((END + 1, END + 1), np.float32) if table is None else table
        self.info = ModelInfo(Path("fake.gguf"), "fake", "F32", 0, 0, n_ctx_train, END + 1, chat_template, "", "")

    def reply(self, prompt: str) -> str:
        """Return the answer to a prompt in a batch; it does not depend on the order of the prompts."""
        scripted = (answer for part, answer in self._replies.items() if part in prompt)
        return next(scripted, f"{self._answers[0]} {prompt[-8:]}")

    def next_answer(self) -> str:
        """Return the next scripted answer."""
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def tokenize(self, text: str, *, special: bool = False, bos: bool = True) -> list[int]:
        """Return the bytes of the text."""
        return list(text.encode())

    def tokenize_input(self, text: str) -> list[int]:
        """Return the bytes of the text."""
        return self.tokenize(text)

    def tokenize_pair(self, question: str, text: str) -> list[int]:
        """Return the bytes of both."""
        return self.tokenize(question + text)

    def piece(self, token: int) -> bytes:
        """Return the token's single byte, or b"" for the end token."""
        return bytes([token]) if token < END else b""

    def token_text(self, token: int) -> str:
        """Return a byte as a character, or the end token's name."""
        return chr(token) if token < END else "<end>"

    def is_end(self, token: int) -> bool:
        """Whether it is the end token."""
        return token == END

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
    ) -> FakeContext:
        """Return an empty context."""
        return FakeContext(self, n_ctx, n_batch)

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
    ) -> FakeSequences:
        """Return `n_seq` empty sequences."""
        return FakeSequences(self, n_seq, n_ctx, n_batch)

    def use_adapters(self, adapters: Sequence[Adapter]) -> None:
        """Do nothing: it has no weights."""

    def open_embedder(self, *, n_seq: int, n_ctx: int, n_threads: int) -> FakeEmbedder:
        """Return an embedder with vectors of four numbers."""
        return FakeEmbedder(n_seq, n_ctx)

    def open_ranker(self, *, n_ctx: int, n_threads: int) -> FakeRanker:
        """Return a ranker that prefers short texts."""
        return FakeRanker(n_ctx)

    def close(self) -> None:
        """Do nothing: there is no memory to free."""
