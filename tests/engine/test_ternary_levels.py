"""Products of repacked ternary weights through ggml: every level of the kernels gives the bits of a numpy reference."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgellm.formats.ternary import i2_s_tail, pack_i2_s, pack_tq1_0, pack_tq2_0
from tests.engine.ggml_graph import Floats, Ggml

pytestmark = pytest.mark.engine

TQ1_0, TQ2_0, I2_S = 34, 35, 36
LEVELS = ["scalar", "avx2", "avx-vnni", "avx512-vnni", "amx", "neon-dotprod", "neon-i8mm"]


@pytest.fixture(scope="module")
def ggml(engine_lib_dir: Path) -> Ggml:
    return Ggml(engine_lib_dir)


class Weights:
    """Random codes with one scale, with one for each row, or with one for each block of 256."""

    def __init__(self, rows: int, columns: int, scales: str, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, rows, columns])
        self.codes = rng.integers(-1, 2, (rows, columns), np.int8)
        self.blocks = -(-columns // 256)
        shape = {"one": (1, 1), "row": (rows, 1), "block": (rows, self.blocks)}[scales]
        self.d = np.broadcast_to(rng.uniform(0.01, 2, shape).astype(np.float16), (rows, self.blocks))
        self.by_segment = scales != "one" and len(np.unique(self.d[:, 0])) > 1

    def data(self, type_id: int) -> bytes:
        if type_id == I2_S:
            return pack_i2_s(self.codes).tobytes() + i2_s_tail(float(self.d[0, 0]))
        return (pack_tq1_0 if type_id == TQ1_0 else pack_tq2_0)(self.codes, np.ascontiguousarray(self.d)).tobytes()

    def times(self, x: Floats) -> Floats:
        """The result, operation by operation: per token, or per segment with fused additions."""
        scale = self.d[:, 0].astype(np.float32)
        if not self.by_segment:
            sums, s = self._sums(x, slice(None))
            return sums.astype(np.float32) * scale / s
        total = np.zeros((len(x), len(self.codes)), np.float32)
        for start in range(0, x.shape[1], 256):
            sums, s = self._sums(x, slice(start, start + 256))
            # float64 holds the product of an integer below 2^24 and a float32 exactly, and the sum nearly
            total = (sums * (np.float32(1) / s).astype(np.float64) + total).astype(np.float32)
        return total * scale

    def _sums(self, x: Floats, columns: slice) -> tuple[np.ndarray, Floats]:
        part = x[:, columns]
        s = np.float32(127) / np.maximum(np.abs(part).max(axis=-1, keepdims=True), np.float32(1e-5))
        q = np.clip(np.rint(part * s), -128, 127).astype(np.float64)
        return q @ self.codes[:, columns].T.astype(np.float64), s


def activations(tokens: int, columns: int, seed: int = 1) -> Floats:
    rng = np.random.default_rng([seed, tokens, columns])
    return (rng.standard_normal((tokens, columns)) * rng.uniform(0.01, 100, (tokens, 1))).astype(np.float32)


CASES = [
    (I2_S, "one", 16, 128, 1), (I2_S, "one", 33, 384, 5), (I2_S, "one", 640, 2560, 1), (I2_S, "one", 2560, 6912, 2),
    (I2_S, "one", 1, 128, 17), (I2_S, "one", 100, 1152, 130), (TQ2_0, "one", 48, 512, 3), (TQ1_0, "one", 48, 512, 9),
    (TQ2_0, "row", 96, 1536, 1), (TQ2_0, "row", 40, 4096, 12), (TQ1_0, "row", 33, 768, 33), (TQ1_0, "row", 5, 256, 1),
]  # fmt: skip


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("type_id", "scales", "rows", "columns", "tokens"), CASES)
def test_products_equal_the_reference(
    ggml: Ggml, type_id: int, scales: str, rows: int, columns: int, tokens: int, n_threads: int
) -> None:
    weights, x = Weights(rows, columns, scales), activations(tokens, columns)
    y = ggml.repacked_product(type_id, weights.data(type_id), (columns, rows), x, n_threads=n_threads)
    if weights.by_segment:
        np.testing.assert_allclose(y, weights.times(x), rtol=2e-6, atol=1e-6 * np.abs(y).max())
    else:
        np.testing.assert_array_equal(y, weights.times(x))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 70), blocks=st.integers(1, 6), tokens=st.integers(1, 40), seed=st.integers(0, 9),
    kind=st.sampled_from([I2_S, TQ1_0, TQ2_0]),
)  # fmt: skip
def test_any_shape(ggml: Ggml, rows: int, blocks: int, tokens: int, seed: int, kind: int) -> None:
    columns = blocks * (128 if kind == I2_S else 256)
    weights, x = Weights(rows, columns, "one", seed), activations(tokens, columns, seed)
    y = ggml.repacked_product(kind, weights.data(kind), (columns, rows), x, n_threads=2)
    np.testing.assert_array_equal(y, weights.times(x))


def test_i2_s_is_the_same_with_and_without_the_repacking(ggml: Ggml) -> None:
    weights, x = Weights(96, 1280, "one"), activations(9, 1280)
    data = weights.data(I2_S)
    repacked = ggml.repacked_product(I2_S, data, (1280, 96), x)
    np.testing.assert_array_equal(ggml.product(I2_S, data, (1280, 96), x), repacked)


@pytest.mark.parametrize("type_id", [TQ1_0, TQ2_0])
def test_blocks_with_different_scales_take_upstreams_path(ggml: Ggml, type_id: int) -> None:
    weights, x = Weights(32, 1024, "block"), activations(3, 1024)
    data = weights.data(type_id)
    repacked = ggml.repacked_product(type_id, data, (1024, 32), x)
    np.testing.assert_array_equal(repacked, ggml.product(type_id, data, (1024, 32), x))


@pytest.mark.parametrize("type_id", [TQ1_0, TQ2_0])
def test_blocks_of_zeros_go_with_any_scale(ggml: Ggml, type_id: int) -> None:
    """ggml stores the scale 0 for them, also where the rest of the tensor has one."""
    weights, x = Weights(40, 1024, "one"), activations(3, 1024)
    weights.codes[3:5, 256:512], weights.codes[7], weights.codes[0] = 0, 0, 0
    zeros = ~weights.codes.reshape(40, 4, 256).any(axis=2)
    weights.d = np.where(zeros, np.float16(0), weights.d)
    y = ggml.repacked_product(type_id, weights.data(type_id), (1024, 40), x)
    weights.d = np.full_like(weights.d, weights.d.max())
    np.testing.assert_array_equal(y, weights.times(x))


@pytest.mark.parametrize("type_id", [TQ1_0, TQ2_0])
def test_row_scales_lose_no_more_than_upstream(ggml: Ggml, type_id: int) -> None:
    weights, x = Weights(256, 1536, "row"), activations(32, 1536)
    data, exact = weights.data(type_id), x @ (weights.codes * weights.d[:, :1].astype(np.float32)).T
    ours = ggml.repacked_product(type_id, data, (1536, 256), x) - exact
    upstreams = ggml.product(type_id, data, (1536, 256), x) - exact
    assert np.sqrt((ours**2).mean()) <= 1.02 * np.sqrt((upstreams**2).mean())


def all_levels() -> Iterator[tuple[str, Floats]]:
    """The name and the results of a few products at each level that this machine has, each in a process of its own."""
    for level in LEVELS:
        environment = {**os.environ, "EDGELLM_KERNELS": level}
        result = subprocess.run(
            [sys.executable, "-m", "tests.engine.test_ternary_levels"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
            cwd=Path(__file__).parents[2],
        )  # fmt: skip
        name, _, data = result.stdout.partition(b"\n")
        if name.decode() == level:
            yield level, np.frombuffer(data, np.float32)


def test_all_levels_give_the_same_bits(engine_lib_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERNARY_LEVELS_LIBRARIES", str(engine_lib_dir))
    found = dict(all_levels())
    assert "scalar" in found
    for level, values in found.items():
        np.testing.assert_array_equal(values, found["scalar"], err_msg=level)


def test_stock_offers_no_buffer_type(engine_lib_dir: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.engine.ggml_graph import Ggml; "
        "g = Ggml(Path(sys.argv[1])); print(g.buffer_type(b'CPU_TERNARY'), g.edgellm_kernels().decode())"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, str(engine_lib_dir)],
        env={**os.environ, "EDGELLM_KERNELS": "stock"}, capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert result.stdout.split() == ["None", "stock"]


def main() -> None:
    """Print the level in use, then the results of all cases."""
    ggml = Ggml(Path(os.environ["TERNARY_LEVELS_LIBRARIES"]))
    sys.stdout.buffer.write(ggml.edgellm_kernels() + b"\n")
    for type_id, scales, rows, columns, tokens in CASES:
        weights, x = Weights(rows, columns, scales), activations(tokens, columns)
        y = ggml.repacked_product(type_id, weights.data(type_id), (columns, rows), x, n_threads=2)
        sys.stdout.buffer.write(y.tobytes())


if __name__ == "__main__":
    main()
