"""Several sequences computed together give the same results as each alone."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import EngineError

pytestmark = pytest.mark.engine

TEXTS = ("The capital of France is", "One two three four", "Water boils at")


@pytest.fixture(scope="module")
def smol(llama: LlamaEngine, smollm2: Path) -> Iterator[LlamaModel]:
    model = llama.load(smollm2)
    yield model
    model.close()


def alone(model: LlamaModel, tokens: list[int]) -> npt.NDArray[np.float32]:
    context = model.open_context(n_ctx=256, n_batch=64, n_threads=2)
    context.decode(tokens)
    logits = context.logits()
    context.close()
    return logits


def test_each_sequence_is_its_own(smol: LlamaModel) -> None:
    prompts = [smol.tokenize(text) for text in TEXTS]
    sequences = smol.open_sequences(n_seq=3, n_ctx=64, n_batch=64, n_threads=2)
    sequences.decode(dict(enumerate(prompts)))
    for seq, tokens in enumerate(prompts):
        expected = alone(smol, tokens)
        found = sequences.logits(seq)
        assert float(np.max(np.abs(found - expected))) < 0.1 * float(np.std(expected))
        assert int(found.argmax()) == int(expected.argmax())
    # Only some continue; the others keep their position.
    sequences.decode({1: smol.tokenize(" five")})
    assert [len(tokens) for tokens in sequences.tokens] == [len(prompts[0]), len(prompts[1]) + 1, len(prompts[2])]
    assert int(sequences.logits(1).argmax()) == int(alone(smol, [*prompts[1], *smol.tokenize(" five")]).argmax())
    sequences.close()


def test_cutting_one_leaves_the_others(smol: LlamaModel) -> None:
    prompt = smol.tokenize(TEXTS[0])
    sequences = smol.open_sequences(n_seq=2, n_ctx=64, n_batch=64, n_threads=1)
    sequences.decode({0: prompt, 1: prompt})
    before = sequences.logits(1)
    assert sequences.keep(0, 2) == 2
    sequences.decode({0: smol.tokenize("!")})
    sequences.keep(1, len(prompt) - 1)
    sequences.decode({1: prompt[-1:]})
    assert float(np.max(np.abs(sequences.logits(1) - before))) < 0.1 * float(np.std(before))
    sequences.close()


def test_what_does_not_fit_says_so(smol: LlamaModel) -> None:
    sequences = smol.open_sequences(n_seq=2, n_ctx=256, n_batch=256, n_threads=2)
    for wrong in ({}, {0: []}, {0: [5] * 200, 1: [5] * 200}, {2: [5]}):
        with pytest.raises(ValueError, match=r"sequences are|decode takes"):
            sequences.decode(wrong)
    sequences.decode({0: [5] * 255, 1: [5]})
    sequences.decode({0: [5], 1: [5]})
    with pytest.raises(EngineError, match="the computation failed"):
        sequences.decode({0: [5], 1: [5]})
    assert [len(tokens) for tokens in sequences.tokens] == [256, 2]
    sequences.decode({1: [7]})  # the other one goes on
    sequences.close()
    sequences.close()


def test_a_copied_prefix_is_not_computed_again_and_gives_the_same(smol: LlamaModel) -> None:
    prompt = smol.tokenize("The quick brown fox jumps over the lazy dog. The capital of France is")
    sequences = smol.open_sequences(n_seq=3, n_ctx=64, n_batch=64, n_threads=2)
    sequences.decode({0: prompt})
    whole = sequences.logits(0)
    sequences.decode({2: smol.tokenize("Something else that has to go")})
    assert sequences.copy(0, 2, len(prompt) - 1) == len(prompt) - 1 and sequences.tokens[2] == prompt[:-1]
    sequences.keep(0, 0)  # the copy does not depend on what it was copied from
    sequences.decode({2: prompt[-1:], 1: smol.tokenize("Hello")})
    assert float(np.max(np.abs(sequences.logits(2) - whole))) < 0.1 * float(np.std(whole))
    sequences.close()


def test_each_sequence_has_its_sampler(smol: LlamaModel) -> None:
    prompts = [smol.tokenize(text) for text in TEXTS]
    sequences = smol.open_sequences(n_seq=3, n_ctx=64, n_batch=64, n_threads=2)
    sequences.decode(dict(enumerate(prompts)))
    samplers = [sequences.open_sampler(seq, Sampling(temperature=0), prompts[seq]) for seq in range(3)]
    assert [sampler.sample() for sampler in samplers] == [int(sequences.logits(seq).argmax()) for seq in range(3)]
    for sampler in samplers:
        sampler.close()
    sequences.close()


def test_a_copied_beginning_of_a_thousand_tokens_changes_no_bit(smol: LlamaModel) -> None:
    """Batches of other sizes differ in the last bits, but the copy equals a computation in the same batches."""
    beginning = smol.tokenize("The quick brown fox jumps over the lazy dog near the river. " * 100)[:1000]
    ends = [smol.tokenize(f" Question {n}: name {n + 2} things.", bos=False) for n in range(3)]
    found = []
    for shared in (True, False):
        sequences = smol.open_sequences(n_seq=3, n_ctx=1280, n_batch=512, n_threads=2)
        for seq in range(3):
            if shared and seq:
                assert sequences.copy(0, seq, 1000) == 1000
            else:
                for first in range(0, 1000, 512):
                    sequences.decode({seq: beginning[first : min(first + 512, 1000)]})
        sequences.decode(dict(enumerate(ends)))
        found.append([sequences.logits(seq) for seq in range(3)])
        sequences.close()
    for copied, computed in zip(*found, strict=True):
        assert np.array_equal(copied, computed)
