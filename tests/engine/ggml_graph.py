"""Computes a single product with the engine's ggml, without a model.

ggml = Ggml(engine_lib_dir)
y = ggml.product(I2_S, data, (columns, rows), x, n_threads=2)
"""

import ctypes
import itertools
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgellm.engine.builds.installed import library_path

F32, F16, I32 = 0, 1, 26
Floats = npt.NDArray[np.float32]
Halfs = npt.NDArray[np.float16]
Ids = npt.NDArray[np.int32]

SIGNATURES = {
    "ggml_free": (None, [c_void_p]),
    "ggml_new_tensor_1d": (c_void_p, [c_void_p, c_int, c_int64]),
    "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int, c_int64, c_int64]),
    "ggml_new_tensor_3d": (c_void_p, [c_void_p, c_int, c_int64, c_int64, c_int64]),
    "ggml_view_2d": (c_void_p, [c_void_p, c_void_p, c_int64, c_int64, c_size_t, c_size_t]),
    "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_mul_mat_id": (c_void_p, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "ggml_flash_attn_ext": (c_void_p, [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p, c_float, c_float, c_float]),
    "ggml_flash_attn_ext_add_sinks": (None, [c_void_p, c_void_p]),
    "ggml_get_rows": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_cast": (c_void_p, [c_void_p, c_void_p, c_int]),
    "ggml_dup": (c_void_p, [c_void_p, c_void_p]),
    "ggml_get_data": (c_void_p, [c_void_p]),
    "ggml_nbytes": (c_size_t, [c_void_p]),
    "ggml_row_size": (c_size_t, [c_int, c_int64]),
    "ggml_type_name": (c_char_p, [c_int]),
    "ggml_new_graph": (c_void_p, [c_void_p]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_graph_compute_with_ctx": (c_int, [c_void_p, c_void_p, c_int]),
    "ggml_backend_cpu_reg": (c_void_p, []),
    "ggml_backend_reg_dev_get": (c_void_p, [c_void_p, c_size_t]),
    "ggml_backend_dev_supports_op": (c_bool, [c_void_p, c_void_p]),
    "ggml_backend_buft_name": (c_char_p, [c_void_p]),
    "ggml_backend_reg_get_proc_address": (c_void_p, [c_void_p, c_char_p]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "edgellm_kernels": (c_char_p, []),
    "edgellm_keep_packed": (None, [c_char_p, c_char_p]),
    "i2_s_dequantize": (None, [c_void_p, c_float, POINTER(c_float), c_int64]),
}


class InitParams(ctypes.Structure):
    _fields_ = (("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool))


class Ggml:
    """The functions of libggml-base and libggml-cpu that the tests call."""

    def __init__(self, lib_dir: Path) -> None:
        libraries = [ctypes.CDLL(str(library_path(lib_dir, name))) for name in ("ggml-base", "ggml-cpu")]
        for name, (result, arguments) in SIGNATURES.items():
            function = next(getattr(library, name) for library in libraries if hasattr(library, name))
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.ggml_init = libraries[0].ggml_init
        self.ggml_init.restype, self.ggml_init.argtypes = c_void_p, [InitParams]

    def context(self, size: int = 1 << 20, *, no_alloc: bool = False) -> c_void_p:
        """Return memory for tensors, or with `no_alloc` only for their headers; the caller frees it."""
        return c_void_p(self.ggml_init(InitParams(size, None, no_alloc)))

    def supports(self, op: c_void_p) -> bool:
        """Whether the CPU backend reports that it can compute this node."""
        device = self.ggml_backend_reg_dev_get(self.ggml_backend_cpu_reg(), 0)
        return bool(self.ggml_backend_dev_supports_op(device, op))

    def buffer_type(self, name: bytes) -> c_void_p | None:
        """Return the CPU's extra buffer type with this name."""
        registry = self.ggml_backend_cpu_reg()
        address = self.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_dev_get_extra_bufts")
        extra = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(address)(self.ggml_backend_reg_dev_get(registry, 0))
        types = itertools.takewhile(bool, (extra[i] for i in itertools.count()))
        found = (c_void_p(type_) for type_ in types if self.ggml_backend_buft_name(type_) == name)
        return next(found, None)

    def repacked_product(
        self, type_id: int, data: bytes, ne: tuple[int, int], x: Floats, *, n_threads: int = 1
    ) -> Floats:
        """Like `product`, but with the weights repacked into the buffer type of our kernels."""
        type_ = self.buffer_type(b"CPU_TERNARY")
        assert type_ is not None
        headers = self.context(no_alloc=True)
        weights = self.ggml_new_tensor_2d(headers, type_id, *ne)
        buffer = self.ggml_backend_alloc_ctx_tensors_from_buft(headers, type_)
        self.ggml_backend_tensor_set(weights, data, 0, len(data))
        context = self.context(2 * x.nbytes + 12 * len(x) * ne[1] + (1 << 23) + 8 * x.size * n_threads)
        activations = self.ggml_new_tensor_2d(context, F32, x.shape[1], x.shape[0])
        ctypes.memmove(self.ggml_get_data(activations), x.tobytes(), x.nbytes)
        y = self._compute(context, self.ggml_mul_mat(context, weights, activations), (len(x), ne[1]), n_threads)
        self.ggml_free(context)
        self.ggml_backend_buffer_free(buffer)
        self.ggml_free(headers)
        return y

    def expert_product(
        self,
        type_id: int,
        data: bytes,
        ne: tuple[int, int, int],
        x: Floats,
        ids: Ids,
        *,
        packed: bool,
        n_threads: int = 1,
    ) -> Floats:
        """Multiply x [tokens, 1 or slots, columns] by the experts that ids [tokens, slots] name, of `ne` (columns,
        rows, experts), to [tokens, slots, rows]; `packed` for our kernels, otherwise upstream's.
        """
        headers = self.context(no_alloc=True)
        weights = self.ggml_new_tensor_3d(headers, type_id, *ne)
        context = self.context(len(data) + 4 * x.nbytes + 12 * ids.size * ne[1] + 8 * ids.nbytes * ne[2] + (1 << 23))
        buffer = None
        if packed:
            type_ = self.buffer_type(b"CPU_TERNARY")
            buffer = self.ggml_backend_alloc_ctx_tensors_from_buft(headers, type_)
            self.ggml_backend_tensor_set(weights, data, 0, len(data))
        else:
            weights = self.ggml_new_tensor_3d(context, type_id, *ne)
            ctypes.memmove(self.ggml_get_data(weights), data, len(data))
        activations = self.ggml_new_tensor_3d(context, F32, *x.shape[::-1])
        ctypes.memmove(self.ggml_get_data(activations), x.tobytes(), x.nbytes)
        chosen = self.ggml_new_tensor_2d(context, I32, *ids.shape[::-1])
        ctypes.memmove(self.ggml_get_data(chosen), ids.tobytes(), ids.nbytes)
        result = self.ggml_mul_mat_id(context, weights, activations, chosen)
        y = self._compute(context, result, (ids.size, ne[1]), n_threads)
        self.ggml_free(context)
        if buffer is not None:
            self.ggml_backend_buffer_free(buffer)
        self.ggml_free(headers)
        return y.reshape(*ids.shape, ne[1])

    def product(
        self,
        type_id: int,
        data: bytes,
        ne: tuple[int, int],
        x: Floats,
        *,
        n_threads: int = 1,
        rows: slice | None = None,
    ) -> Floats:
        """Multiply x [tokens, columns] by a tensor of `ne` (columns, rows), or by some of its rows."""
        context = self.context(len(data) + 2 * x.nbytes + 8 * len(x) * ne[1] + (1 << 22))
        weights = self.ggml_new_tensor_2d(context, type_id, *ne)
        assert self.ggml_nbytes(weights) == len(data)
        ctypes.memmove(self.ggml_get_data(weights), data, len(data))
        activations = self.ggml_new_tensor_2d(context, F32, x.shape[1], x.shape[0])
        ctypes.memmove(self.ggml_get_data(activations), x.tobytes(), x.nbytes)
        n_rows = ne[1]
        if rows is not None:
            start, stop, _ = rows.indices(n_rows)
            stride, n_rows = self.ggml_row_size(type_id, ne[0]), stop - start
            weights = self.ggml_view_2d(context, weights, ne[0], n_rows, stride, start * stride)
        result = self.ggml_mul_mat(context, weights, activations)
        y = self._compute(context, result, (len(x), n_rows), n_threads)
        self.ggml_free(context)
        return y

    def attention(
        self,
        q: Floats,
        k: Halfs,
        v: Halfs,
        mask: Halfs | None,
        *,
        max_bias: float = 0,
        softcap: float = 0,
        sinks: Floats | None = None,
        n_threads: int = 2,
    ) -> Floats:
        """Return the attention of q [heads, tokens, size] over k and v [kv heads, keys, size], mask [tokens, keys],
        sinks [heads].
        """
        context = self.context(4 * (q.nbytes + k.nbytes + v.nbytes) + (1 << 24))

        def tensor(values: npt.NDArray[np.generic], type_id: int) -> c_void_p:
            made = self.ggml_new_tensor_3d(context, type_id, *values.shape[::-1])
            ctypes.memmove(self.ggml_get_data(made), np.ascontiguousarray(values).tobytes(), values.nbytes)
            return c_void_p(made)

        heads, tokens, size = q.shape
        masks = None if mask is None else tensor(mask[None], F16)
        values = tensor(q, F32), tensor(k, F16), tensor(v, F16), masks
        result = self.ggml_flash_attn_ext(context, *values, size**-0.5, max_bias, softcap)
        if sinks is not None:
            self.ggml_flash_attn_ext_add_sinks(result, tensor(sinks[None, None], F32))
        y = self._compute(context, result, (tokens, heads * size), n_threads)
        self.ggml_free(context)
        return y

    def _compute(self, context: c_void_p, result: c_void_p, shape: tuple[int, int], n_threads: int) -> Floats:
        graph = self.ggml_new_graph(context)
        self.ggml_build_forward_expand(graph, result)
        assert self.ggml_graph_compute_with_ctx(context, graph, n_threads) == 0
        y = np.ctypeslib.as_array((c_float * (shape[0] * shape[1])).from_address(self.ggml_get_data(result)))
        return y.reshape(shape).copy()
