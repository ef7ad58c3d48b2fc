"""Byte-level BPE vocabularies (GPT-2, Llama 3, Qwen 2, SmolLM): tokenizer.json, or vocab.json and merges.txt.

Tokens and merges are written in the printable alphabet of GPT-2, where each byte is one character (see
`byte_alphabet`). GGUF stores them in the same alphabet.

    vocabulary = from_tokenizer_json(JsonFile.read(path), n_vocab, pre="llama-bpe")
"""

from __future__ import annotations

from pathlib import Path

from edgellm.errors import CorruptFile
from edgellm.weights.convert.json_file import JsonFile, read_whole_text
from edgellm.weights.convert.tokenizers.vocabulary import TokenTable, TokenType, Vocabulary


def byte_alphabet() -> str:
    """Return 256 characters; the one at index b stands for byte b. Printable bytes stand for themselves, the
    others for the characters from U+0100 upwards, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return "".join(chr(b) if b in printable else chr(next(others)) for b in range(256))


_BYTE_TO_CHARACTER = dict(enumerate(byte_alphabet()))


def printable(token: bytes) -> str:
    """Return a token's bytes in the printable alphabet."""
    return token.decode("latin-1").translate(_BYTE_TO_CHARACTER)


def from_tokenizer_json(tokenizer: JsonFile, n_vocab: int, pre: str) -> Vocabulary:
    """Read the vocabulary of a tokenizer.json whose model is BPE over bytes."""
    model = tokenizer.child("model")
    table = TokenTable(n_vocab, tokenizer.name)
    for text, token_id in model.child("vocab").values.items():
        table.put(token_id, text, TokenType.NORMAL)
    for added in tokenizer.children("added_tokens"):
        table.add(added.integer("id"), added.text("content"), special=added.flag("special", False))
    merges = tuple(_merge(entry, tokenizer.name) for entry in model.items("merges"))
    return _vocabulary(table, merges, pre, tokenizer.name)


def from_vocab_and_merges(directory: Path, n_vocab: int, pre: str) -> Vocabulary:
    """Read vocab.json and merges.txt, plus the added tokens in added_tokens.json and tokenizer_config.json."""
    table = TokenTable(n_vocab, "vocab.json")
    for text, token_id in JsonFile.read(directory / "vocab.json").values.items():
        table.put(token_id, text, TokenType.NORMAL)
    add_listed_tokens(table, directory)
    lines = read_whole_text(directory / "merges.txt").split("\n")
    lines = [line.rstrip("\r") for line in lines]
    merges = tuple(_merge(line, "merges.txt") for line in lines if line.strip() and not line.startswith("#version"))
    return _vocabulary(table, merges, pre, "merges.txt")


def add_listed_tokens(table: TokenTable, directory: Path) -> None:
    """Add the tokens listed in added_tokens.json and then those in tokenizer_config.json, which win."""
    for text, token_id in JsonFile.read_if_there(directory / "added_tokens.json").values.items():
        table.add(token_id, text, special=False)
    listed = JsonFile.read_if_there(directory / "tokenizer_config.json").child("added_tokens_decoder")
    for token_id in listed.values:
        entry = listed.child(token_id)
        number = int(token_id) if token_id.isdecimal() and len(token_id) < 10 else token_id
        table.add(number, entry.text("content"), special=entry.flag("special", False))


def _vocabulary(table: TokenTable, merges: tuple[str, ...], pre: str, source: str) -> Vocabulary:
    if not merges:
        raise CorruptFile(f"{source} is incomplete", why="it lists no merges")
    return Vocabulary("gpt2", pre, table.finish(), merges)


def _merge(entry: object, source: str) -> str:
    """Return a merge as "a b"; files store it that way or, since 2024, as ["a", "b"]."""
    parts = entry.split(" ") if isinstance(entry, str) else entry
    if not (isinstance(parts, list) and len(parts) == 2 and all(isinstance(p, str) and p for p in parts)):
        raise CorruptFile(f"{source} is not valid", why=f"{entry!r} is not a merge of two tokens")
    if any(" " in part for part in parts):
        raise CorruptFile(f"{source} is not valid", why=f"the merge {entry!r} contains a space, which no byte maps to")
    return " ".join(parts)
