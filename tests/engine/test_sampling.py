"""Every sampling option does what its help says, on the real engine."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.llama import LlamaEngine
from edgellm.engine.sampling import OPTIONS, Sampling, shifted

pytestmark = [pytest.mark.engine, pytest.mark.model]

# Every token is possible: the options below narrow this down.
OPEN = Sampling(temperature=1, top_k=0, top_p=1, min_p=0)


def first_tokens(llama: LlamaEngine, path: Path, sampling: Sampling, n: int = 40) -> tuple[set[int], list[int]]:
    """The tokens that `n` seeds draw after one prompt, and all tokens by their logits, best first."""
    model = llama.load(path)
    context = model.open_context(n_ctx=256, n_batch=64, n_threads=2)
    context.decode(model.tokenize("The three primary colours are red, blue and"))
    ranked = np.argsort(-context.logits()).tolist()
    drawn = set()
    for seed in range(n):
        sampler = context.open_sampler(replace(sampling, seed=seed))
        drawn.add(sampler.sample())
        sampler.close()
    context.close()
    model.close()
    return drawn, ranked


def test_without_options_many_tokens_are_possible(llama: LlamaEngine, smollm2: Path) -> None:
    drawn, _ = first_tokens(llama, smollm2, OPEN)
    assert len(drawn) > 3


@pytest.mark.parametrize(
    "narrow",
    [
        {"temperature": 0}, {"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}, {"top_n_sigma": 0.01},
        {"temperature": 5, "top_n_sigma": 0.01},
    ],
    ids=str,
)  # fmt: skip
def test_the_strictest_value_leaves_the_likeliest_token(
    llama: LlamaEngine, smollm2: Path, narrow: dict[str, float]
) -> None:
    drawn, ranked = first_tokens(llama, smollm2, replace(OPEN, **narrow), n=10)  # type: ignore[arg-type]
    assert drawn == {ranked[0]}


def test_typical_p_keeps_one_token_at_its_strictest(llama: LlamaEngine, smollm2: Path) -> None:
    drawn, _ = first_tokens(llama, smollm2, replace(OPEN, typical_p=1e-6), n=10)
    assert len(drawn) == 1


def test_xtc_drops_the_likeliest_tokens(llama: LlamaEngine, smollm2: Path) -> None:
    always = replace(OPEN, temperature=1, xtc_probability=1.0, xtc_threshold=0.01)
    drawn, ranked = first_tokens(llama, smollm2, always, n=20)
    assert ranked[0] not in drawn
    never, ranked = first_tokens(llama, smollm2, replace(always, xtc_probability=0.0), n=20)
    assert ranked[0] in never


def test_the_table_has_every_number_of_a_sampling() -> None:
    numbers = {each.name for each in fields(Sampling)} - {"grammar", "grammar_is_harmless", "seed"}
    assert OPTIONS.keys() == numbers
    for option in OPTIONS.values():
        assert option.least <= option.default <= option.most, option.name


def test_shifted_seeds_never_become_a_random_one() -> None:
    """llama.cpp draws at random for 2**32 - 1."""
    assert shifted(7, 3) == 10 and shifted(2**32 - 2, 1) == 0
