"""Products of quantised weights with a few tokens: what the engine computes for one token alone, and what is exact."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.quantize import Quantizer
from edgellm.formats.quant_types import named_type
from tests.engine.ggml_graph import Ggml

pytestmark = pytest.mark.engine
TYPES = ["Q4_0", "Q4_1", "Q8_0", "Q6_K"]


@pytest.fixture(scope="module")
def ggml(engine_lib_dir: Path) -> Ggml:
    return Ggml(engine_lib_dir)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("shape", [(256, 1), (512, 63), (768, 130), (1536, 64)])
def test_together_as_each_alone(ggml: Ggml, engine: InstalledEngine, name: str, shape: tuple[int, int]) -> None:
    columns, rows = shape
    rng = np.random.default_rng(columns + rows)
    weights = (0.3 + rng.standard_normal((rows, columns))).astype(np.float32)
    kind = named_type(name)
    data = Quantizer(engine.libraries, n_threads=1)(weights, kind).tobytes()
    x = (0.2 + rng.standard_normal((40, columns))).astype(np.float32)
    x[3, :32] = 0  # a block of zeros has the scale zero
    x[5, 64:128] *= 1000
    alone = np.concatenate([ggml.product(kind.id, data, (columns, rows), x[i : i + 1]) for i in range(len(x))])
    size = np.sqrt((alone.astype(np.float64) ** 2).mean(axis=1))[:, None] + 1e-6
    for n in (2, 3, 7, 8, 9, 16, 17, 40):
        for n_threads in (1, 2):
            together = ggml.product(kind.id, data, (columns, rows), x[:n], n_threads=n_threads)
            # The same int8 activations and sums of them: only the order of float additions differs.
            assert (np.abs(together - alone[:n]) / size[:n]).max() < 2e-5, (n, n_threads)


@pytest.mark.parametrize("name", ["Q4_0", "Q8_0"])
def test_sums_are_exact(ggml: Ggml, engine: InstalledEngine, name: str) -> None:
    """Activations that int8 holds exactly, against float64 over the weights as they are stored."""
    rng = np.random.default_rng(7)
    kind = named_type(name)
    quantizer = Quantizer(engine.libraries, n_threads=1)
    data = quantizer(rng.standard_normal((48, 640)).astype(np.float32), kind)
    x = rng.integers(-127, 128, (6, 640)).astype(np.float32)
    x[:, ::32] = 127
    exact = x.astype(np.float64) @ quantizer.decode(data, kind).astype(np.float64).T
    found = ggml.product(kind.id, data.tobytes(), (640, 48), x)
    assert np.abs(found - exact).max() / np.abs(exact).max() < 2e-6


def test_stock_is_stock(engine_lib_dir: Path) -> None:
    """The same numbers bit for bit as one token alone gives: so nothing of ours was in it."""
    check = (
        "import numpy as np; from pathlib import Path; from tests.engine.ggml_graph import Ggml\n"
        f"g = Ggml(Path({str(engine_lib_dir)!r})); r = np.random.default_rng(0)\n"
        "w = r.integers(0, 255, (8, 6 * 20), dtype=np.uint8); w[:, 1::20] = 0x2c; w[:, 3::20] = 0x2c\n"
        "x = r.standard_normal((2, 192)).astype(np.float32)\n"
        "two = g.product(3, w.tobytes(), (192, 8), x); one = g.product(3, w.tobytes(), (192, 8), x[:1])\n"
        "print(np.array_equal(two[:1], one))"
    )
    env = {**os.environ, "EDGELLM_KERNELS": "stock"}
    found = subprocess.run([sys.executable, "-c", check], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "True"
