"""GGUF files built byte by byte from the specification, well-formed or wrong in one place."""

import struct
from collections.abc import Iterable

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def u32(key: str, value: int) -> bytes:
    return string(key) + struct.pack("<II", UINT32, value)


def text(key: str, value: str | bytes) -> bytes:
    return string(key) + struct.pack("<I", STRING) + string(value)


def strings(key: str, values: Iterable[str], count: int | None = None) -> bytes:
    body = [string(value) for value in values]
    return string(key) + struct.pack("<IIQ", ARRAY, STRING, len(body) if count is None else count) + b"".join(body)


def array(key: str, element_type: int, count: int, body: bytes) -> bytes:
    return string(key) + struct.pack("<IIQ", ARRAY, element_type, count) + body


def tensor(name: str, shape: Iterable[int], type_id: int, offset: int) -> bytes:
    shape = tuple(shape)
    return string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, type_id, offset)


def gguf(
    keys: Iterable[bytes] = (),
    tensors: Iterable[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    n_keys: int | None = None,
    n_tensors: int | None = None,
    alignment: int = 32,
) -> bytes:
    keys, tensors = list(keys), list(tensors)
    n_tensors = len(tensors) if n_tensors is None else n_tensors
    n_keys = len(keys) if n_keys is None else n_keys
    header = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + b"".join(keys) + b"".join(tensors)
    return header + bytes(-len(header) % alignment) + data


LLAMA = text("general.architecture", "llama")


def tiny_model() -> bytes:
    """A file with scalars, arrays, and an F32, a Q4_0 and an I2_S tensor."""
    keys = [
        LLAMA,
        u32("llama.context_length", 2048),
        string("llama.rope.freq_base") + struct.pack("<If", FLOAT32, 10000.0),
        string("tokenizer.ggml.add_bos_token") + struct.pack("<IB", BOOL, 1),
        strings("tokenizer.ggml.tokens", ["<s>", "", "\u2581caf\u00e9", "x" * 300]),
        array("tokenizer.ggml.scores", FLOAT32, 4, struct.pack("<4f", 0, -1, -2, -3)),
        array("llama.attention.head_count_kv", INT32, 2, struct.pack("<2i", 4, 2)),
    ]
    tensors = [
        tensor("norm.weight", [7], 0, 0),
        tensor("a.weight", [64, 3], 2, 32),
        tensor("b.weight", [128, 2], 36, 32 + 128),
    ]
    data = struct.pack("<7f", *range(7)) + bytes(4) + bytes(range(108)) + bytes(20) + bytes(64) + bytes(32)
    return gguf(keys, tensors, data)
