"""Spells tokens: as running text, and as names in a list of log-probabilities.

    speller = Speller(model)
    speller.write(token)        # "" while a character is incomplete
    token_name(model, token)    # " the", "<|im_end|>", or "bytes:\\xe4\\xbd" for a part of a character

What a `Speller` writes, cut into tokens again, gives the same tokens where the tokenizer allows it: the space that a
SentencePiece vocabulary puts before a text is taken away again.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from edgellm.engine.base import Model


class Speller:
    """Writes one text; `length` counts its complete characters so far."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._adds_space = adds_space(model)
        self._at_start = True
        self.length = 0

    def write(self, token: int, *, control: bool = True) -> str:
        """The characters that the token completes; `control` writes control tokens by name."""
        piece = self._model.piece(token)
        if piece:
            added = self._at_start and self._adds_space
            text = self._decoder.decode(piece.removeprefix(b" ") if added else piece)
        else:
            text = self._decoder.decode(b"", final=True) + (self._model.token_text(token) if control else "")
        # To the tokenizer, a new text begins after a control token.
        self._at_start = not piece and (control or self._at_start)
        self.length += len(text)
        return text

    def finish(self) -> str:
        """The rest of an incomplete character."""
        text = self._decoder.decode(b"", final=True)
        self.length += len(text)
        return text


def adds_space(model: Model) -> bool:
    """Whether the vocabulary begins every text with a space of its own."""
    tokens = model.tokenize("a", bos=False)
    return bool(tokens) and model.piece(tokens[0]).startswith(b" ")


def spell(model: Model, tokens: Iterable[int]) -> str:
    """The text of tokens, with control tokens by name."""
    speller = Speller(model)
    return "".join(map(speller.write, tokens)) + speller.finish()


def token_name(model: Model, token: int) -> str:
    """The name of a token: its text, a control token's name, or its bytes in OpenAI's form."""
    piece = model.piece(token)
    if not piece:
        return model.token_text(token)
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)
