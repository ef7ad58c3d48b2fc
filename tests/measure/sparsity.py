# ruff: noqa: T201
"""Counts zeros in feed-forward blocks with squared ReLU (BitNet 2B-4T), layer by layer, while a model reads a text.

    python -m tests.measure.sparsity MODEL.gguf [TEXT.txt]

`gate` is the share of gates that are zero, whose rows of `up` need not be read. `down` is the share of the inputs of
`down` that are zero in int8, as the product quantizes them, whose columns need not be read. Leaving both out changes no
result. docs/explanation/below-two-bits.md says what that could save.
"""

import ctypes
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.engine.builds.installed import library_path, require
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.llama import LlamaEngine
from edgellm.settings import Settings, resource_directory

GATE, DOWN = "ffn_relu", "ffn_sub_norm"
TEXT = "The quick brown fox jumps over the lazy dog, and 1234 other things that people write about happen as well. "


def int8(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Activations [tokens, columns] as products of ternary weights round them."""
    s = np.float32(127) / np.maximum(np.abs(x).max(axis=-1, keepdims=True), np.float32(1e-5))
    return np.rint(x * s)


def zero_shares(llama: LlamaEngine, path: Path, tokens: Sequence[int]) -> dict[str, dict[int, float]]:
    """Return, for `GATE` and `DOWN`, the share of zeros in each layer over all tokens."""
    c = llama._c
    ggml = ctypes.CDLL(str(library_path(llama.installed.libraries, "ggml-base")))
    ggml.ggml_get_name.restype, ggml.ggml_get_name.argtypes = ctypes.c_char_p, [ctypes.c_void_p]
    ggml.ggml_get_data.restype, ggml.ggml_get_data.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    ggml.ggml_nelements.restype, ggml.ggml_nelements.argtypes = ctypes.c_int64, [ctypes.c_void_p]
    ggml.ggml_nrows.restype, ggml.ggml_nrows.argtypes = ctypes.c_int64, [ctypes.c_void_p]
    shares: dict[str, dict[int, float]] = defaultdict(dict)

    def look(tensor: int, ask: bool, _: object) -> bool:
        name, _, layer = ggml.ggml_get_name(tensor).decode().partition("-")
        if name not in (GATE, DOWN) or ask:
            return name in (GATE, DOWN)
        n, rows = ggml.ggml_nelements(tensor), ggml.ggml_nrows(tensor)
        values = np.ctypeslib.as_array((ctypes.c_float * n).from_address(ggml.ggml_get_data(tensor))).reshape(rows, -1)
        shares[name][int(layer)] = float(((values if name == GATE else int8(values)) == 0).mean())
        return True

    model = c.llama_model_load_from_file(str(path).encode(), c.llama_model_default_params())
    parameters = c.llama_context_default_params()
    parameters.n_ctx = parameters.n_batch = parameters.n_ubatch = max(64, len(tokens))
    parameters.cb_eval = c.ggml_backend_sched_eval_callback(look)
    context = c.llama_init_from_model(model, parameters)
    array = (c.llama_token * len(tokens))(*tokens)
    assert c.llama_decode(context, c.llama_batch_get_one(array, len(tokens))) == 0
    c.llama_free(context)
    c.llama_model_free(model)
    return shares


def main(arguments: Sequence[str]) -> None:
    """Print the shares of every layer, and their means."""
    path = Path(arguments[0])
    text = Path(arguments[1]).read_text(encoding="utf-8") if len(arguments) > 1 else TEXT * 4
    llama = LlamaEngine(require(Settings.from_environment(), PatchStack.load(resource_directory("patches"))))
    model = llama.load(path)
    tokens = model.tokenize(text)[:512]
    model.close()
    shares = zero_shares(llama, path, tokens)
    if not shares[GATE]:
        sys.exit(f"{path.name} has no squared ReLU")
    print(f"{len(tokens)} tokens\nlayer   gate   down")
    for layer in sorted(shares[GATE]):
        print(f"{layer:5} {shares[GATE][layer]:6.1%} {shares[DOWN][layer]:6.1%}")
    print(f" mean {np.mean([*shares[GATE].values()]):6.1%} {np.mean([*shares[DOWN].values()]):6.1%}")


if __name__ == "__main__":
    main(sys.argv[1:])
