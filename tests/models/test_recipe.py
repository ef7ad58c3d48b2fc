"""Recipes: ours are valid, and a wrong one says which key is wrong."""

from pathlib import Path

import pytest

from edgellm.errors import CorruptFile, ModelNotFound
from edgellm.models.recipe import find_recipe, load_recipe, load_recipes
from edgellm.settings import resource_directory

OURS = resource_directory("recipes")


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = (OURS / "smollm2.toml").read_text()
    assert old in text
    path = tmp_path / "smollm2.toml"
    path.write_text(text.replace(old, new))
    return path


def test_ours_are_valid() -> None:
    recipes = load_recipes([OURS])
    assert "smollm2" in recipes
    assert all(recipe.name == name and recipe.licence for name, recipe in recipes.items())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("licence =", "license =", "unknown key license, did you mean licence?"),
        ("top_p =", "topp =", "unknown key sampling.topp, did you mean top_p?"),
        ("[smoke]", "[smoke]\nnonsense = 1", "unknown key smoke.nonsense"),
        ("temperature = 0.2", "temperature = 9.0", "sampling.temperature: Input should be less than or equal to 5"),
        ("temperature = 0.2", 'temperature = "hot"', "sampling.temperature"),
        ('kind = "wheel"', 'kind = "torrent"', "source.kind"),
        ('name = "SmolLM2-135M', 'name = "../SmolLM2-135M', "file.name"),
        ("size = 98_362_432", "size = -1", "file.size"),
        ('sha256 = "b179', 'sha256 = "B179', "file.sha256"),
    ],
)
def test_a_wrong_key_or_value_is_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CorruptFile, match="is not valid") as caught:
        load_recipe(changed(tmp_path, old, new))
    assert said in caught.value.why


@pytest.mark.parametrize("data", [b"not toml", b"\xff\xfe", b'name = "x"'])
def test_a_file_that_is_no_recipe(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(data)
    with pytest.raises(CorruptFile, match="recipe"):
        load_recipe(tmp_path / "x.toml")


def test_a_users_recipe_replaces_ours(tmp_path: Path) -> None:
    changed(tmp_path, "SmolLM2 135M Instruct:", "mine:")
    assert find_recipe("smollm2", [OURS, tmp_path]).summary.startswith("mine:")


def test_a_typo_is_met_with_the_nearest_name() -> None:
    with pytest.raises(ModelNotFound) as caught:
        find_recipe("smolm2", [OURS])
    assert caught.value.facts["suggestion"] == "smollm2" and caught.value.exit_code == 3
