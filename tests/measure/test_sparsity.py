"""The counter of zeros behind squared ReLU, on random weights: half of the gates."""

from pathlib import Path

import pytest

from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.formats.quant_types import named_type
from edgellm.weights.random_model import write_random_model
from tests.measure.shapes import tiny
from tests.measure.sparsity import DOWN, GATE, zero_shares

pytestmark = pytest.mark.engine


def test_half_of_the_gates_of_random_weights_are_zero(llama: LlamaEngine, tmp_path: Path) -> None:
    path, codec = tmp_path / "bitnet.gguf", Quantizer(llama.installed.libraries, 1)
    write_random_model(path, tiny(), weights=named_type("I2_S"), head=named_type("Q6_K"), codec=codec)
    shares = zero_shares(llama, path, list(range(60)))
    assert sorted(shares[GATE]) == sorted(shares[DOWN]) == [0, 1]
    for layer in (0, 1):
        assert 0.4 < shares[GATE][layer] < 0.6 and shares[DOWN][layer] > shares[GATE][layer]


def test_other_activations_have_none(llama: LlamaEngine, tmp_path: Path) -> None:
    path, codec = tmp_path / "llama.gguf", Quantizer(llama.installed.libraries, 1)
    write_random_model(path, tiny("llama"), weights=named_type("Q4_0"), head=named_type("Q6_K"), codec=codec)
    assert not zero_shares(llama, path, [1, 2, 3])[GATE]
