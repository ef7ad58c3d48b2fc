"""SentencePiece BPE vocabularies (Llama 2, Mistral v1, Phi-3): tokenizer.model, or the same as tokenizer.json.

tokenizer.model is a protobuf message; these are the fields that matter here:

    ModelProto        1: SentencePiece, repeated    2: TrainerSpec    3: NormalizerSpec
    SentencePiece     1: piece, string    2: score, float    3: type, enum (TokenType), 1 when absent
    TrainerSpec       3: model_type, enum (1 unigram, 2 BPE)
    NormalizerSpec    3: add_dummy_prefix, bool, true when absent

    vocabulary = from_model_file(directory, n_vocab)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from edgellm.errors import CorruptFile, UnsupportedModel
from edgellm.weights.convert.json_file import JsonFile, read_bytes
from edgellm.weights.convert.tokenizers.byte_level import add_listed_tokens
from edgellm.weights.convert.tokenizers.vocabulary import TokenTable, TokenType, Vocabulary

_MAX_BYTES = 64 << 20
_BPE = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FLOAT = struct.Struct("<f")

FieldValue = int | bytes


def from_model_file(directory: Path, n_vocab: int) -> Vocabulary:
    """Read tokenizer.model and the added tokens listed beside it."""
    path = directory / "tokenizer.model"
    table = TokenTable(n_vocab, path.name)
    add_prefix, model_type, token_id = 1, _BPE, 0
    for field, value in fields(read_bytes(path, _MAX_BYTES), path.name):
        if field == 1:
            table.put(token_id, *_piece(value, path.name))
            token_id += 1
        elif field == 2:
            model_type = _integer(value, 3, 1, path.name)
        elif field == 3:
            add_prefix = _integer(value, 3, 1, path.name)
    if token_id == 0:
        _corrupt(path.name, "it holds no pieces")
    if model_type != _BPE:
        why = f"its model type is {model_type}; the engine's SentencePiece tokenizer is BPE ({_BPE})"
        raise UnsupportedModel(f"{path.name} cannot be converted", why=why)
    add_listed_tokens(table, directory)
    listed = JsonFile.read_if_there(directory / "tokenizer.json").children("added_tokens")
    for added in listed:
        table.add(added.integer("id"), added.text("content"), special=added.flag("special", False))
    stripped = any(added.flag("rstrip", False) for added in listed)
    return Vocabulary("llama", "default", table.finish(), add_space_prefix=bool(add_prefix), right_stripped=stripped)


def from_tokenizer_json(tokenizer: JsonFile, n_vocab: int) -> Vocabulary:
    """Read the tokenizer.json of a SentencePiece BPE (byte fallback, no byte alphabet).

    It has merges instead of scores. The engine merges the pair whose result has the best score, so the score of
    a token is minus the index of the first merge that produces it.
    """
    model = tokenizer.child("model")
    table = TokenTable(n_vocab, tokenizer.name)
    scores: dict[str, float] = {}
    for place, merge in enumerate(model.items("merges")):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(part, str) for part in parts):
            _corrupt(tokenizer.name, f"{merge!r} is not a merge of two tokens")
        scores.setdefault("".join(parts), -float(place))
    unknown = model.text("unk_token", "<unk>")
    for text, token_id in model.child("vocab").values.items():
        kind = TokenType.UNKNOWN if text == unknown else TokenType.BYTE if _is_byte(text) else TokenType.NORMAL
        # No merge produces a single character, and its score is never compared.
        table.put(token_id, text, kind, scores.get(text, 0.0))
    listed = tokenizer.children("added_tokens")
    for added in listed:
        table.add(added.integer("id"), added.text("content"), special=added.flag("special", False))
    stripped = any(added.flag("rstrip", False) for added in listed)
    prefix = _prepends_space(tokenizer)
    return Vocabulary("llama", "default", table.finish(), add_space_prefix=prefix, right_stripped=stripped)


def _prepends_space(tokenizer: JsonFile) -> bool:
    """Whether text gets a leading space: a Prepend normalizer, or Metaspace unless its scheme is "never"."""
    normalizer = tokenizer.child("normalizer")
    steps = normalizer.children("normalizers") or [normalizer]
    if any(step.text("type", "") == "Prepend" for step in steps):
        return True
    metaspace = tokenizer.child("pre_tokenizer")
    return metaspace.text("type", "") == "Metaspace" and metaspace.text("prepend_scheme", "always") != "never"


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def fields(message: bytes, name: str) -> Iterator[tuple[int, FieldValue]]:
    """Yield (field number, value) of a protobuf message; strings and nested messages are bytes."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position, name)
        wire = tag & 7
        if wire == _VARINT:
            value, position = _varint(message, position, name)
            yield tag >> 3, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(wire, 0)
        if wire == _BYTES:
            size, position = _varint(message, position, name)
        elif not size:
            _corrupt(name, f"wire type {wire} at byte {position}")
        if size > len(message) - position:
            _corrupt(name, f"a field of {size} bytes at byte {position} does not fit in the file")
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: bytes, position: int, name: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            _corrupt(name, "it is truncated")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise CorruptFile(f"{name} is not a valid tokenizer", why="a number of more than ten bytes")


def _piece(value: FieldValue, name: str) -> tuple[str, TokenType, float]:
    text, kind, score = b"", int(TokenType.NORMAL), 0.0
    for field, part in fields(_message(value, name), name):
        if field == 1 and isinstance(part, bytes):
            text = part
        elif field == 2 and isinstance(part, bytes) and len(part) == _FLOAT.size:
            score = _FLOAT.unpack(part)[0]
        elif field == 3 and isinstance(part, int):
            kind = part
    try:
        return text.decode(), TokenType(kind), score
    except ValueError:  # UnicodeDecodeError is a ValueError
        _corrupt(name, f"the piece {text!r} of type {kind} is not valid")


def _integer(value: FieldValue, number: int, default: int, name: str) -> int:
    """Return the integer in field `number` of a nested message; the last one when the field repeats."""
    found = default
    for field, part in fields(_message(value, name), name):
        if field == number and isinstance(part, int):
            found = part
    return found


def _message(value: FieldValue, name: str) -> bytes:
    if isinstance(value, int):
        _corrupt(name, "a number where a message should be")
    return value


def _corrupt(name: str, why: str) -> NoReturn:
    raise CorruptFile(f"{name} is not a valid tokenizer", why=why)
