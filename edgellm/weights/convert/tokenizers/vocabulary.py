"""The vocabulary of a model as GGUF stores it: a text, type and score per token id, without gaps or duplicates.

table = TokenTable(n_vocab, source="tokenizer.json")
table.put(0, "<unk>", TokenType.UNKNOWN)
tokens = table.finish()
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from edgellm.errors import CorruptFile

ADDED_TOKEN_SCORE = -1000.0
_PADDING_SCORE = -10000.0


class TokenType(IntEnum):
    """The values of `tokenizer.ggml.token_type`, the same as in SentencePiece's enum."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Tokens:
    """The texts, types and scores of all tokens, indexed by id."""

    texts: tuple[str, ...]
    types: tuple[TokenType, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The content of a tokenizer file. SentencePiece uses `scores`, byte-level BPE uses `merges` ("a b")."""

    model: str
    pre: str
    tokens: Tokens
    merges: tuple[str, ...] = ()
    add_space_prefix: bool | None = None
    lowercase: bool | None = None
    strip_accents: bool | None = None
    right_stripped: bool = False


class TokenTable:
    """Collects tokens in any order; ids without a text become unused padding, as in the embedding."""

    def __init__(self, size: int, source: str) -> None:
        self._source = source
        self._texts: list[str | None] = [None] * size
        self._types = [TokenType.UNUSED] * size
        self._scores = [_PADDING_SCORE] * size

    def __len__(self) -> int:
        return len(self._texts)

    def put(self, token_id: object, text: object, kind: TokenType, score: float = 0.0) -> None:
        """Set a token, replacing any previous one; CorruptFile for an id outside the embedding."""
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not isinstance(text, str):
            raise CorruptFile(f"{self._source} is not valid", why=f"token {text!r} has the id {token_id!r}")
        if not 0 <= token_id < len(self._texts):
            why = f"token {text!r} has the id {token_id}, the embedding has {len(self._texts)} rows"
            raise CorruptFile(f"{self._source} does not match the weights", why=why, id=token_id)
        self._texts[token_id], self._types[token_id], self._scores[token_id] = text, kind, score

    def add(self, token_id: object, text: object, *, special: bool) -> None:
        """Set an added token: it is never split, and control tokens are not shown as text."""
        if isinstance(text, str) and not (special or looks_like_control(text)):
            self.put(token_id, text.replace("\u2581", " "), TokenType.USER_DEFINED, ADDED_TOKEN_SCORE)
        else:
            self.put(token_id, text, TokenType.CONTROL, ADDED_TOKEN_SCORE)

    def finish(self) -> Tokens:
        """Fill the gaps and check that no two ids share a text, which would crash the engine."""
        texts = [f"[PAD{i}]" if text is None else text for i, text in enumerate(self._texts)]
        seen: dict[str, int] = {}
        for i, text in enumerate(texts):
            if seen.setdefault(text, i) != i:
                why = f"the ids {seen[text]} and {i} have the same text {text!r}"
                raise CorruptFile(f"{self._source} is not valid", why=why)
        return Tokens(tuple(texts), tuple(self._types), tuple(self._scores))


def looks_like_control(text: str) -> bool:
    """Whether an added token is a control token that its file does not mark as one (Command R, DeepSeek, Gemma)."""
    brackets = (("<|", "|>"), ("<｜", "｜>"), ("<unused", ">"))
    return text in ("<pad>", "<mask>") or any(text.startswith(a) and text.endswith(b) for a, b in brackets)
