"""Reads the weights of a GGUF file as float32, with decoders that are independent of our encoders."""

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from edgellm.formats.gguf_file import GGUFFile

Floats = npt.NDArray[np.float32]


def read_values(path: Path) -> dict[str, Floats]:
    """All tensors by name, in numpy shape."""
    with GGUFFile.open(path) as file:
        return {name: decode(file, name) for name in file.tensors}


def read_keys(path: Path) -> dict[str, object]:
    """All metadata; arrays as lists."""
    with GGUFFile.open(path) as file:
        simple = (str, int, float, bool)
        return {key: value if isinstance(value, simple) else list(value) for key, value in file.metadata.items()}


def decode(file: GGUFFile, name: str) -> Floats:
    info = file.tensors[name]
    data = file.tensor_bytes(name)
    if info.type.name == "I2_S":
        return i2_s(data, info.shape)
    return gguf.quants.dequantize(data.copy(), gguf.GGMLQuantizationType(info.type.id)).reshape(info.shape[::-1])


def i2_s(data: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> Floats:
    """Decode blocks of 128 weights in 32 bytes, with the first weights in the high bits, and the scale at the end."""
    columns, rows = shape
    codes = data[: rows * columns // 4].reshape(-1, 32)
    q = np.stack([codes >> shift & 3 for shift in (6, 4, 2, 0)], axis=1).reshape(rows, columns)
    scale = data[rows * columns // 4 :][:4].view("<f4")[0]
    return (q.astype(np.float32) - 1) * scale
