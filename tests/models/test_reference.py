"""What names a model on the Hub, which of its files is meant, and what is something else."""

from pathlib import Path

import pytest

from edgellm.errors import ModelNotFound, UnsupportedModel, UsageError
from edgellm.models.hub.files import checkpoint_files, choose_gguf, gguf_choices
from edgellm.models.known_names import repository
from edgellm.models.local.store import Store
from edgellm.models.recipe import HubSource, load_recipes, recipe_names
from edgellm.models.resolve import find_choice, not_found, parse_reference, resolve
from edgellm.settings import resource_directory

RECIPES = [resource_directory("recipes")]


@pytest.mark.parametrize(
    ("text", "repo", "revision", "quant", "file"),
    [
        ("user/repo", "user/repo", "main", None, None),
        ("user/repo:Q4_K_M", "user/repo", "main", "Q4_K_M", None),
        ("hf://user/repo", "user/repo", "main", None, None),
        ("hf://models/user/repo:Q8_0", "user/repo", "main", "Q8_0", None),
        ("hf://user/repo@v1.0/sub/model.gguf", "user/repo", "v1.0", None, "sub/model.gguf"),
        ("https://huggingface.co/user/repo", "user/repo", "main", None, None),
        ("https://huggingface.co/user/repo/tree/dev", "user/repo", "dev", None, None),
        ("hf.co/user/repo:Q4_0", "user/repo", "main", "Q4_0", None),
        ("huggingface.co/user/repo", "user/repo", "main", None, None),
        ("https://hf.co/user/repo:Q4_0", "user/repo", "main", "Q4_0", None),
        ("user/repo@v1", "user/repo", "v1", None, None),
        ("user/repo@v1:Q4_K_M", "user/repo", "v1", "Q4_K_M", None),
        ("user/repo:latest", "user/repo", "main", None, None),
        ("https://hf.co/user/repo/resolve/main/m.gguf?download=true", "user/repo", "main", None, "m.gguf"),
        ("hf.co/user/repo:Q4_K_M", "user/repo", "main", "Q4_K_M", None),
        ("HTTPS://HuggingFace.co/user/repo/", "user/repo", "main", None, None),
        ("  https://huggingface.co/user/repo?library=llama-cpp-python#files ", "user/repo", "main", None, None),
        ("https://huggingface.co/user/repo/discussions/3", "user/repo", "main", None, None),
        ("https://huggingface.co/user/repo/tree/refs%2Fpr%2F1", "user/repo", "refs/pr/1", None, None),
        ("https://huggingface.co/user/repo/tree/main/UD-IQ1_S", "user/repo", "main", "UD-IQ1_S", None),
        ("https://huggingface.co/user/repo/blob/main/My%20Model.gguf", "user/repo", "main", None, "My Model.gguf"),
        ("https://huggingface.co/user/repo/blob/main/a+b%23c%3F.gguf#L1", "user/repo", "main", None, "a+b#c?.gguf"),
        ("https://huggingface.co/user/repo/raw/v1/d%C3%A9j%C3%A0/x.gguf", "user/repo", "v1", None, "déjà/x.gguf"),
        ("hf://user/repo/My Model (1).gguf", "user/repo", "main", None, "My Model (1).gguf"),
        ("https://mirror.example/user/repo/blob/main/x.gguf", "user/repo", "main", None, "x.gguf"),
        ("user/repo:My Modèl", "user/repo", "main", "My Modèl", None),
    ],
)
def test_addresses(
    text: str, repo: str, revision: str, quant: str | None, file: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example")
    choice = parse_reference(text)
    assert choice is not None and choice.source == HubSource(kind="hub", repo=repo, revision=revision)
    assert choice.quant == quant and (choice.file.name if choice.file else None) == file


@pytest.mark.parametrize("text", ["smollm2", "a/b/c", "./a/b", "/a/b", "a/", "a b/c", "a/b:", "bitnet-2b:packed"])
def test_what_is_no_address(text: str) -> None:
    assert parse_reference(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "hf://",
        "hf://user",
        "https://example.com/a/b",
        "hf://user/repo/../x",
        "https://[::1/a/b",
        "hf.co/a",
        "https://huggingface.co/user/repo/blob/main/..%2F..%2Fx.gguf",
        "https://huggingface.co/u/r/blob/main/a%00b",
        "https://huggingface.co/datasets/user/repo",
        "https://huggingface.co/user/repo/blob/main/a%0Ab.gguf",
    ],
)
def test_what_only_looks_like_one(text: str) -> None:
    with pytest.raises(UsageError, match="is not the address of a model on the Hub"):
        parse_reference(text)


def test_a_file_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    assert getattr(resolve("user/repo", store, []), "name", None) == "user/repo"
    Path("user").mkdir()
    Path("user/repo").write_bytes(b"GGUF")
    assert resolve("user/repo", store, []) == Path("user/repo")
    with pytest.raises(ModelNotFound, match="not a readable file"):
        resolve("./nosuch/repo", store, [])


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("smollm2", "smollm2"), ("SmolLM2", "smollm2"), ("smollm2:latest", "smollm2"), ("smollm2:135m", "smollm2"),
        ("smollm2:1.7b", "smollm2-1.7b"), ("bitnet", "bitnet-2b"), ("BitNet:packed", "bitnet-2b:packed"),
        ("bitnet-b1.58-2B-4T", "bitnet-2b"), ("phi3", "phi-3-mini"), ("phi3:mini", "phi-3-mini"),
        ("qwen2.5", "qwen2.5-7b"), ("qwen2.5:0.5b", "qwen2.5-0.5b"),
        ("qwen2.5:0.5b-instruct-q8_0", "qwen2.5-0.5b:Q8_0"),
        ("gemma3", "gemma3-4b"), ("gemma3:1b", "gemma3-1b"), ("gemma-3-4b-it", "gemma3-4b"), ("qwen3", "qwen3-4b"),
        ("Llama3.2:1b", "llama3.2-1b"), ("llama3.2", "llama3.2-3b"), ("qwen2.5-coder", "qwen2.5-coder-1.5b"),
        ("ternary-bonsai", "ternary-bonsai-8b"), ("bonsai", "bonsai-0.5b"),
        ("Qwen2.5-7B-Instruct", "qwen2.5-7b"), ("all-minilm:22m", "minilm"), ("falcon3:1b", "falcon3-1b"),
    ],
)  # fmt: skip
def test_names_as_people_type_them(typed: str, name: str) -> None:
    choice = find_choice(typed, RECIPES)
    assert choice is not None and choice.name == name


@pytest.mark.parametrize("typed", ["gemma3:12b", "gemma-3-12b-it", "Llama3.1", "mistral", "phi4"])
def test_a_name_of_another_tool_leads_to_the_hub(typed: str) -> None:
    error = not_found(typed, recipe_names(RECIPES))
    repo = error.hint.removeprefix("edgellm pull ")
    assert find_choice(typed, RECIPES) is None and error.why == f"did you mean {repo}?"
    assert parse_reference(repo) is not None and repo == repository(typed)


def test_a_name_that_nobody_knows_can_be_searched_for() -> None:
    assert not_found("zephyrus7:2b", []).hint == "edgellm list --available, or edgellm search zephyrus 7 2b"
    assert find_choice("qwen2.5:72b", RECIPES) is None and find_choice("smollm2-99b", RECIPES) is None
    with pytest.raises(ModelNotFound, match="smollm2 has no variant 'Q9'"):
        find_choice("smollm2:Q9", RECIPES)


def test_no_two_recipes_have_one_name() -> None:
    recipes = load_recipes(RECIPES).values()
    names = [name.lower() for recipe in recipes for name in (recipe.name, *recipe.aliases)]
    assert len(names) == len(set(names))


FILES: dict[str, int | None] = {
    "README.md": 1,
    "mmproj-F16.gguf": 5,
    "x-fp16.gguf": 100,
    "x-q8_0.gguf": 50,
    "x-q4_k_m-00001-of-00002.gguf": 20,
    "x-q4_k_m-00002-of-00002.gguf": 10,
    "UD-IQ1_S/x-00001-of-00001.gguf": 5,
}


def test_quantizations_by_the_names_of_files() -> None:
    found = {choice.quant: (len(choice.files), choice.size) for choice in gguf_choices(FILES)}
    assert found == {"F16": (1, 100), "Q8_0": (1, 50), "Q4_K_M": (2, 30), "UD-IQ1_S": (1, 5)}
    names = {
        "ggml-model-i2_s.gguf": "I2_S",
        "Phi-3-mini-4k-instruct-q4.gguf": "Q4",
        "m.Q4_0.gguf": "Q4_0",
        "a.gguf": "A",
    }
    for name, quant in names.items():
        assert gguf_choices({name: 1})[0].quant == quant


def test_the_one_that_people_want() -> None:
    def chosen(files: dict[str, int | None], wanted: str | None = None) -> str:
        choice = choose_gguf(files, wanted, repo="u/r")
        assert choice is not None
        return choice.quant

    assert chosen(FILES) == "Q4_K_M" and chosen(FILES, "q8_0") == "Q8_0" and chosen(FILES, "ud-iq1_s") == "UD-IQ1_S"
    assert chosen({"a-i2_s.gguf": 1, "a-q4_k_m.gguf": 1}) == "I2_S" and chosen({"odd.gguf": None}) == "ODD"
    assert choose_gguf({"README.md": 1}, None, repo="u/r") is None
    with pytest.raises(ModelNotFound, match="u/r has no Q8_1") as caught:
        choose_gguf(FILES, "Q8_1", repo="u/r")
    assert caught.value.hint == "edgellm pull u/r:Q8_0"
    with pytest.raises(ModelNotFound, match="not complete"):
        choose_gguf({"x-Q4_0-00002-of-00003.gguf": 1, "x-Q4_0-00003-of-00003.gguf": 1}, None, repo="u/r")


def test_what_a_checkpoint_is_made_of() -> None:
    files: dict[str, int | None] = dict.fromkeys(
        ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "tokenizer.json",
         "model.safetensors.index.json", "1_Pooling/config.json", "modeling_x.py", "consolidated.safetensors",
         "onnx/model.onnx", "pytorch_model.bin", "README.md"], 1)  # fmt: skip
    assert checkpoint_files(files, repo="u/r") == [
        "1_Pooling/config.json", "config.json", "model.safetensors.index.json", "tokenizer.json",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
    ]  # fmt: skip
    for rest in ({"config.json": 1}, {"model.safetensors": 1}, {}):
        with pytest.raises(UnsupportedModel):
            checkpoint_files(rest, repo="u/r")
