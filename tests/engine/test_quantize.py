"""ggml's quantizers, called from Python."""

import gguf
import numpy as np
import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.quantize import Quantizer
from edgellm.formats.quant_types import named_type
from edgellm.weights.slabs import Floats

pytestmark = pytest.mark.engine

VALUES = np.random.default_rng(5).standard_normal((37, 512), np.float32)


@pytest.mark.parametrize("name", ["Q6_K", "Q4_K", "Q5_0", "IQ4_NL"])
def test_weights_come_back_close(engine: InstalledEngine, name: str) -> None:
    data = Quantizer(engine.libraries, n_threads=1)(VALUES, named_type(name))
    back = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
    assert np.sqrt(((back - VALUES) ** 2).mean()) < {"Q6_K": 0.02, "Q4_K": 0.08, "Q5_0": 0.05, "IQ4_NL": 0.1}[name]


def test_numpy_and_ggml_agree_on_q8_0(engine: InstalledEngine) -> None:
    data = Quantizer(engine.libraries, n_threads=1)(VALUES, named_type("Q8_0"))
    np.testing.assert_array_equal(data, Floats(VALUES).encode(named_type("Q8_0")))


def test_threads_do_not_change_the_bytes(engine: InstalledEngine) -> None:
    one, many = (Quantizer(engine.libraries, n_threads=n)(VALUES, named_type("Q6_K")) for n in (1, 5))
    np.testing.assert_array_equal(one, many)
    assert Quantizer(engine.libraries, n_threads=3)(VALUES[:1], named_type("Q6_K")).shape == (1, 420)
