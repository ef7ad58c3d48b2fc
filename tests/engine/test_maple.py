"""A mixture of ternary experts in the engine, against the same in plain numpy."""

from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.quant_types import named_type
from edgellm.weights.random_model import write_random_model
from tests.engine.engine_logits import logits
from tests.engine.maple_reference import forward, read_weights
from tests.measure.shapes import tiny
from tests.weights.engine_run import divergence, relative_rmse

pytestmark = pytest.mark.engine

# The fourth layer has no sliding window; `down` has two segments.
SHAPE = tiny("maple", n_layer=4, n_embd=512, n_ff=512, n_head=4, n_head_kv=2, n_expert=8, n_expert_used=3)
TOKENS = np.random.default_rng(3).integers(0, 256, 24)


@pytest.fixture(scope="module")
def maple(llama: LlamaEngine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, whose norms are random as well."""
    path = tmp_path_factory.mktemp("maple") / "maple.gguf"
    codec = Quantizer(llama.installed.libraries, 1)
    write_random_model(path, SHAPE, weights=named_type("TQ2_0"), head=named_type("F32"), codec=codec)
    random = np.random.default_rng(1)
    with GGUFFile.open(path) as gguf:
        norms = [info for name, info in gguf.tensors.items() if name.endswith("norm.weight")]
    with path.open("r+b") as file:
        for info in norms:
            file.seek(info.offset)
            file.write(random.uniform(0.5, 1.5, info.shape).astype(np.float32).tobytes())
    return path


def test_it_computes_what_the_reference_computes(llama: LlamaEngine, maple: Path) -> None:
    expected = forward(SHAPE, read_weights(maple), TOKENS)
    found = logits(llama, maple, TOKENS.tolist())
    assert relative_rmse(found, expected)[0] <= 1e-3
    assert divergence(found, expected) <= 0.01
    # upstream's products round activations differently
    assert divergence(logits(llama, maple, TOKENS.tolist(), extra_bufts=False), expected) <= 0.02


@pytest.mark.parametrize("n_batch", [1, 5])
def test_batching_and_threads_change_nothing(llama: LlamaEngine, maple: Path, n_batch: int) -> None:
    whole = logits(llama, maple, TOKENS.tolist())
    pieces = logits(llama, maple, TOKENS.tolist(), n_batch=n_batch, n_threads=3)
    assert relative_rmse(pieces, whole).max() <= 1e-5


def test_a_warm_up_meets_all_experts(llama: LlamaEngine, maple: Path) -> None:
    model = llama.load(maple)
    context = model.open_context(n_ctx=64, n_batch=64, n_threads=2)
    llama._c.llama_set_warmup(context._pointer, True)
    context.decode(TOKENS[:3].tolist())
    assert np.isfinite(context.logits()).all()
    context.close()
    model.close()
