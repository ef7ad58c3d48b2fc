"""Shapes: what recipes carry, by name, and that all of ours can be made."""

from pathlib import Path

import pytest

from edgellm.errors import CorruptFile, ModelNotFound
from edgellm.models.fit.shape import find_shape, shape_of
from edgellm.models.recipe import load_recipes
from edgellm.settings import resource_directory

RECIPES = [resource_directory("recipes")]


def test_the_shape_of_bitnet_has_the_published_number_of_ternary_weights() -> None:
    bitnet = find_shape("bitnet-2b", RECIPES)
    assert bitnet.n_layer * 2560 * (2 * 2560 + 2 * bitnet.n_kv + 3 * 6912) == 2_084_044_800
    assert (bitnet.architecture, bitnet.activation, bitnet.quant, bitnet.head) == ("bitnet", "relu2", "I2_S", "Q6_K")


def test_every_decoder_with_sizes_has_a_shape() -> None:
    recipes = load_recipes(RECIPES).values()
    shapes = {recipe.name: shape_of(recipe) for recipe in recipes if recipe.shape}
    without = {name for name, shape in shapes.items() if shape is None}
    encoders = {"bge-m3", "bge-micro", "bge-reranker-v2-m3", "bge-small", "e5-small", "minilm"}
    others = {"bitnet-3b", "bitnet-large", "gemma3-1b", "gemma3-270m", "gemma3-4b"}
    assert without == encoders | others, "encoders, and sizes that bench has no shape for"
    assert {"bonsai-0.5b", "phi-3-mini", "qwen-7b-chat", "smollm2"} <= set(shapes)


def test_a_name_that_is_nearly_right() -> None:
    with pytest.raises(ModelNotFound) as caught:
        find_shape("bitnet-2", RECIPES)
    assert caught.value.hint == "edgellm bench --shape bitnet-2b"


@pytest.mark.parametrize(
    ("line", "changed", "why"),
    [
        ("heads = 9", "head = 9", "unknown key shape.head, did you mean heads?"),
        ("layers = 30", "layers = 513", "less than or equal to 512"),
        ("embedding = 576", "embedding = 99999999999", "less than or equal to"),
        ("tied = true", "tied = true\nexperts = 8", "a token cannot use 0 of 8 experts"),
        ("tied = true", "tied = true\nexperts = 8\nexperts_used = 9", "a token cannot use 9 of 8 experts"),
        ("tied = true", "tied = true\nexperts_used = 2", "a token cannot use 2 of 0 experts"),
        ("kv_heads = 3", "kv_heads = 2", "cannot share 2 key-value heads"),
        ("head_size = 64", "head_size = 63", "head_size must be even"),
        ("vocabulary = 49_152", "vocabulary = 10", "greater than or equal to 320"),
    ],
)
def test_a_wrong_size_names_its_key(tmp_path: Path, line: str, changed: str, why: str) -> None:
    smollm2 = (RECIPES[0] / "smollm2.toml").read_text()
    assert f"\n{line}\n" in smollm2
    (tmp_path / "model.toml").write_text(smollm2.replace(f"\n{line}\n", f"\n{changed}\n"))
    with pytest.raises(CorruptFile) as caught:
        find_shape("model", [tmp_path])
    assert why in caught.value.why
