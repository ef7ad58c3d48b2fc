"""Writes every kind of tokenizer file that a checkpoint may have, with vocabularies small enough to read."""

import base64
import json
import struct
from pathlib import Path

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPLIT_LLAMA3 = {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False}
SPLIT_QWEN2 = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
GPT2_WORDS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
DIGITS = {"type": "Digits", "individual_digits": True}

MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("1", "2"), ("a", "t"), ("Ġ", "c"), ("Ġc", "at")]
SPECIAL = ("<|begin|>", "<|end|>")
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"

# Pieces of a SentencePiece BPE: shorter ones have better scores, because they are merged first.
PIECES = ["▁", "t", "h", "e", "c", "a", "n", "o", "th", "▁the", "the", "at", "cat", "▁cat", "▁t", "▁c"]
SPM_MERGES = [("t", "h"), ("a", "t"), ("▁", "t"), ("▁", "c"), ("th", "e"), ("c", "at"), ("▁", "the"), ("▁", "cat")]


def alphabet() -> list[str]:
    """Return GPT-2's character for every byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = [b for b in range(256) if b not in printable]
    return [chr(b) if b in printable else chr(256 + others.index(b)) for b in range(256)]


def added(token_id: int, text: str, *, special: bool = True, rstrip: bool = False) -> dict[str, object]:
    return {"id": token_id, "content": text, "special": special, "rstrip": rstrip, "lstrip": False, "normalized": False}


def starts_with(token: str) -> dict[str, object]:
    return {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": token}}, {"Sequence": {"id": "A"}}]}


def byte_level_tokens() -> list[str]:
    return [*alphabet(), *(a + b for a, b in MERGES)]


def byte_level(*steps: dict[str, object], ignore_merges: bool = False) -> dict[str, object]:
    """A tokenizer.json over bytes with eight merges and two control tokens."""
    tokens = byte_level_tokens()
    return {
        "added_tokens": [added(len(tokens) + i, text) for i, text in enumerate(SPECIAL)],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(steps)} if len(steps) > 1 else steps[0],
        "post_processor": starts_with(SPECIAL[0]),
        "decoder": {"type": "ByteLevel"},
        "model": {
            "type": "BPE",
            "ignore_merges": ignore_merges,
            "vocab": {text: i for i, text in enumerate(tokens)},
            "merges": [list(merge) for merge in MERGES],
        },
    }


def write_byte_level(directory: Path, *steps: dict[str, object], ignore_merges: bool = False) -> None:
    write_json(directory, "tokenizer.json", byte_level(*steps, ignore_merges=ignore_merges))
    config = {"bos_token": SPECIAL[0], "eos_token": {"content": SPECIAL[1]}, "chat_template": TEMPLATE}
    write_json(directory, "tokenizer_config.json", config)


def write_llama3(directory: Path) -> None:
    write_byte_level(directory, SPLIT_LLAMA3, BYTES, ignore_merges=True)


def write_qwen2(directory: Path) -> None:
    write_byte_level(directory, SPLIT_QWEN2, BYTES)


def write_tiktoken(directory: Path) -> None:
    """Write the first Qwen's files: ranks, no tokenizer.json, and the chat format in generation_config.json."""
    inverse = {character: b for b, character in enumerate(alphabet())}
    tokens = [bytes(inverse[character] for character in token) for token in byte_level_tokens()]
    lines = [base64.b64encode(token) + b" %d" % i for i, token in enumerate(tokens)]
    (directory / "qwen.tiktoken").write_bytes(b"\n".join(lines) + b"\n")
    write_json(directory, "tokenizer_config.json", {"tokenizer_class": "QWenTokenizer"})
    end = len(tokens)
    write_json(directory, "generation_config.json", {"chat_format": "chatml", "eos_token_id": end, "pad_token_id": end})


def spm_pieces() -> list[tuple[str, float, int]]:
    """Return (text, score, type) of every piece."""
    control = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    return [
        *control,
        *((f"<0x{b:02X}>", 0.0, 6) for b in range(256)),
        *((p, -float(i), 1) for i, p in enumerate(PIECES)),
    ]


def varint(value: int) -> bytes:
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def message(field: int, data: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(data)) + data


def spm_model(model_type: int = 2, *, dummy_prefix: bool = True) -> bytes:
    """Return a tokenizer.model; the type of normal pieces is left out, as protobuf does with defaults."""
    data = b""
    for text, score, kind in spm_pieces():
        body = message(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
        data += message(1, body + (varint(3 << 3) + varint(kind) if kind != 1 else b""))
    data += message(2, varint(3 << 3) + varint(model_type)) + message(3, varint(3 << 3) + varint(dummy_prefix))
    return data


def write_spm(directory: Path, *, as_json: bool = False) -> None:
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(directory, "tokenizer_config.json", config | {"add_bos_token": True, "chat_template": TEMPLATE})
    if not as_json:
        (directory / "tokenizer.model").write_bytes(spm_model())
        return
    vocab = {text: i for i, (text, _, _) in enumerate(spm_pieces())}
    tokenizer = {
        "added_tokens": [added(1, "<s>"), added(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
        "post_processor": starts_with("<s>"),
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
        "model": {"type": "BPE", "byte_fallback": True, "unk_token": "<unk>", "vocab": vocab, "merges": SPM_MERGES},
    }
    write_json(directory, "tokenizer.json", tokenizer)


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "."]


def write_wordpiece(directory: Path, *, as_json: bool = True) -> None:
    roles = {role: f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
    write_json(directory, "tokenizer_config.json", {f"{role}_token": text for role, text in roles.items()})
    if not as_json:
        (directory / "vocab.txt").write_text("\n".join(WORDS) + "\n")
        return
    tokenizer = {
        "added_tokens": [added(i, text) for i, text in enumerate(WORDS[:5])],
        "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
        "model": {"type": "WordPiece", "vocab": {text: i for i, text in enumerate(WORDS)}},
    }
    write_json(directory, "tokenizer.json", tokenizer)


def write_json(directory: Path, name: str, value: object) -> None:
    (directory / name).write_text(json.dumps(value, ensure_ascii=False))
