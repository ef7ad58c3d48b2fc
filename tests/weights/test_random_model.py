"""Random models of a shape, run by the real engine, and their twins for stock kernels."""

from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.errors import CorruptFile, LossyTranscode, UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.quant_types import named_type
from edgellm.formats.ternary import i2_s_scale, unpack_i2_s, unpack_q2_0, unpack_q2_0_g128, unpack_tq2_0
from edgellm.models.fit.shape import Shape
from edgellm.models.fit.traffic import bytes_per_token
from edgellm.weights.random_model import weight_type, write_random_model
from edgellm.weights.stock_twin import needs_twin, write_stock_twin
from edgellm.weights.tensor_table import tensor_table
from tests.measure.shapes import EVERY, tiny

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def llama(engine: InstalledEngine) -> LlamaEngine:
    return LlamaEngine(engine)


def make(path: Path, shape: Shape, llama: LlamaEngine, quant: str = "Q4_0", head: str = "Q6_K") -> Path:
    codec = Quantizer(llama.installed.libraries, 2)
    write_random_model(path, shape, weights=weight_type(quant), head=weight_type(head), codec=codec)
    return path


@pytest.mark.parametrize("architecture", EVERY)
@pytest.mark.parametrize("quant", ["I2_S", "Q4_0"])
def test_every_architecture_runs(llama: LlamaEngine, tmp_path: Path, architecture: str, quant: str) -> None:
    model = llama.load(make(tmp_path / "random.gguf", EVERY[architecture], llama, quant))
    context = model.open_context(n_ctx=64, n_batch=64, n_threads=1)
    context.decode(model.tokenize("1234 words and more of them"))
    logits = context.logits()
    context.close(), model.close()
    assert logits.shape == (400,) and np.isfinite(logits).all()
    assert 0.01 < float(np.std(logits)) < 100  # neither dead nor overflowing


@pytest.mark.parametrize("quant", ["TQ1_0", "TQ2_0", "Q2_0", "Q1_0", "Q8_0", "Q4_K", "IQ2_XXS", "F16", "BF16", "F32"])
def test_every_kind_of_type_can_be_made(llama: LlamaEngine, tmp_path: Path, quant: str) -> None:
    path = make(tmp_path / "random.gguf", EVERY["llama"], llama, quant)
    with GGUFFile.open(path) as gguf:
        assert gguf.tensors["blk.1.ffn_down.weight"].type.name == quant
        assert gguf.tensors["output.weight"].type.name == "Q6_K"
        assert len(set(gguf.get_array("tokenizer.ggml.tokens"))) == 400
    llama.load(path).close()


@pytest.mark.parametrize("quant", ["Q2_0", "Q1_0", "TQ2_0"])
def test_embedding_and_head_may_be_of_few_bits_too(llama: LlamaEngine, tmp_path: Path, quant: str) -> None:
    model = llama.load(make(tmp_path / "random.gguf", tiny("qwen3"), llama, quant, quant))
    context = model.open_context(n_ctx=64, n_batch=64, n_threads=1)
    context.decode(model.tokenize("1234 words"))
    assert 0.01 < float(np.std(context.logits())) < 100
    context.close(), model.close()


def test_types_that_cannot_be_are_refused(llama: LlamaEngine, tmp_path: Path) -> None:
    for name in ("Q4_K_M", "I8", "nonsense"):
        with pytest.raises(UsageError):
            weight_type(name)
    narrow = tiny("llama", n_embd=192, head_dim=48)
    with pytest.raises(UsageError, match="cannot be made in Q4_K"):
        make(tmp_path / "random.gguf", narrow, llama, "Q4_K", "Q8_0")
    assert not list(tmp_path.iterdir())


def test_the_same_shape_gives_the_same_bytes(llama: LlamaEngine, tmp_path: Path) -> None:
    first, second = (make(tmp_path / name, tiny(), llama, "I2_S") for name in ("a.gguf", "b.gguf"))
    assert first.read_bytes() == second.read_bytes()


def test_the_twin_holds_the_same_weights(llama: LlamaEngine, tmp_path: Path) -> None:
    path, twin = make(tmp_path / "i2_s.gguf", tiny(), llama, "I2_S"), tmp_path / "twin.gguf"
    write_stock_twin(path, twin)
    with GGUFFile.open(path) as ours, GGUFFile.open(twin) as stock:
        assert needs_twin(ours) and not needs_twin(stock)
        for name, info in ours.tensors.items():
            data, other = ours.tensor_bytes(name), stock.tensor_bytes(name)
            if info.type.name != "I2_S":
                assert np.array_equal(data, other)
                continue
            codes, d = unpack_tq2_0(other.reshape(info.shape[1], -1), name=name)
            assert np.array_equal(codes, unpack_i2_s(data[:-32].reshape(info.shape[1], -1), name=name))
            assert np.unique(d).tolist() == [i2_s_scale(data, name=name)]
            assert stock.tensors[name].type is named_type("TQ2_0")
        del data, other
    model = llama.load(twin)
    assert model.info.quant.startswith("TQ2_0")
    model.close()


def test_the_twin_of_groups_of_128_repeats_their_scales(llama: LlamaEngine, tmp_path: Path) -> None:
    path, twin = make(tmp_path / "g128.gguf", tiny("qwen3"), llama, "Q2_0_G128"), tmp_path / "twin.gguf"
    write_stock_twin(path, twin)
    with GGUFFile.open(path) as ours, GGUFFile.open(twin) as stock:
        assert needs_twin(ours) and not needs_twin(stock)
        name = "blk.0.ffn_up.weight"
        codes, d = unpack_q2_0(stock.tensor_bytes(name).reshape(512, -1), name=name)
        same, half = unpack_q2_0_g128(ours.tensor_bytes(name).reshape(512, -1), name=name)
        assert np.array_equal(codes, same) and np.array_equal(d[:, ::2], half) and np.array_equal(d[:, 1::2], half)
    model = llama.load(twin)
    assert model.info.quant.startswith("Q2_0")
    model.close()


def test_a_twin_that_cannot_be_leaves_nothing(llama: LlamaEngine, tmp_path: Path) -> None:
    path = make(tmp_path / "narrow.gguf", tiny(n_ff=384), llama, "I2_S")
    with pytest.raises(LossyTranscode, match="cannot become TQ2_0"):
        write_stock_twin(path, tmp_path / "twin.gguf")
    (tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(CorruptFile):
        write_stock_twin(tmp_path / "cut.gguf", tmp_path / "twin.gguf")
    assert not list(tmp_path.glob("*twin*"))


def test_bytes_of_a_token(llama: LlamaEngine, tmp_path: Path) -> None:
    """Compares with a count by hand: matrices, norms, one row or all of the embedding, and the cache."""
    shape = tiny("llama")
    with GGUFFile.open(make(tmp_path / "untied.gguf", shape, llama)) as gguf:
        matrices = 2 * (4 * 256 * 256 + 3 * 256 * 512) // 32 * 18
        head, row = 400 * 210, 210
        norms = (2 * 2 + 1) * 256 * 4
        assert bytes_per_token(gguf, depth=0) == matrices + norms + head + row
        assert bytes_per_token(gguf, depth=10) - bytes_per_token(gguf, depth=0) == 10 * 2 * 2 * 256 * 2
    with GGUFFile.open(make(tmp_path / "tied.gguf", tiny("llama", tied=True), llama)) as gguf:
        assert bytes_per_token(gguf, depth=0) == matrices + norms + head


def test_a_token_reads_only_the_experts_it_uses(llama: LlamaEngine, tmp_path: Path) -> None:
    """Of the tiny Maple's eight experts it uses two; all of them are in the file."""
    with GGUFFile.open(make(tmp_path / "maple.gguf", tiny("maple"), llama, "TQ2_0")) as gguf:
        others = 2 * (4 * 256 * 256 // 256 * 66 + 8 * 256 * 4) + (2 * (2 * 256 + 2 * 64) + 256) * 4
        expert, head, row = 2 * 3 * 256 * 256 // 256 * 66, 400 * 210, 210
        assert bytes_per_token(gguf, depth=0) == others + 2 * expert + head + row
        assert sum(info.nbytes for info in gguf.tensors.values()) == others + 8 * expert + 2 * head
        products = {tensor.name: tensor.product for tensor in tensor_table(gguf).tensors}
    assert products["blk.0.attn_q.weight"] == "token" and products["blk.0.ffn_up_exps.weight"] == "segment"
