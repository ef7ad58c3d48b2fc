"""Shapes: what a table may say, where they are found, and that all of ours are right."""

from dataclasses import asdict
from pathlib import Path

import pytest

from edgellm.errors import CorruptFile, ModelNotFound
from edgellm.models.known_shapes import find_shape, shape_names
from edgellm.models.shape import parse_shape
from edgellm.settings import resource_directory
from tests.measure.shapes import TOML, tiny

GOOD = asdict(tiny())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layers": 3}, "unknown key n_layers, did you mean n_layer"),
        ({"n_layer": 0}, "n_layer is a whole number"),
        ({"n_embd": 10**30}, "n_embd is a whole number"),
        ({"n_ff": 2.5}, "n_ff is a whole number"),
        ({"n_vocab": True}, "n_vocab is a whole number"),
        ({"n_vocab": 10}, "n_vocab is 320 at least"),
        ({"tied": "yes"}, "tied is a bool"),
        ({"rope_base": float("nan")}, "rope_base is a positive number"),
        ({"architecture": "mamba"}, "architecture is one of"),
        ({"n_head_kv": 3}, "cannot share 3 key-value heads"),
        ({"head_dim": 63}, "head_dim is even"),
        ({"head_dim": 128}, "512 is not 256"),
    ],
)
def test_a_wrong_shape_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_shape({**GOOD, **change})


def test_a_missing_size_is_named() -> None:
    with pytest.raises(ValueError, match="n_ff is missing"):
        parse_shape({name: value for name, value in GOOD.items() if name != "n_ff"})
    with pytest.raises(ValueError, match="a table"):
        parse_shape([1, 2])


def test_every_shape_of_ours_is_valid() -> None:
    recipes = [resource_directory("recipes")]
    names = shape_names(recipes)
    assert {"bitnet-2b", "bonsai-0.5b", "phi3-mini", "qwen-7b", "smollm2"} <= set(names)
    shapes = {name: find_shape(name, recipes) for name in names}
    bitnet = shapes["bitnet-2b"]
    assert 30 * 2560 * (2 * 2560 + 2 * bitnet.n_kv + 3 * 6912) == 2_084_044_800  # the published 2.084e9 ternary weights


def test_a_recipe_comes_before_a_shape_alone(tmp_path: Path) -> None:
    smollm2 = (resource_directory("recipes") / "smollm2.toml").read_text()
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "alone.toml").write_text(TOML)
    (tmp_path / "shapes" / "model.toml").write_text(TOML)
    (tmp_path / "model.toml").write_text(smollm2)
    assert find_shape("model", [tmp_path]).n_embd == 576
    assert find_shape("alone", [tmp_path]).n_embd == 256
    with pytest.raises(ModelNotFound) as caught:
        find_shape("alne", [tmp_path])
    assert caught.value.hint == "edgellm bench --shape alone"


@pytest.mark.parametrize("text", ["", "shape = 3", "[shape]\nn_layer = 1", "[[[", TOML + "\n[other]\n", "\0\xff"])
def test_a_broken_shape_file_is_corrupt(tmp_path: Path, text: str) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "broken.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(CorruptFile, match="is not valid"):
        find_shape("broken", [tmp_path])


def test_a_broken_shape_in_a_recipe_names_the_key(tmp_path: Path) -> None:
    smollm2 = (resource_directory("recipes") / "smollm2.toml").read_text()
    (tmp_path / "model.toml").write_text(smollm2.replace("n_head = 9", "n_heads = 9"))
    with pytest.raises(CorruptFile) as caught:
        find_shape("model", [tmp_path])
    assert "unknown key n_heads, did you mean n_head?" in caught.value.why
