"""Products with I2_S weights in ggml, without a model: exact at any size, and no other operation is offered."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from tests.engine.bitnet_file import Ternary
from tests.engine.bitnet_reference import ternary_product
from tests.engine.ggml_graph import F16, F32, Floats, Ggml

pytestmark = pytest.mark.engine

I32, I2_S = 26, 36


@pytest.fixture(scope="session")
def ggml(engine_lib_dir: Path) -> Ggml:
    return Ggml(engine_lib_dir)


def random_matrix(rows: int, columns: int, seed: int = 0) -> Ternary:
    rng = np.random.default_rng(seed)
    return Ternary(rng.integers(-1, 2, (rows, columns), np.int8), np.float32(rng.uniform(0.01, 3)))


def random_activations(tokens: int, columns: int, seed: int = 1) -> Floats:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((tokens, columns)) * rng.uniform(0.01, 100, (tokens, 1))).astype(np.float32)


def product(ggml: Ggml, matrix: Ternary, x: Floats, n_threads: int = 1, rows: slice | None = None) -> Floats:
    return ggml.product(I2_S, matrix.i2_s(), matrix.codes.shape[::-1], x, n_threads=n_threads, rows=rows)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 7])
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 128), (5, 256), (33, 1024), (31, 1152), (64, 2560), (128, 6912), (2, 1 << 17)]
)
def test_products_equal_the_reference_bit_for_bit(
    ggml: Ggml, rows: int, columns: int, tokens: int, n_threads: int
) -> None:
    matrix, x = random_matrix(rows, columns, seed=rows), random_activations(tokens, columns, seed=columns)
    np.testing.assert_array_equal(product(ggml, matrix, x, n_threads), ternary_product(matrix, x))


@pytest.mark.parametrize("columns", [128, 2560, 6912, 1 << 17])
@pytest.mark.parametrize(("code", "activation"), [(1, 1.0), (1, -3.0), (-1, 0.5)])
def test_equal_weights_and_activations_do_not_overflow(ggml: Ggml, columns: int, code: int, activation: float) -> None:
    matrix = Ternary(np.full((3, columns), code, np.int8), np.float32(1))
    x = np.full((2, columns), activation, np.float32)
    assert product(ggml, matrix, x).ravel().tolist() == [code * activation * columns] * 6


def test_halves_round_to_even(ggml: Ggml) -> None:
    x = np.zeros((1, 128), np.float32)
    x[0, :8] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5]
    matrix = Ternary(np.zeros((8, 128), np.int8), np.float32(1))
    np.fill_diagonal(matrix.codes, 1)
    assert product(ggml, matrix, x).ravel().tolist() == [127, 0, 2, 2, 0, -2, -2, 4]


def test_activations_below_the_floor_of_the_scale(ggml: Ggml) -> None:
    matrix, x = random_matrix(16, 256), random_activations(1, 256) * np.float32(1e-9)
    np.testing.assert_array_equal(product(ggml, matrix, x), ternary_product(matrix, x))
    assert not product(ggml, matrix, np.zeros((1, 256), np.float32)).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_token_that_is_not_finite_stays_alone(ggml: Ggml, bad: float) -> None:
    matrix, x = random_matrix(16, 256), random_activations(3, 256)
    good = product(ggml, matrix, x)
    x[1, 77] = bad
    y = product(ggml, matrix, x)
    assert not np.isfinite(y[1]).any()
    np.testing.assert_array_equal(y[[0, 2]], good[[0, 2]])


@pytest.mark.parametrize("rows", [slice(0, 3), slice(5, 20), slice(39, 40)])
def test_a_view_of_rows_finds_the_scale_of_the_whole(ggml: Ggml, rows: slice) -> None:
    matrix, x = random_matrix(40, 384), random_activations(2, 384)
    np.testing.assert_array_equal(product(ggml, matrix, x, rows=rows), ternary_product(matrix, x)[:, rows])


def test_code_3_of_a_damaged_file_stays_in_bounds(ggml: Ggml) -> None:
    columns = 6912
    data = b"\xff" * (columns // 4) + random_matrix(1, 128).i2_s()[-32:]
    scale = np.frombuffer(data[-32:-28], "<f4")[0]
    x = np.ones((1, columns), np.float32)
    y = ggml.product(I2_S, data, (columns, 1), x)
    assert y[0, 0] == np.float32(2 * 127 * columns) * scale / np.float32(127)


def test_sizes_count_the_tail_once(ggml: Ggml) -> None:
    context = ggml.context(no_alloc=True)
    tensor = ggml.ggml_new_tensor_2d(context, I2_S, 2560, 6912)
    assert ggml.ggml_type_name(I2_S) == b"i2_s"
    assert ggml.ggml_row_size(I2_S, 2560) == 640
    assert ggml.ggml_nbytes(tensor) == 2560 * 6912 // 4 + 32
    ggml.ggml_free(context)


def test_dequantized_weights_are_code_times_scale(ggml: Ggml) -> None:
    matrix = random_matrix(3, 640)
    y = np.empty(matrix.codes.shape, np.float32)
    pointer = y.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    ggml.i2_s_dequantize(matrix.i2_s(), float(matrix.scale), pointer, y.size)
    np.testing.assert_array_equal(y, matrix.codes * matrix.scale)


def test_the_cpu_offers_the_product_and_refuses_the_rest(ggml: Ggml) -> None:
    context = ggml.context(no_alloc=True)

    def tensor(kind: int, *ne: int) -> ctypes.c_void_p:
        return getattr(ggml, f"ggml_new_tensor_{len(ne)}d")(context, kind, *ne)

    weights, x, ids = tensor(I2_S, 256, 8), tensor(F32, 256, 2), tensor(I32, 2)
    assert ggml.supports(ggml.ggml_mul_mat(context, weights, x))
    assert ggml.supports(ggml.ggml_get_rows(context, tensor(F16, 256, 8), ids))
    refused = {
        "activations in F16": ggml.ggml_mul_mat(context, weights, tensor(F16, 256, 2)),
        "a stack of matrices": ggml.ggml_mul_mat(context, tensor(I2_S, 256, 8, 2), tensor(F32, 256, 2, 2)),
        "experts": ggml.ggml_mul_mat_id(context, tensor(I2_S, 256, 8, 4), tensor(F32, 256, 2, 1), tensor(I32, 2, 1)),
        "rows": ggml.ggml_get_rows(context, weights, ids),
        "from I2_S": ggml.ggml_cast(context, weights, F32),
        "to I2_S": ggml.ggml_cast(context, x, I2_S),
        "copy": ggml.ggml_dup(context, weights),
        "too wide for int32 sums": ggml.ggml_mul_mat(context, tensor(I2_S, 1 << 23, 1), tensor(F32, 1 << 23, 1)),
    }
    assert [name for name, op in refused.items() if ggml.supports(op)] == []
    ggml.ggml_free(context)
