"""A scripted engine without weights, for tests of what lies above an engine.

    model = FakeModel(answers=["Hello!"])

Tokens are the bytes of UTF-8 text plus one end token; each answer is given in turn, byte by byte, so characters
arrive split exactly as they can from a real model. Logits come from a table by the last token alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.engine.base import ModelInfo, Sampling

END = 256
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}<assistant>"


class FakeSampler:
    """Gives scripted tokens; `opened` is the sampling it was made for."""

    def __init__(self, next_token: Callable[[], int], opened: Sampling) -> None:
        self._next_token = next_token
        self.opened = opened

    def sample(self) -> int:
        """The next token of the script."""
        return self._next_token()

    def close(self) -> None:
        """Nothing to free."""


class FakeContext:
    """Keeps tokens; `decoded` counts what was computed, call by call."""

    def __init__(self, model: FakeModel, n_ctx: int, n_batch: int) -> None:
        self.n_ctx = n_ctx
        self.n_batch = n_batch
        self.tokens: list[int] = []
        self.decoded: list[int] = []
        self._model = model
        self._answer: list[int] = []
        self._position = 0

    def keep(self, n_tokens: int) -> int:
        """Cut the tokens."""
        del self.tokens[n_tokens:]
        self._answer = []
        return n_tokens

    def decode(self, tokens: Sequence[int]) -> None:
        """Append tokens."""
        if not 0 < len(tokens) <= self.n_batch or len(self.tokens) + len(tokens) > self.n_ctx:
            raise ValueError("more tokens than fit")
        self.tokens.extend(tokens)
        self.decoded.append(len(tokens))

    def score(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        """Append tokens; the table's row of each."""
        self.decode(tokens)
        return np.stack([self._model.table[token] for token in tokens])

    def logits(self) -> npt.NDArray[np.float32]:
        """The table's row of the last token."""
        return np.array(self._model.table[self.tokens[-1]])

    def abort_when(self, wanted: Callable[[], bool] | None) -> None:
        """Nothing takes long."""

    def open_sampler(self, sampling: Sampling, history: Sequence[int] = ()) -> FakeSampler:
        """A sampler that follows the script."""
        return FakeSampler(self.next_token, sampling)

    def next_token(self) -> int:
        """The next byte of the answer whose turn it is."""
        if not self._answer:
            self._answer = [*self._model.next_answer().encode(), END]
            self._position = 0
        token = self._answer[self._position]
        self._position += 1
        return token

    def close(self) -> None:
        """Nothing to free."""


class FakeSequences:
    """Several sequences; the answer of each is what the model's `reply` makes of the tokens before it.

    `decoded` keeps the token counts of every call by sequence, `copied` those of every copy.
    """

    def __init__(self, model: FakeModel, n_seq: int, n_ctx: int, n_batch: int) -> None:
        self.n_seq, self.n_ctx, self.n_batch = n_seq, n_ctx, n_batch
        self.tokens: list[list[int]] = [[] for _ in range(n_seq)]
        self.decoded: list[dict[int, int]] = []
        self.copied: list[tuple[int, int, int]] = []
        self._model = model

    def keep(self, seq: int, n_tokens: int) -> int:
        """Cut a sequence."""
        del self.tokens[seq][n_tokens:]
        return n_tokens

    def copy(self, source: int, target: int, n_tokens: int) -> int:
        """Copy the beginning of a sequence."""
        self.tokens[target] = self.tokens[source][:n_tokens]
        self.copied.append((source, target, n_tokens))
        return n_tokens

    def decode(self, tokens: Mapping[int, Sequence[int]]) -> None:
        """Append tokens."""
        counts = {seq: len(added) for seq, added in tokens.items()}
        if not 0 < sum(counts.values()) <= self.n_batch or not all(counts.values()):
            raise ValueError("more tokens than fit, or none")
        for seq, added in tokens.items():
            if len(self.tokens[seq]) + len(added) > self.n_ctx:
                raise ValueError("more tokens than fit")
            self.tokens[seq].extend(added)
        self.decoded.append(counts)

    def logits(self, seq: int) -> npt.NDArray[np.float32]:
        """The table's row of the last token."""
        return np.array(self._model.table[self.tokens[seq][-1]])

    def open_sampler(self, seq: int, sampling: Sampling, history: Sequence[int] = ()) -> FakeSampler:
        """A sampler that gives the reply to the history."""
        reply = iter([*self._model.reply(bytes(history).decode(errors="replace")).encode(), END])
        return FakeSampler(lambda: next(reply), sampling)

    def set_threads(self, n_threads: int) -> None:
        """Nothing computes."""

    def close(self) -> None:
        """Nothing to free."""


class FakeEmbedder:
    """A text's vector: how many tokens it has, and nothing else."""

    def __init__(self, n_seq: int, n_ctx: int) -> None:
        self.n_seq, self.n_ctx = n_seq, n_ctx

    def embed(self, texts: Sequence[Sequence[int]]) -> npt.NDArray[np.float32]:
        """The vectors."""
        if len(texts) > self.n_seq or sum(map(len, texts)) > self.n_ctx:
            raise ValueError("more than fits")
        return np.array([[len(tokens), 0, 0, 0] for tokens in texts], np.float32)

    def close(self) -> None:
        """Nothing to free."""


class FakeModel:
    """Gives scripted answers in turn, the last one again and again; `table` holds logits [last token, next token]."""

    def __init__(
        self,
        answers: Sequence[str] = ("Hello!",),
        *,
        chat_template: str = TEMPLATE,
        n_ctx_train: int = 4096,
        table: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self._answers = list(answers)
        self.table = np.zeros((END + 1, END + 1), np.float32) if table is None else table
        self.info = ModelInfo(Path("fake.gguf"), "fake", "F32", 0, 0, n_ctx_train, END + 1, chat_template, "", "")

    def reply(self, prompt: str) -> str:
        """The answer to a prompt where several are answered together: the same, whatever the order."""
        return f"{self._answers[0]} {prompt[-8:]}"

    def next_answer(self) -> str:
        """The answer whose turn it is."""
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def tokenize(self, text: str, *, special: bool = False, bos: bool = True) -> list[int]:
        """The bytes of the text."""
        return list(text.encode())

    def tokenize_input(self, text: str) -> list[int]:
        """The bytes of the text."""
        return self.tokenize(text)

    def piece(self, token: int) -> bytes:
        """One byte."""
        return bytes([token]) if token < END else b""

    def token_text(self, token: int) -> str:
        """A byte as a character, or the end token's name."""
        return chr(token) if token < END else "<end>"

    def is_end(self, token: int) -> bool:
        """Whether it is the end token."""
        return token == END

    def open_context(
        self, *, n_ctx: int, n_batch: int, n_threads: int, type_k: str = "F16", type_v: str = "F16"
    ) -> FakeContext:
        """An empty context."""
        return FakeContext(self, n_ctx, n_batch)

    def open_sequences(
        self, *, n_seq: int, n_ctx: int, n_batch: int, n_threads: int, type_k: str = "F16", type_v: str = "F16"
    ) -> FakeSequences:
        """Empty sequences."""
        return FakeSequences(self, n_seq, n_ctx, n_batch)

    def open_embedder(self, *, n_seq: int, n_ctx: int, n_threads: int) -> FakeEmbedder:
        """Vectors of four numbers."""
        return FakeEmbedder(n_seq, n_ctx)

    def close(self) -> None:
        """Nothing to free."""
