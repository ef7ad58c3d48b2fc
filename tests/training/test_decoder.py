"""The decoder computes what the checkpoints say, and its gradients are those of the numbers that it computes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra edgellm[train])")

from edgellm.formats.gguf_file import GGUFFile  # noqa: E402
from edgellm.training import linear  # noqa: E402
from edgellm.training.base_model import BaseModel, WeightForm, read_directory  # noqa: E402
from edgellm.training.batch_tensors import BatchTensors, answer_loss  # noqa: E402
from edgellm.training.decoder import Decoder  # noqa: E402
from edgellm.training.decoder_shape import DecoderShape  # noqa: E402
from edgellm.training.linear import LatentLinear, int8_activations  # noqa: E402
from edgellm.training.loop import LoopPlan, TrainingLoop  # noqa: E402
from edgellm.training.method import prepare  # noqa: E402
from edgellm.training.options import Method  # noqa: E402
from edgellm.training.sequences import Row, TokenSequence, pack, split  # noqa: E402
from edgellm.weights.convert.checkpoints.rope import interleaved  # noqa: E402
from edgellm.weights.slabs import Floats, Ternary  # noqa: E402
from tests.training.record_gradients import GOLDEN, KINDS, summary  # noqa: E402
from tests.training.tiny import SMALL, TOKENS  # noqa: E402
from tests.weights import checkpoint_maker as make  # noqa: E402
from tests.weights.engine_run import relative_rmse  # noqa: E402
from tests.weights.numpy_models import Shape, decode, plain_product  # noqa: E402

WIDE_HEADS = Shape(hidden=256, heads=4, kv_heads=2, head_size=128)


def opened(directory: Path, *, latent: bool = True) -> tuple[BaseModel, Decoder]:
    work = directory / "work"
    work.mkdir(exist_ok=True)
    base = read_directory(directory, work)
    with GGUFFile.open(base.header) as header:
        shape = DecoderShape.read(header)
    return base, Decoder(shape, base.weights, latent=latent)


def logits(model: Decoder, tokens: list[int]) -> np.ndarray:
    n = len(tokens)
    mask = torch.ones(1, n, n, dtype=torch.bool).tril()
    with torch.no_grad():
        return model.logits(model(torch.tensor([tokens]), torch.arange(n)[None], mask))[0].numpy()


CASES: dict[str, Callable[[Path], make.Made]] = {
    "bitnet": lambda path: make.bitnet(path, SMALL, packed=False),
    "bitnet packed": lambda path: make.bitnet(path, SMALL),
    "bitnet silu": lambda path: make.bitnet(path, SMALL, act="silu"),
    "falcon-e": lambda path: make.falcon_e(path, SMALL),
    "falcon3 packed": lambda path: make.bitlinear(path, SMALL),
    "bonsai": lambda path: make.bonsai(path, SMALL),
    "llama": lambda path: make.llama(path, SMALL),
    "llama3 with biases": lambda path: make.llama(path, SMALL, llama3=True, biases=True),
    "qwen2": lambda path: make.qwen2(path, SMALL),
    "qwen3": lambda path: make.qwen3(path, WIDE_HEADS),
    "ternary qwen3": lambda path: make.qwen3(path, SMALL, group=128),
}


@pytest.mark.parametrize("latent", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_numpy_model(
    tmp_path: Path, case: str, latent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where activations are rounded to 8 bits, one of them may fall to the other side; without that it is exact."""
    made = CASES[case](tmp_path)
    _, model = opened(tmp_path, latent=latent)
    if case.startswith(("bitnet", "falcon")):
        assert relative_rmse(logits(model, TOKENS), made.logits(TOKENS)).max() < 3e-2
        monkeypatch.setattr(linear, "int8_activations", lambda x: x)
        monkeypatch.setattr(make, "int8_product", plain_product)
    assert relative_rmse(logits(model, TOKENS), made.logits(TOKENS)).max() < 2e-6


def nll(logits: np.ndarray, tokens: list[int]) -> float:
    """The loss of every token but the first, in float64."""
    x = logits[:-1].astype(np.float64)
    x -= x.max(-1, keepdims=True)
    log_probs = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return -float(log_probs[np.arange(len(tokens) - 1), tokens[1:]].sum())


def test_the_gradient_is_the_slope_of_the_reference(tmp_path: Path) -> None:
    """The loss of the numpy model at two points along the gradient, against its length (a central difference)."""
    made = make.llama(tmp_path, SMALL)
    _, model = opened(tmp_path)
    tokens = np.array(TOKENS, np.int64)
    row = Row((TokenSequence(1, tokens, np.arange(len(tokens)) > 0),))
    answer_loss(model, BatchTensors.of([row], torch.device("cpu"))).backward()
    parameters = {
        "1.up": model.blk[1].ffn_up.weight,
        "0.v": model.blk[0].attn_v.weight,
        "1.attn_norm": model.blk[1].attn_norm.weight,
        "norm": model.output_norm.weight,
    }
    for name, parameter in parameters.items():
        gradient = parameter.grad.numpy()
        length = float(np.sqrt((gradient.astype(np.float64) ** 2).sum()))
        weights = dict(made.weights)
        ends = []
        for way in (1, -1):
            weights[name] = made.weights[name] + np.float32(way * 2e-2 / length) * gradient
            ends.append(nll(reference(weights), TOKENS))
        assert (ends[0] - ends[1]) / 4e-2 == pytest.approx(length, rel=2e-2), name


def reference(weights: Any) -> np.ndarray:
    return decode(SMALL, weights, TOKENS)


def all_learnt() -> BatchTensors:
    """The tokens of the tests as one row, in which every one but the first is learnt."""
    tokens = np.array(TOKENS, np.int64)
    row = Row((TokenSequence(1, tokens, np.arange(len(tokens)) > 0),))
    return BatchTensors.of([row], torch.device("cpu"))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    """Of all parameters; BitNet's and Falcon-E's with AutoBitLinear, where a rounding may fall to the other side."""
    golden = json.loads(GOLDEN.read_text())[kind]
    KINDS[kind][1](tmp_path)
    _, model = opened(tmp_path)
    loss = answer_loss(model, all_learnt())
    loss.backward()
    close = 5e-2 if kind in ("bitnet", "falcon-e") else 1e-3
    assert float(loss.detach()) == pytest.approx(golden["loss"], rel=close)
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    assert gradients.keys() == golden["gradients"].keys()
    for name, (length, *products) in golden["gradients"].items():
        found = summary(name, gradients[name])
        assert found[0] == pytest.approx(length, rel=close), name
        usual = length / gradients[name].size ** 0.5  # of the product with a random vector
        assert found[1:] == pytest.approx(products, abs=close * 3 * usual), name


def test_gradients_of_a_bonsai_are_slopes_of_the_reference(tmp_path: Path) -> None:
    """Scales by central differences. Latent weights: the slope in the weights that count, times the row's scale."""
    made = make.bonsai(tmp_path, SMALL)
    base, model = opened(tmp_path)
    answer_loss(model, all_learnt()).backward()
    for name, part, kind in (("0.q", "blk.0.attn_q", 0), ("1.down", "blk.1.ffn_down", 1), ("0.up", "blk.0.ffn_up", 2)):
        layer, weights = model.get_submodule(part), base.weights[f"{part}.weight"]
        order = interleaved(SMALL.heads, SMALL.head) if part.endswith("_q") else np.arange(len(weights.values))
        back = np.argsort(order)
        inside = np.abs(weights.values) <= 1
        latent, slope = layer.weight.grad.numpy(), np.zeros_like(weights.values)
        np.divide(latent, weights.scales, out=slope, where=inside)  # with respect to codes times scale
        assert not latent[~inside].any(), kind
        of_scales = layer.scales.grad.numpy()
        for gradient, change in ((slope, slope), (of_scales, weights.codes * of_scales)):
            length = float(np.sqrt((gradient.astype(np.float64) ** 2).sum()))
            ends = []
            for way in (1, -1):
                moved = dict(made.weights)
                moved[name] = made.weights[name] + np.float32(way * 1e-3 / length) * change[back]
                ends.append(nll(reference(moved), TOKENS))
            assert (ends[0] - ends[1]) / 2e-3 == pytest.approx(length, rel=2e-2), name


def test_rounding_counts_as_nothing_going_back() -> None:
    """Absmean: the gradient of the rounded matrix. Scaled: the same times the scale, inside of [-1, 1] only."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(6, 8, generator=generator)
    x, back = torch.randn(4, 8, generator=generator), torch.randn(4, 6, generator=generator)
    one = LatentLinear(weight.clone(), None, WeightForm.ABSMEAN)
    one(x).backward(back)
    assert torch.allclose(one.weight.grad, back.T @ int8_activations(x), atol=1e-5)
    scales = torch.rand(6, 2, generator=generator) + 0.5
    many = LatentLinear(weight.clone(), scales.clone(), WeightForm.SCALED)
    many(x).backward(back)
    direct = (back.T @ x).unflatten(1, (2, 4))
    inside = (weight.abs() <= 1).unflatten(1, (2, 4))
    assert torch.allclose(many.weight.grad, (direct * scales[..., None] * inside).flatten(1), atol=1e-5)
    codes = weight.clamp(-1, 1).round().unflatten(1, (2, 4))
    assert torch.allclose(many.scales.grad, (direct * codes).sum(-1), atol=1e-5)


def test_the_slab_is_what_was_computed() -> None:
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(3))
    one = LatentLinear(weight, None, WeightForm.ABSMEAN).slab()
    assert isinstance(one, Ternary) and set(np.unique(one.codes)) <= {-1, 0, 1}
    many = LatentLinear(weight, torch.full((6, 2), 0.5), WeightForm.SCALED)
    slab = many.slab()
    assert isinstance(slab, Floats) and np.array_equal(slab.values, many.matrix().detach().numpy())


def test_examples_in_one_row_do_not_see_each_other(tmp_path: Path) -> None:
    make.bonsai(tmp_path, SMALL)
    _, model = opened(tmp_path)
    parts = [np.array(TOKENS[:3], np.int64), np.array(TOKENS[2:], np.int64)]
    alone = [Row((TokenSequence(i, part, np.arange(len(part)) > 0),)) for i, part in enumerate(parts)]
    together = Row(tuple(each for row in alone for each in row.sequences))
    device = torch.device("cpu")
    with torch.no_grad():
        separate = sum(float(answer_loss(model, BatchTensors.of([row], device))) for row in alone)
        padded = float(answer_loss(model, BatchTensors.of(alone, device)))
        packed = float(answer_loss(model, BatchTensors.of([together], device)))
    assert padded == pytest.approx(separate, rel=1e-5) and packed == pytest.approx(separate, rel=1e-5)


def test_checkpointed_blocks_have_the_same_gradients(tmp_path: Path) -> None:
    make.bitnet(tmp_path, SMALL, packed=False)
    _, model = opened(tmp_path)
    tokens = np.array(TOKENS, np.int64)
    batch = BatchTensors.of([Row((TokenSequence(1, tokens, np.arange(len(tokens)) > 0),))], torch.device("cpu"))
    found = []
    for model.checkpointing in (False, True):
        model.zero_grad()
        answer_loss(model, batch).backward()
        found.append(model.blk[0].attn_q.weight.grad.clone())
    assert torch.equal(*found)


def test_rows_are_filled() -> None:
    sequences = [TokenSequence(i, np.zeros(n, np.int64), np.zeros(n, bool)) for i, n in enumerate((3, 7, 5, 1, 4))]
    rows = pack(sequences, n_ctx=10)
    assert sorted(row.n_tokens for row in rows) == [10, 10]
    assert sorted(each.line for row in rows for each in row.sequences) == [0, 1, 2, 3, 4]


def test_the_held_out_share_is_drawn_by_the_seed() -> None:
    sequences = [TokenSequence(i, np.zeros(2, np.int64), np.zeros(2, bool)) for i in range(40)]
    learn, held = split(sequences, 0.1, seed=4)
    assert len(held) == 4 and {each.line for each in learn} | {each.line for each in held} == set(range(40))
    again = [each.line for each in split(sequences, 0.1, seed=4)[1]]
    assert again == [each.line for each in held]
    assert split(sequences, 0.0, seed=4)[1] == [] and split(sequences[:1], 0.5, seed=4)[1] == []


def test_bfloat16_trains_as_well(tmp_path: Path) -> None:
    """The precision of CPUs that have it, computed here by torch: nearly the same loss, and it falls."""
    make.bitnet(tmp_path, SMALL, packed=False)
    tokens = np.array(TOKENS, np.int64)
    rows = [Row((TokenSequence(1, tokens, np.arange(len(tokens)) > 0),))]
    first = {}
    for bf16 in (False, True):
        _, model = opened(tmp_path)
        trained = prepare(model, Method.TERNARY, rank=1, alpha=1.0, seed=0)
        plan = LoopPlan(n_steps=8, batch=1, micro=1, rate=2e-3, bf16=bf16)
        loop = TrainingLoop(model, trained, rows, [], plan, device=torch.device("cpu"))
        losses = [step.loss for step in loop.run()]
        assert losses[-1] < 0.7 * losses[0]
        first[bf16] = losses[0]
    assert first[True] == pytest.approx(first[False], rel=0.05)
