"""The tokenizer of the first Qwen: `qwen.tiktoken` has lines of a base64 token and its rank, but no merges.

The ranks imply the merges: a token is made by merging the two parts into which the tokens of lower rank split
it. Following the merges of each token takes seconds; searching all pairs again after every step takes minutes.

    vocabulary = from_tiktoken(directory / "qwen.tiktoken", n_vocab=151936)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from edgellm.errors import CorruptFile
from edgellm.weights.convert.json_file import read_bytes
from edgellm.weights.convert.tokenizers.byte_level import printable
from edgellm.weights.convert.tokenizers.vocabulary import TokenTable, TokenType, Vocabulary

_MAX_BYTES = 16 << 20
# A token of n bytes costs up to n * n / 2 look-ups; Qwen's longest has 128.
_MAX_TOKEN_BYTES = 1024
# The tokens that QWenTokenizer appends to the ranks, in this order.
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


def from_tiktoken(path: Path, n_vocab: int) -> Vocabulary:
    """Read the ranks, derive the merges and append Qwen's special tokens."""
    ranks = read_ranks(path)
    table = TokenTable(n_vocab, path.name)
    for token, rank in ranks.items():
        table.put(rank, printable(token), TokenType.NORMAL)
    for i, text in enumerate(SPECIAL_TOKENS):
        table.add(len(ranks) + i, text, special=True)
    return Vocabulary("gpt2", "qwen2", table.finish(), tuple(derive_merges(ranks)))


def read_ranks(path: Path) -> dict[bytes, int]:
    """Return the rank of each token, in order of rank; CorruptFile unless the ranks are 0, 1, 2, ..."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_bytes(path, _MAX_BYTES).splitlines()):
        encoded, _, rank = line.partition(b" ")
        try:
            token = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            token = b""
        if not 0 < len(token) <= _MAX_TOKEN_BYTES or rank != b"%d" % number or token in ranks:
            why = f"line {number + 1} does not hold a new token and the rank {number}"
            raise CorruptFile(f"{path.name} is not valid", why=why)
        ranks[token] = number
    return ranks


def derive_merges(ranks: Mapping[bytes, int]) -> list[str]:
    """Return the merges, ordered by the rank of the token that each produces."""
    merges = []
    for token in ranks:
        if len(token) > 1:
            left, right = _last_merge(token, ranks)
            merges.append(f"{printable(left)} {printable(right)}")
    return merges


def _last_merge(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two parts into which BPE with all tokens of lower rank splits this token."""
    limit = ranks[token]
    rank = ranks.get
    splits = [i for i in range(1, len(token)) if rank(token[:i], limit) < limit and rank(token[i:], limit) < limit]
    if len(splits) != 1:  # none or several: only following the merges shows the right one
        parts = _encode(token, ranks, limit)
        if len(parts) != 2:
            raise CorruptFile("qwen.tiktoken is not valid", why=f"no two tokens of lower rank make {token!r}")
        return parts[0], parts[1]
    return token[: splits[0]], token[splits[0] :]


def _encode(token: bytes, ranks: Mapping[bytes, int], limit: int) -> list[bytes]:
    """Split a token by BPE, using only tokens whose rank is below `limit`."""
    parts = [token[i : i + 1] for i in range(len(token))]
    pairs = [ranks.get(token[i : i + 2], limit) for i in range(len(token) - 1)]
    while pairs and (lowest := min(pairs)) < limit:
        i = pairs.index(lowest)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
        del pairs[i]
        if i > 0:
            pairs[i - 1] = ranks.get(parts[i - 1] + parts[i], limit)
        if i < len(pairs):
            pairs[i] = ranks.get(parts[i] + parts[i + 1], limit)
    return parts
