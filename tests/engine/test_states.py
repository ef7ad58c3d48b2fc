"""States of caches: restored ones continue to the bit, and what the engine is not sure to refuse never reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.engine.base import Context
from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_writer import GGUFWriter
from edgellm.formats.quant_types import named_type
from edgellm.models.local.prompt_files import PromptFiles
from tests.engine.tiny_models import write_bitnet

pytestmark = pytest.mark.engine

KEY = "prompt of /m.gguf\n"
KINDS = [("F16", None), ("F16", False), ("Q8_0", None)]


@pytest.fixture(scope="module")
def smol(llama: LlamaEngine, smollm2: Path) -> Iterator[LlamaModel]:
    model = llama.load(smollm2)
    yield model
    model.close()


@pytest.fixture(scope="module")
def mamba(llama: LlamaEngine, tmp_path_factory: pytest.TempPathFactory, vocabularies: Path) -> Iterator[LlamaModel]:
    model = llama.load(write_mamba(tmp_path_factory.mktemp("mamba") / "mamba.gguf", vocabularies))
    yield model
    model.close()


def write_mamba(path: Path, vocabularies: Path) -> Path:
    """A `mamba` model of one layer: its state cannot be truncated."""
    width, inner, state, rank = 32, 64, 8, 4
    random = np.random.default_rng(5)
    with GGUFFile.open(vocabularies / "ggml-vocab-gpt-2.gguf") as source, GGUFWriter(path) as out:
        out.copy_metadata(source.metadata)
        n_vocab = len(source.get_array("tokenizer.ggml.tokens"))
        out.add("general.architecture", "mamba")
        sizes = {"context_length": 512, "embedding_length": width, "block_count": 1, "feed_forward_length": 0}
        sizes |= {"attention.head_count": 0, "vocab_size": n_vocab, "ssm.conv_kernel": 4, "ssm.inner_size": inner}
        sizes |= {"ssm.state_size": state, "ssm.time_step_rank": rank}
        for name, value in sizes.items():
            out.add(f"mamba.{name}", value)
        out.add("mamba.attention.layer_norm_rms_epsilon", 1e-5)
        layer = {
            "attn_norm.weight": (width,), "ssm_in.weight": (width, 2 * inner), "ssm_conv1d.weight": (4, inner),
            "ssm_conv1d.bias": (inner,), "ssm_x.weight": (inner, rank + 2 * state), "ssm_dt.weight": (rank, inner),
            "ssm_dt.bias": (inner,), "ssm_a": (state, inner), "ssm_d": (inner,), "ssm_out.weight": (inner, width),
        }  # fmt: skip
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (width, n_vocab), "output_norm.weight": (width,)}
        shapes |= {f"blk.0.{name}": shape for name, shape in layer.items()}
        for name, shape in shapes.items():
            out.declare(name, shape, named_type("F32"))
        for name, shape in shapes.items():
            numbers = 0.3 * random.standard_normal(shape[::-1])
            out.write(name, (-np.exp(numbers) if name.endswith("ssm_a") else numbers).astype(np.float32))
    return path


def tokens_of(model: LlamaModel, n_tokens: int) -> list[int]:
    return [5 + (7919 * n) % (model.info.n_vocab - 10) for n in range(n_tokens)]


def opened(model: LlamaModel, n_ctx: int = 512, kind: tuple[str, bool | None] = KINDS[0]) -> Context:
    return model.open_context(
        n_ctx=n_ctx, n_batch=128, n_threads=2, type_k=kind[0], type_v=kind[0] if kind[1] is None else "F16",
        flash_attention=kind[1],
    )  # fmt: skip


def read_prompt(context: Context, tokens: list[int]) -> None:
    for start in range(0, len(tokens), context.n_batch):
        context.decode(tokens[start : start + context.n_batch])


def continued(context: Context, tokens: list[int]) -> npt.NDArray[np.float32]:
    """The logits after each of some tokens, computed one by one as in an answer."""
    rows = []
    for token in tokens:
        context.decode([token])
        rows.append(context.logits())
    return np.stack(rows)


@pytest.mark.parametrize("kind", KINDS, ids=["F16", "F16 without flash attention", "Q8_0"])
@pytest.mark.parametrize("n_kept", [300, 170])
def test_a_restored_prompt_continues_to_the_bit(
    smol: LlamaModel, tmp_path: Path, kind: tuple[str, bool | None], n_kept: int
) -> None:
    prompt, files = tokens_of(smol, 300), PromptFiles(tmp_path, 1 << 30)
    first = opened(smol, kind=kind)
    read_prompt(first, prompt)
    assert files.write(KEY, prompt, first.state(), 0.01)
    last = prompt[: n_kept - 1], prompt[n_kept - 1 : n_kept]
    first.keep(n_kept - 1)
    expected = continued(first, [*last[1], 11, 12, 13])
    first.close()

    second = opened(smol, n_ctx=1024, kind=kind)
    read_prompt(second, tokens_of(smol, 40)[::-1])  # something else was there before
    found = files.longest(KEY, prompt[:n_kept])
    assert found and found[1] == n_kept
    assert second.restore(prompt, files.read(found[0])) and second.tokens == prompt
    assert second.keep(n_kept - 1) == n_kept - 1
    assert np.array_equal(continued(second, [*last[1], 11, 12, 13]), expected)
    second.close()


def test_a_sequence_of_several_is_restored_without_the_others(smol: LlamaModel) -> None:
    prompt, other = tokens_of(smol, 200), tokens_of(smol, 90)[::-1]
    first, second = (smol.open_sequences(n_seq=3, n_ctx=300, n_batch=256, n_threads=2) for _ in range(2))
    first.decode({1: prompt})
    second.decode({0: other, 2: other[:50]})
    assert second.restore(2, prompt, first.state(1))
    assert [len(tokens) for tokens in second.tokens] == [90, 0, 200]
    first.decode({1: [11]})
    second.decode({2: [11]})
    assert np.array_equal(first.logits(1), second.logits(2))
    second.decode({0: [12]})
    first.close()
    second.close()


def test_a_state_that_does_not_belong_is_refused_and_the_context_goes_on(
    llama: LlamaEngine, smol: LlamaModel, tmp_path: Path, vocabularies: Path
) -> None:
    """The engine's own checks, behind ours: none of these ever gets here with a key that is right."""
    prompt = tokens_of(smol, 300)
    source = opened(smol)
    read_prompt(source, prompt)
    state = source.state()
    expected = continued(source, [11])
    tiny = llama.load(write_bitnet(tmp_path / "tiny.gguf", vocabularies))
    sequences = smol.open_sequences(n_seq=2, n_ctx=512, n_batch=128, n_threads=2)
    short, q8, plain, foreign = (
        opened(smol, 256), opened(smol, kind=KINDS[2]), opened(smol, kind=KINDS[1]), opened(tiny)
    )  # fmt: skip
    for context in (short, q8, plain, foreign):
        context.decode([5, 6])
        assert not context.restore(prompt, state) and not context.tokens
        read_prompt(context, [5, 6, 7])
    assert not sequences.restore(1, prompt, state) and not sequences.tokens[1]
    # A file of llama.cpp that is cut off would abort the process; a state in memory is refused.
    target = opened(smol)
    for length in (0, 4, 8, 100, state.size // 2, state.size - 1):
        assert not target.restore(prompt, state[:length].copy()) and not target.tokens
    assert target.restore(prompt, state)
    assert np.array_equal(continued(target, [11]), expected)
    for each in (source, short, q8, plain, foreign, target):
        each.close()
    sequences.close()
    tiny.close()


def test_a_recurrent_state_is_restored_as_a_whole(mamba: LlamaModel, smol: LlamaModel) -> None:
    assert mamba.info.recurrent and not smol.info.recurrent
    prompt = tokens_of(mamba, 100)
    first, second = opened(mamba), opened(mamba)
    read_prompt(first, prompt)
    state = first.state()
    expected = continued(first, [11, 12])
    assert second.restore(prompt, state) and second.keep(len(prompt)) == len(prompt)
    assert np.array_equal(continued(second, [11, 12]), expected)
    assert second.keep(50) == 0
    first.close()
    second.close()
