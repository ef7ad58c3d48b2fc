"""PEFT's adapters are converted, and the engine computes with one what merged weights compute."""

from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.adapters import Adapter
from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import CorruptFile, EdgellmError, ModelNotFound, UnsupportedModel
from edgellm.weights.convert.adapter import convert_adapter, ready_adapters
from edgellm.weights.convert.converter import convert
from tests.weights import checkpoint_maker as make
from tests.weights.adapter_files import ALPHA, RANK, SHAPE, pairs, write_peft
from tests.weights.engine_run import relative_rmse
from tests.weights.numpy_models import decode, int8_product, relu2

pytestmark = pytest.mark.engine

TOKENS = [3, 65, 256, 17, 70, 70, 100, 5]


@pytest.fixture(scope="module")
def llama(engine: InstalledEngine) -> LlamaEngine:
    """The engine as edgellm opens it, not its bindings alone."""
    return LlamaEngine(engine)


def scores(llama: LlamaEngine, path: Path, adapters: tuple[Adapter, ...] = ()) -> np.ndarray:
    model = llama.load(path)
    model.use_adapters(adapters)
    context = model.open_context(n_ctx=64, n_batch=64, n_threads=1, type_k="F32", type_v="F32")
    found = context.score(TOKENS)
    context.close()
    model.close()
    return found


@pytest.mark.parametrize("maker", [make.llama, make.qwen2])
@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_an_adapter_of_peft_is_as_exact_as_merged_weights(
    tmp_path: Path, llama: LlamaEngine, maker: object, scale: float
) -> None:
    made = maker(tmp_path / "model", SHAPE)  # type: ignore[operator]
    base = convert(made.directory, tmp_path / "base.gguf", outtype="F32", head="F32").path
    products = pairs()
    peft = write_peft(tmp_path / "peft", products)
    ready = ready_adapters([Adapter(peft, scale)], base, tmp_path / "cache")
    merged = dict(made.weights)
    for name, (down, up) in products.items():
        merged[name] = merged[name] + np.float32(scale * ALPHA / RANK) * (up @ down)
    expected = decode(SHAPE, merged, TOKENS)
    assert relative_rmse(scores(llama, base), expected).min() > 0.1
    assert relative_rmse(scores(llama, base, ready), expected).max() < 1e-4
    assert relative_rmse(scores(llama, base), made.logits(TOKENS)).max() < 1e-4
    again = ready_adapters([Adapter(peft, scale)], base, tmp_path / "cache")
    assert again == ready and len(list((tmp_path / "cache").iterdir())) == 1


def test_an_adapter_on_a_ternary_base_sees_the_exact_activations(tmp_path: Path, llama: LlamaEngine) -> None:
    """BitNet's own product rounds activations to 8 bits, the adapter's does not, and the base stays as it is."""
    made = make.bitnet(tmp_path / "model", SHAPE)
    base = convert(made.directory, tmp_path / "base.gguf", head="F32").path
    products = pairs()
    by_weight = {id(made.weights[name]): pair for name, pair in products.items()}

    def product(w: np.ndarray, x: np.ndarray) -> np.ndarray:
        down, up = by_weight[id(w)]
        return int8_product(w, x) + np.float32(ALPHA / RANK) * (x @ down.T @ up.T)

    expected = decode(SHAPE, made.weights, TOKENS, activation=relu2, product=product)
    before = scores(llama, base)
    ready = ready_adapters([Adapter(write_peft(tmp_path / "peft", products))], base, tmp_path / "cache")
    found = scores(llama, base, ready)
    assert relative_rmse(found, expected)[0] < 1e-3
    assert relative_rmse(before, expected)[0] > 0.1
    assert np.array_equal(scores(llama, base), before)


@pytest.mark.parametrize("kind", ["TQ2_0", "Q4_0"])
def test_an_adapter_adds_no_error_to_a_small_base(tmp_path: Path, llama: LlamaEngine, kind: str) -> None:
    """Bases whose kernels round activations: with an adapter they are no further from the float result than without."""
    made = make.bonsai(tmp_path / "model", SHAPE)
    base = convert(made.directory, tmp_path / "base.gguf", outtype=kind, head="F32").path
    exact = convert(made.directory, tmp_path / "exact.gguf", outtype="F32", head="F32").path
    ready = ready_adapters([Adapter(write_peft(tmp_path / "peft", pairs()), 0.1)], base, tmp_path / "cache")
    plain, adapted = scores(llama, exact), scores(llama, exact, ready)
    without = relative_rmse(scores(llama, base), plain).mean()
    with_adapter = relative_rmse(scores(llama, base, ready), adapted).mean()
    assert with_adapter < 2 * without
    assert relative_rmse(plain, adapted).mean() > 10 * with_adapter


def test_use_rslora_divides_by_the_root_of_the_rank(tmp_path: Path) -> None:
    made = make.llama(tmp_path / "model", SHAPE)
    base = convert(made.directory, tmp_path / "base.gguf", outtype="F32", head="F32").path
    from edgellm.formats.gguf_file import GGUFFile

    convert_adapter(write_peft(tmp_path / "peft", pairs(), use_rslora=True), base, tmp_path / "out.gguf")
    with GGUFFile.open(tmp_path / "out.gguf") as adapter:
        assert adapter.get_float("adapter.lora.alpha") == ALPHA * 2  # sqrt(4): the engine divides by 4


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"use_dora": True}, "use_dora"), ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"alpha_pattern": {"q_proj": 3}}, "alpha_pattern"), ({"peft_type": "IA3"}, "IA3"),
        ({"use_rslora": True, "rank_pattern": {"q_proj": 3}}, "rank_pattern"),
    ],
)  # fmt: skip
def test_more_than_a_low_rank_product_is_refused(tmp_path: Path, config: dict[str, object], why: str) -> None:
    base = convert(make.llama(tmp_path / "model", SHAPE).directory, tmp_path / "base.gguf").path
    with pytest.raises(UnsupportedModel) as caught:
        ready_adapters([Adapter(write_peft(tmp_path / "peft", pairs(), **config))], base, tmp_path / "cache")
    assert why in caught.value.why
    assert not (tmp_path / "cache").exists()


def test_strange_tensors_and_missing_files_are_refused(tmp_path: Path) -> None:
    base = convert(make.llama(tmp_path / "model", SHAPE).directory, tmp_path / "base.gguf").path
    peft = write_peft(tmp_path / "peft", {"0.q": pairs()["0.q"]})
    weights = peft / "adapter_model.safetensors"
    whole = weights.read_bytes()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    bad = {
        "unknown": ({"base_model.model.lm_head.lora_A.weight": np.zeros((4, 4), np.float32)}, UnsupportedModel),
        "not finite": ({name.format("A"): np.full((4, 256), np.nan, np.float32)}, CorruptFile),
        "rows": ({name.format("B"): np.zeros((7, 4), np.float32)}, CorruptFile),
        "dtype": ({name.format("A"): np.zeros((4, 256), np.int32)}, CorruptFile),
        "one of two": ({name.format("A"): np.zeros((4, 256), np.float32)}, UnsupportedModel),
    }
    for tensors, kind in bad.values():
        make.write_safetensors(weights, tensors)
        with pytest.raises(kind):
            ready_adapters([Adapter(peft)], base, tmp_path / "cache")
    weights.write_bytes(whole[:-100])
    with pytest.raises(EdgellmError):
        ready_adapters([Adapter(peft)], base, tmp_path / "cache")
    (peft / "adapter_config.json").unlink()
    with pytest.raises(ModelNotFound):
        ready_adapters([Adapter(peft)], base, tmp_path / "cache")
