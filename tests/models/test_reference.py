"""What names a model on the Hub, which of its files is meant, and what is something else."""

from pathlib import Path

import pytest

from edgellm.errors import ModelNotFound, UnsupportedModel, UsageError
from edgellm.models.hub_files import checkpoint_files, choose_gguf, gguf_choices
from edgellm.models.recipe import HubSource
from edgellm.models.reference import parse_reference
from edgellm.models.resolve import resolve
from edgellm.models.store import Store


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
        ("https://hf.co/user/repo/resolve/main/m.gguf?download=true", "user/repo", "main", None, "m.gguf"),
    ],
)
def test_addresses(text: str, repo: str, revision: str, quant: str | None, file: str | None) -> None:
    choice = parse_reference(text)
    assert choice is not None and choice.source == HubSource(kind="hub", repo=repo, revision=revision)
    assert choice.quant == quant and (choice.file.name if choice.file else None) == file


@pytest.mark.parametrize("text", ["smollm2", "a/b/c", "./a/b", "/a/b", "a/", "a b/c", "a/b:", "bitnet-2b:packed"])
def test_what_is_no_address(text: str) -> None:
    assert parse_reference(text) is None


@pytest.mark.parametrize(
    "text", ["hf://", "hf://user", "https://example.com/a/b", "hf://user/repo/../x", "hf://a/b/c d"]
)
def test_what_only_looks_like_one(text: str) -> None:
    with pytest.raises(UsageError, match="names no model on the Hub"):
        parse_reference(text)


def test_a_file_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(tmp_path / "store")
    assert getattr(resolve("user/repo", store, []), "name", None) == "user/repo"
    Path("user").mkdir()
    Path("user/repo").write_bytes(b"GGUF")
    assert resolve("user/repo", store, []) == Path("user/repo")
    with pytest.raises(ModelNotFound, match="no file"):
        resolve("./nosuch/repo", store, [])


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
