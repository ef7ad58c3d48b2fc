"""WordPiece vocabularies of BERT models: tokenizer.json, or vocab.txt.

BERT marks pieces that continue a word ("##ing"). The engine marks pieces that start one ("▁play"), so that a
single search over the text finds both kinds. Control tokens are not changed.

    vocabulary = from_tokenizer_json(JsonFile.read(path), n_vocab)
"""

from __future__ import annotations

from pathlib import Path

from edgellm.weights.convert.json_file import JsonFile, read_whole_text
from edgellm.weights.convert.tokenizers.vocabulary import TokenTable, TokenType, Vocabulary

_CONTINUATION = "##"
_WORD_START = "\u2581"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def from_tokenizer_json(tokenizer: JsonFile, n_vocab: int) -> Vocabulary:
    """Read the vocabulary and the normalizer of a tokenizer.json whose model is WordPiece."""
    table = TokenTable(n_vocab, tokenizer.name)
    special = {added.text("content") for added in tokenizer.children("added_tokens") if added.flag("special", False)}
    for text, token_id in tokenizer.child("model").child("vocab").values.items():
        _put(table, token_id, text, special=text in special)
    normalizer = tokenizer.child("normalizer")
    return _vocabulary(table, normalizer.flag("lowercase", True), normalizer)


def from_vocab_txt(directory: Path, n_vocab: int) -> Vocabulary:
    """Read vocab.txt, one token per line, with the case handling of tokenizer_config.json."""
    table = TokenTable(n_vocab, "vocab.txt")
    lines = read_whole_text(directory / "vocab.txt").split("\n")
    for token_id, text in enumerate(line.rstrip("\r") for line in lines):
        if text or token_id < len(lines) - 1:
            _put(table, token_id, text, special=text in _SPECIAL)
    config = JsonFile.read_if_there(directory / "tokenizer_config.json")
    return _vocabulary(table, config.flag("do_lower_case", True), config)


def _put(table: TokenTable, token_id: object, text: str, *, special: bool) -> None:
    if special:
        table.put(token_id, text, TokenType.CONTROL)
    elif text.startswith(_CONTINUATION):
        table.put(token_id, text[len(_CONTINUATION) :], TokenType.NORMAL)
    else:
        table.put(token_id, _WORD_START + text, TokenType.NORMAL)


def _vocabulary(table: TokenTable, lowercase: bool, accents: JsonFile) -> Vocabulary:
    # BERT strips accents whenever it lowercases, unless the file says otherwise.
    strip_accents = accents.flag("strip_accents", lowercase)
    return Vocabulary("bert", "default", table.finish(), lowercase=lowercase, strip_accents=strip_accents)
