"""Products of packed weights of four to eight bits, as upstream quantizes them: errors, company, levels, experts."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.quantize import Quantizer
from edgellm.formats.quant_types import QuantType, named_type
from edgellm.machine.cpu import detect
from tests.engine.ggml_graph import Floats, Ggml
from tests.engine.group_weights import activations

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif("avx2" not in detect().instruction_sets, reason="these are packed on x86 with AVX2 only"),
]
TYPES = ["Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# The high bytes of the fp16 numbers of a block.
HALFS = {"Q4_0": [1], "Q4_1": [1, 3], "Q8_0": [1], "Q4_K": [1, 3], "Q5_K": [1, 3], "Q6_K": [209]}
LEVELS = ["scalar", "avx2", "avx-vnni", "avx512-vnni", "amx"]


@pytest.fixture(scope="module")
def ggml(engine_lib_dir: Path) -> Ggml:
    return Ggml(engine_lib_dir)


class Weights:
    """Normally distributed weights around 0.3, quantized by upstream: their bytes, and what they decode to."""

    def __init__(self, quantizer: Quantizer, name: str, rows: int, columns: int) -> None:
        self.type: QuantType = named_type(name)
        rng = np.random.default_rng([rows, columns])
        encoded = quantizer((0.3 + rng.standard_normal((rows, columns))).astype(np.float32), self.type)
        self.data = encoded.tobytes()
        self.floats: npt.NDArray[np.float64] = quantizer.decode(encoded, self.type).astype(np.float64)


@pytest.fixture(scope="module")
def quantizer(engine: InstalledEngine) -> Quantizer:
    return Quantizer(engine.libraries, n_threads=1)


def error(y: Floats, exact: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(((y - exact) ** 2).mean()))


@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize("name", TYPES)
def test_errors_are_not_larger_than_upstreams(ggml: Ggml, quantizer: Quantizer, name: str, tokens: int) -> None:
    weights, x = Weights(quantizer, name, 512, 1536), activations(tokens, 1536)
    exact = x.astype(np.float64) @ weights.floats.T
    ours = ggml.repacked_product(weights.type.id, weights.data, (1536, 512), x)
    upstreams = ggml.product(weights.type.id, weights.data, (1536, 512), x)
    assert error(ours, exact) <= 1.005 * error(upstreams, exact)
    assert error(ours, exact) <= 0.01 * np.sqrt((exact**2).mean())


@pytest.mark.parametrize("name", TYPES)
def test_sums_are_exact(ggml: Ggml, quantizer: Quantizer, name: str) -> None:
    """Activations that int8 holds exactly."""
    weights = Weights(quantizer, name, 48, 768)
    x = np.random.default_rng(7).integers(-127, 128, (6, 768)).astype(np.float32)
    x[:, ::32] = 127
    exact = x.astype(np.float64) @ weights.floats.T
    found = ggml.repacked_product(weights.type.id, weights.data, (768, 48), x, n_threads=2)
    assert np.abs(found - exact).max() <= 2e-6 * np.abs(exact).max()


@pytest.mark.parametrize("rows", [1, 63, 130])
@pytest.mark.parametrize("name", TYPES)
def test_a_row_gives_the_same_bits_alone_and_in_company(ggml: Ggml, quantizer: Quantizer, name: str, rows: int) -> None:
    weights, x = Weights(quantizer, name, rows, 512), activations(64, 512)
    x[3, :32] = 0

    def times(some: Floats, n_threads: int) -> Floats:
        return ggml.repacked_product(weights.type.id, weights.data, (512, rows), some, n_threads=n_threads)

    alone = np.concatenate([times(x[i : i + 1], 1) for i in range(len(x))])
    for n in (2, 3, 8, 9, 17, 64):
        for n_threads in (1, 2):
            np.testing.assert_array_equal(times(x[:n], n_threads), alone[:n])


@pytest.mark.parametrize("name", TYPES)
def test_experts_are_matrices(ggml: Ggml, quantizer: Quantizer, name: str) -> None:
    weights, x = Weights(quantizer, name, 4 * 32, 256), activations(7, 256)
    ids = np.random.default_rng(1).integers(0, 4, (7, 2)).astype(np.int32)
    found = ggml.expert_product(weights.type.id, weights.data, (256, 32, 4), x[:, None], ids, packed=True, n_threads=2)
    size = len(weights.data) // 4
    for expert in range(4):
        data = weights.data[size * expert : size * (expert + 1)]
        alone = ggml.repacked_product(weights.type.id, data, (256, 32), x)
        for token, slot in np.argwhere(ids == expert):
            np.testing.assert_array_equal(found[token, slot], alone[token])


def test_all_levels_give_the_same_bits(engine_lib_dir: Path) -> None:
    script = "import sys; from pathlib import Path; from tests.engine.test_packed_products import write_products; "
    found = {}
    for level in LEVELS:
        result = subprocess.run(
            [sys.executable, "-c", script + "write_products(Path(sys.argv[1]))", str(engine_lib_dir)],
            env={**os.environ, "EDGELLM_KERNELS": level}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            check=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        name, _, data = result.stdout.partition(b"\n")
        if name.decode() == level:
            found[level] = np.frombuffer(data, np.float32)
    assert {"scalar", "avx2"} <= found.keys()
    for level, values in found.items():
        np.testing.assert_array_equal(values, found["scalar"], err_msg=level)


def write_products(libraries: Path) -> None:
    """Print the level in use, then products of random blocks, whose scales are small numbers."""
    ggml, rng = Ggml(libraries), np.random.default_rng(5)
    sys.stdout.buffer.write(ggml.edgellm_kernels() + b"\n")
    for name in TYPES:
        kind, at = named_type(name), HALFS[name]
        for rows, tokens in ((40, 1), (33, 19)):
            blocks = rng.integers(0, 256, (rows * 768 // kind.block_size, kind.block_bytes), np.uint8)
            blocks[:, at] = 0x2C
            y = ggml.repacked_product(kind.id, blocks.tobytes(), (768, rows), activations(tokens, 768), n_threads=2)
            sys.stdout.buffer.write(y.tobytes())
