"""Tries an engine on this CPU before anybody uses it: a product of each kind, and tokens of a tiny model.

    python -m edgellm.engine.builds.trial [--write] ENGINE MODEL LOGITS

It runs as a process of its own (`prebuilt` starts it), because an instruction that the CPU lacks ends the process that
meets it. ENGINE is an engine's directory, MODEL a GGUF file with random weights, and LOGITS the file of what the plain
C kernels computed with it, which `--write` writes. It ends with exit status 0 and prints the level of the kernels in
use, or says what is wrong.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
from collections.abc import Iterator
from ctypes import POINTER, c_bool, c_char_p, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgellm.engine.builds.installed import library_path, load
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.errors import EdgellmError
from edgellm.formats.quant_types import QuantType, named_type
from edgellm.formats.ternary import i2_s_tail, pack_i2_s

Values = npt.NDArray[np.float32]
# Every kind of kernel: floats, blocks of 32, K-quants, ternary, binary.
KINDS = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("TQ1_0", "TQ2_0", "Q2_0", "Q1_0", "I2_S"),
)
COLUMNS, ROWS = 512, 96
# One token, a few, and a prompt: each has kernels of its own.
TOKENS = (1, 5, 40)
PROMPT = tuple(range(40))
N_THREADS = 2
# Activations become int8, an error of about 0.01 of a result's usual size, of which the largest of thousands is four
# times that. A wrong kernel is off by about 1.
TOLERANCE = 0.1


class _InitParams(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


SIGNATURES = {
    "ggml_init": (c_void_p, [_InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int, c_int64, c_int64]),
    "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_get_data": (c_void_p, [c_void_p]),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_graph_compute_with_ctx": (c_int, [c_void_p, c_void_p, c_int]),
    "ggml_backend_cpu_reg": (c_void_p, []),
    "ggml_backend_cpu_buffer_type": (c_void_p, []),
    "ggml_backend_reg_dev_get": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_dev_supports_op": (c_bool, [c_void_p, c_void_p]),
    "ggml_backend_buft_name": (c_char_p, [c_void_p]),
    "ggml_backend_buft_alloc_buffer": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_reg_get_proc_address": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
}


class _TensorHead(ctypes.Structure):
    """The first fields of struct ggml_tensor."""

    _fields_ = (("type", c_int), ("buffer", c_void_p))


class Products:
    """Products of one engine's ggml, without a model."""

    def __init__(self, libraries: Path) -> None:
        self._c = _functions(libraries)
        self._registry = self._c.ggml_backend_cpu_reg()
        self._device = self._c.ggml_backend_reg_dev_get(self._registry, 0)

    def places(self) -> Iterator[tuple[str, c_void_p]]:
        """Yield where weights can lie, with a name: as in the file, or repacked for some kernels."""
        plain = c_void_p(self._c.ggml_backend_cpu_buffer_type())
        address = self._c.ggml_backend_reg_get_proc_address(self._registry, b"ggml_backend_dev_get_extra_bufts")
        extra = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(address)(self._device)
        repacked = itertools.takewhile(bool, (extra[i] for i in itertools.count()))
        for place in (plain, *map(c_void_p, repacked)):
            yield self._c.ggml_backend_buft_name(place).decode(), place

    def product(self, place: c_void_p, kind: QuantType, data: bytes, x: Values) -> Values | None:
        """Return x [tokens, COLUMNS] times weights of ROWS rows, [tokens, ROWS]; None if they cannot lie there."""
        c = self._c
        headers = c_void_p(c.ggml_init(_InitParams(1 << 16, None, True)))
        context = c_void_p(c.ggml_init(_InitParams(1 << 24, None, False)))
        try:
            weights = c_void_p(c.ggml_new_tensor_2d(headers, kind.id, COLUMNS, ROWS))
            activations = c.ggml_new_tensor_2d(context, 0, COLUMNS, len(x))
            ctypes.memmove(c.ggml_get_data(activations), x.tobytes(), x.nbytes)
            result = c_void_p(c.ggml_mul_mat(context, weights, activations))
            if not self._supports(place, weights, result):
                return None
            buffer = c_void_p(c.ggml_backend_alloc_ctx_tensors_from_buft(headers, place))
            c.ggml_backend_tensor_set(weights, data, 0, len(data))
            graph = c_void_p(c.ggml_new_graph(context))
            c.ggml_build_forward_expand(graph, result)
            c.ggml_graph_compute_with_ctx(context, graph, N_THREADS)
            found = (ctypes.c_float * (len(x) * ROWS)).from_address(c.ggml_get_data(result))
            y = np.array(found, np.float32).reshape(len(x), ROWS)
            c.ggml_backend_buffer_free(buffer)
            return y
        finally:
            c.ggml_free(context)
            c.ggml_free(headers)

    def _supports(self, place: c_void_p, weights: c_void_p, result: c_void_p) -> bool:
        """Ask as llama's loader does: with weights that seem to lie in an empty buffer there."""
        head = _TensorHead.from_address(weights.value or 0)
        empty = c_void_p(self._c.ggml_backend_buft_alloc_buffer(place, 0))
        head.buffer = empty.value
        supported = bool(self._c.ggml_backend_dev_supports_op(self._device, result))
        head.buffer = None
        self._c.ggml_backend_buffer_free(empty)
        return supported


def _functions(libraries: Path) -> Any:
    loaded = [ctypes.CDLL(str(library_path(libraries, name))) for name in ("ggml-base", "ggml-cpu")]
    found = SimpleNamespace()
    for name, (result, arguments) in SIGNATURES.items():
        function = next(getattr(library, name) for library in loaded if hasattr(library, name))
        function.restype, function.argtypes = result, arguments
        setattr(found, name, function)
    return found


def weights_of(kind: QuantType, codec: Quantizer) -> tuple[bytes, Values]:
    """Return random weights as a file holds them, and their values [ROWS, COLUMNS]."""
    random = np.random.default_rng(kind.id)
    if kind.one_magnitude:
        codes = random.choice(np.array([-1, 1] if kind.binary else [-1, 0, 1], np.int8), (ROWS, COLUMNS))
        if kind.name == "I2_S":
            return pack_i2_s(codes).tobytes() + i2_s_tail(1.0), codes.astype(np.float32)
        values = codes.astype(np.float32)
    else:
        values = random.standard_normal((ROWS, COLUMNS), np.float32)
    data = values.view(np.uint8) if kind.name == "F32" else codec(values, kind)
    return data.tobytes(), codec.decode(data, kind)


def wrong_product(libraries: Path) -> str:
    """Try the product of each kind in each place and with each number of tokens; return the first wrong one, or ""."""
    products, codec = Products(libraries), Quantizer(libraries, 1)
    for kind in map(named_type, KINDS):
        data, values = weights_of(kind, codec)
        for n_tokens in TOKENS:
            x = np.random.default_rng(n_tokens).standard_normal((n_tokens, COLUMNS), np.float32)
            truth = x @ values.T
            for name, place in products.places():
                y = products.product(place, kind, data, x)
                if y is not None and not close(y, truth):
                    return f"the product of {kind} weights in {name} with {n_tokens} tokens is wrong"
    return ""


def close(found: Values, truth: Values) -> bool:
    """Whether no value differs from the truth by more than TOLERANCE of the usual size."""
    return bool(np.isfinite(found).all() and np.abs(found - truth).max() <= TOLERANCE * np.std(truth))


def logits(engine: LlamaEngine, model: Path) -> Values:
    """Return what comes after a prompt, and after one token more, float32 [2, vocabulary]."""
    loaded = engine.load(model)
    context = loaded.open_context(n_ctx=256, n_batch=256, n_threads=N_THREADS)
    rows = []
    for tokens in (PROMPT, PROMPT[:1]):
        context.decode(tokens)
        rows.append(context.logits().copy())
    context.close()
    loaded.close()
    return np.stack(rows)


def attempt(arguments: list[str]) -> str:
    """Try the engine that the arguments name, or write what it computes; return what is wrong, or ""."""
    directory, model, truth = map(Path, arguments[-3:])
    installed = load(directory)
    if installed is None:
        return f"there is no engine in {directory}"
    try:
        engine = LlamaEngine(installed)
        sys.stdout.write(f"{engine.kernels}\n")
        if arguments[0] == "--write":
            np.save(truth, logits(engine, model))
            return ""
        if wrong := wrong_product(installed.libraries):
            return wrong
        if not close(logits(engine, model), np.load(truth, allow_pickle=False)):
            return "the tiny model's logits are wrong"
    except EdgellmError as error:
        return f"{error.what}: {error.why}"
    return ""


if __name__ == "__main__":
    sys.exit(attempt(sys.argv[1:]) or 0)
