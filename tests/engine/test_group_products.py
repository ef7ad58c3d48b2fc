"""Products of weights with group scales (Q2_0, Q1_0, TQ types whose blocks differ) through ggml, against numpy."""

from pathlib import Path

import numpy as np
import pytest

from tests.engine.ggml_graph import Ggml
from tests.engine.group_weights import Q1_0, TYPES, GroupWeights, activations

pytestmark = pytest.mark.engine

# Groups of a row, rows, tokens.
SHAPES = [(1, 16, 1), (3, 33, 5), (6, 100, 17), (2, 1, 40), (8, 640, 2)]


@pytest.fixture(scope="module")
def ggml(engine_lib_dir: Path) -> Ggml:
    return Ggml(engine_lib_dir)


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize(("groups", "rows", "tokens"), SHAPES)
@pytest.mark.parametrize("name", TYPES)
def test_products_equal_the_reference(
    ggml: Ggml, name: str, groups: int, rows: int, tokens: int, n_threads: int
) -> None:
    if name.startswith("TQ") and groups == 1:
        groups = 2  # a single block is a scale a row, which test_ternary_levels.py has
    columns = groups * TYPES[name].columns
    weights, x = GroupWeights(TYPES[name], rows, columns), activations(tokens, columns)
    y = ggml.repacked_product(weights.type.id, weights.data(), (columns, rows), x, n_threads=n_threads)
    np.testing.assert_allclose(y, weights.times(x), rtol=2e-6, atol=1e-6 * np.abs(y).max())


def test_plus_two_is_a_weight_of_q2_0(ggml: Ggml) -> None:
    """The fourth code, which upstream's quantizer writes and dequantizer reads."""
    for type_ in (TYPES["Q2_0"], TYPES["Q2_0_G128"]):
        weights, x = GroupWeights(type_, 40, 384, twos=True), activations(3, 384)
        y = ggml.repacked_product(type_.id, weights.data(), (384, 40), x)
        np.testing.assert_allclose(y, weights.times(x), rtol=2e-6, atol=1e-6 * np.abs(y).max())


@pytest.mark.parametrize("name", TYPES)
def test_nothing_is_lost_against_upstreams_product(ggml: Ggml, name: str) -> None:
    weights, x = GroupWeights(TYPES[name], 256, 1536), activations(32, 1536)
    exact = x.astype(np.float64) @ weights.floats().T
    ours = ggml.repacked_product(weights.type.id, weights.data(), (1536, 256), x) - exact
    upstreams = ggml.product(weights.type.id, weights.data(), (1536, 256), x) - exact
    assert np.sqrt((ours**2).mean()) <= 1.005 * np.sqrt((upstreams**2).mean())


@pytest.mark.parametrize("name", TYPES)
def test_a_token_does_not_depend_on_its_company(ggml: Ggml, name: str) -> None:
    weights, x = GroupWeights(TYPES[name], 48, 768), activations(19, 768)
    together = ggml.repacked_product(weights.type.id, weights.data(), (768, 48), x)
    for token in (0, 7, 18):
        alone = ggml.repacked_product(weights.type.id, weights.data(), (768, 48), x[token : token + 1])
        np.testing.assert_array_equal(alone[0], together[token])


def test_equal_activations_are_exact(ggml: Ggml) -> None:
    """Every weight +1 and every activation the same: the largest sums that a segment can have."""
    weights, x = GroupWeights(Q1_0, 16, 4096), np.full((2, 4096), 127, np.float32)
    weights.codes[:], weights.d[:] = 1, 1
    y = ggml.repacked_product(Q1_0.id, weights.data(), (4096, 16), x)
    np.testing.assert_array_equal(y, np.full((2, 16), 127 * 4096, np.float32))
