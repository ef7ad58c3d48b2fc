"""Products of packed ternary weights, experts too, through ggml: every level gives the bits of a numpy reference."""

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
from tests.engine.ggml_graph import F32, I32, Floats, Ggml, Ids
from tests.engine.group_weights import TYPES, GroupType, GroupWeights

pytestmark = pytest.mark.engine

TQ1_0, TQ2_0, I2_S = 34, 35, 36
LEVELS = ["scalar", "avx2", "avx-vnni", "avx512-vnni", "amx", "neon-dotprod", "neon-i8mm"]


@pytest.fixture(scope="module")
def ggml(engine_lib_dir: Path) -> Ggml:
    return Ggml(engine_lib_dir)


class Weights:
    """Random codes with one scale, or with one for each row."""

    def __init__(self, rows: int, columns: int, scales: str, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, rows, columns])
        self.codes = rng.integers(-1, 2, (rows, columns), np.int8)
        self.blocks = -(-columns // 256)
        shape = {"one": (1, 1), "row": (rows, 1)}[scales]
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


class Experts:
    """Experts with random weights, and tokens that each choose some of them."""

    def __init__(self, rows: int, columns: int, experts: int, scales: str) -> None:
        self.ne = (columns, rows, experts)
        self.all = Weights(rows * experts, columns, scales)

    def times(self, x: Floats, ids: Ids) -> Floats:
        """The result [tokens, slots, rows] of x [tokens, 1 or slots, columns], as `Weights.times` gives it."""
        rows, experts = self.ne[1:]
        whole = self.all.times(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:2], experts, rows)
        whole = np.broadcast_to(whole, (len(ids), ids.shape[1], experts, rows))
        return np.take_along_axis(whole, ids[..., None, None], axis=2)[:, :, 0]


def choose(tokens: int, slots: int, experts: int) -> Ids:
    """Every token chooses expert 0, half of them also the last one, nobody the one before it; the others by chance."""
    rng = np.random.default_rng([tokens, slots, experts])
    others = range(1, experts - 2) if slots < experts else range(1, experts)
    ids = np.array([[0, *rng.permutation(others)[: slots - 1]] for _ in range(tokens)], np.int32)
    if 1 < slots < experts:
        ids[::2, 1] = experts - 1
    return np.ascontiguousarray(rng.permuted(ids, axis=1))


EXPERTS = [  # rows, columns, experts, slots, inputs, tokens, scales
    (16, 256, 12, 8, 1, 1, "one"), (16, 256, 12, 8, 8, 1, "row"), (48, 512, 12, 8, 1, 9, "row"),
    (32, 256, 12, 8, 8, 64, "row"), (160, 768, 5, 1, 1, 40, "one"), (64, 256, 12, 12, 1, 2, "row"),
    (528, 256, 5, 2, 1, 3, "one"), (16, 256, 12, 8, 1, 130, "row"),
]  # fmt: skip


@pytest.mark.parametrize("n_threads", [1, 2, 4])
@pytest.mark.parametrize("type_id", [TQ1_0, TQ2_0])
def test_products_with_experts_equal_the_reference(ggml: Ggml, type_id: int, n_threads: int) -> None:
    for rows, columns, n_experts, slots, inputs, tokens, scales in EXPERTS:
        experts, ids = Experts(rows, columns, n_experts, scales), choose(tokens, slots, n_experts)
        x = activations(tokens * inputs, columns).reshape(tokens, inputs, columns)
        data = experts.all.data(type_id)
        y = ggml.expert_product(type_id, data, experts.ne, x, ids, packed=True, n_threads=n_threads)
        if experts.all.by_segment:
            np.testing.assert_allclose(y, experts.times(x, ids), rtol=2e-6, atol=1e-6 * np.abs(y).max())
        else:
            np.testing.assert_array_equal(y, experts.times(x, ids))


def test_experts_lose_no_more_than_upstream(ggml: Ggml) -> None:
    experts, ids, x = Experts(64, 1536, 6, "row"), choose(32, 3, 6), activations(32, 1536)[:, None]
    data, rows = experts.all.data(TQ2_0), experts.all.codes * experts.all.d[:, :1].astype(np.float32)
    exact = np.einsum("tsrc,tc->tsr", rows.reshape(6, 64, 1536)[ids], x[:, 0])
    ours, upstreams = (
        ggml.expert_product(TQ2_0, data, experts.ne, x, ids, packed=yes) - exact for yes in (True, False)
    )
    assert np.sqrt((ours**2).mean()) <= 1.02 * np.sqrt((upstreams**2).mean())


@pytest.mark.parametrize("type_", TYPES.values(), ids=TYPES.keys())
def test_experts_with_group_scales_are_like_matrices(ggml: Ggml, type_: GroupType) -> None:
    rows, columns, n_experts = 48, 768, 6
    data = GroupWeights(type_, rows * n_experts, columns).data()
    ids, x = choose(9, 3, n_experts), activations(9, columns)
    y = ggml.expert_product(type_.id, data, (columns, rows, n_experts), x[:, None], ids, packed=True, n_threads=2)
    size = len(data) // n_experts
    for expert in range(n_experts):
        alone = ggml.repacked_product(type_.id, data[size * expert : size * (expert + 1)], (columns, rows), x)
        for token, slot in np.argwhere(ids == expert):
            np.testing.assert_array_equal(y[token, slot], alone[token])


def test_experts_that_begin_within_a_panel_are_left_to_upstream(ggml: Ggml) -> None:
    type_ = ggml.buffer_type(b"CPU_TERNARY")
    assert type_ is not None
    for rows, ours in ((32, True), (24, False)):
        headers = ggml.context(no_alloc=True)
        weights = ggml.ggml_new_tensor_3d(headers, TQ2_0, 256, rows, 4)
        buffer = ggml.ggml_backend_alloc_ctx_tensors_from_buft(headers, type_)
        x, ids = ggml.ggml_new_tensor_3d(headers, F32, 256, 1, 2), ggml.ggml_new_tensor_2d(headers, I32, 3, 2)
        assert ggml.supports(ggml.ggml_mul_mat_id(headers, weights, x, ids)) is ours
        ggml.ggml_backend_buffer_free(buffer)
        ggml.ggml_free(headers)


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


def level_in_use(engine_lib_dir: Path, asked: str) -> tuple[str, str]:
    """What the library says that it uses with this EDGELLM_KERNELS, and what it writes about that."""
    script = "import sys; from pathlib import Path; from edgellm.engine.kernels import kernel_name; "
    script += "print(kernel_name(Path(sys.argv[1])))"
    result = subprocess.run(
        [sys.executable, "-c", script, str(engine_lib_dir)],
        env={**os.environ, "EDGELLM_KERNELS": asked}, capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    return result.stdout.strip(), result.stderr.strip()


def test_a_level_that_is_not_there_is_said(engine_lib_dir: Path) -> None:
    best, said = level_in_use(engine_lib_dir, "")
    assert best in LEVELS and not said
    for asked in ("avx1024", "AVX2", "avx512"):  # the last one is no level, attention's kernels need it
        message = f"edgellm: EDGELLM_KERNELS={asked} is not among this machine's kernels; using {best}"
        assert level_in_use(engine_lib_dir, asked) == (best, message)
    for asked in ("scalar", "stock", best):
        assert level_in_use(engine_lib_dir, asked) == (asked, "")


def main() -> None:
    """Print the level in use, then the results of all cases."""
    ggml = Ggml(Path(os.environ["TERNARY_LEVELS_LIBRARIES"]))
    sys.stdout.buffer.write(ggml.edgellm_kernels() + b"\n")
    for type_id, scales, rows, columns, tokens in CASES:
        weights, x = Weights(rows, columns, scales), activations(tokens, columns)
        y = ggml.repacked_product(type_id, weights.data(type_id), (columns, rows), x, n_threads=2)
        sys.stdout.buffer.write(y.tobytes())
    for rows, columns, n_experts, slots, inputs, tokens, scales in EXPERTS:
        experts, ids = Experts(rows, columns, n_experts, scales), choose(tokens, slots, n_experts)
        x = activations(tokens * inputs, columns).reshape(tokens, inputs, columns)
        data = experts.all.data(TQ2_0)
        y = ggml.expert_product(TQ2_0, data, experts.ne, x, ids, packed=True, n_threads=2)
        sys.stdout.buffer.write(y.tobytes())
    for type_ in TYPES.values():
        for rows, tokens in ((40, 1), (33, 19)):
            groups = GroupWeights(type_, rows, 768)
            y = ggml.repacked_product(type_.id, groups.data(), (768, rows), activations(tokens, 768), n_threads=2)
            sys.stdout.buffer.write(y.tobytes())


if __name__ == "__main__":
    main()
