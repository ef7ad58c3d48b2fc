"""The scores of a reranker equal those of plain numpy, and pairs are put together as the file says."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.errors import NotFinite, UnsupportedModel
from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.gguf_writer import GGUFWriter
from tests.serve.reranker_maker import reranker
from tests.weights.tokenizer_files import WORDS

pytestmark = pytest.mark.engine
Made = tuple[Path, Callable[[Sequence[int]], float]]
CLS, SEP = WORDS.index("[CLS]"), WORDS.index("[SEP]")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return reranker(tmp_path_factory.mktemp("reranker"))


@pytest.fixture(scope="module")
def model(llama: LlamaEngine, made: Made) -> Iterator[LlamaModel]:
    loaded = llama.load(made[0])
    yield loaded
    loaded.close()


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.split()]


def changed(made: Made, path: Path, metadata: dict[str, str], spoil: str = "") -> Path:
    """The same file with other metadata; the tensor `spoil` is no numbers."""
    with GGUFFile.open(made[0]) as source, GGUFWriter(path) as out:
        out.copy_metadata(source.metadata)
        for key, value in metadata.items():
            out.add(key, value)
        for name, info in source.tensors.items():
            out.declare(name, info.shape, info.type)
        for name in source.tensors:
            data = bytes(source.tensor_bytes(name))
            out.write(name, b"\xff" * len(data) if name == spoil else data)
    return path


def test_scores_are_those_of_numpy(model: LlamaModel, made: Made) -> None:
    ranker = model.open_ranker(n_ctx=64, n_threads=2)
    for text in ("sat", "the cat sat .", "the the the"):
        pair = model.tokenize_pair("the cat", text)
        assert pair == [CLS, *ids("the cat"), SEP, *ids(text), SEP]
        assert ranker.rank(pair) == pytest.approx(made[1](pair), abs=0.01)
    for wrong in ([], [1] * 65):
        with pytest.raises(ValueError, match="texts of"):
            ranker.rank(wrong)
    ranker.close()
    ranker.close()


def test_a_file_may_have_its_own_template(llama: LlamaEngine, made: Made, tmp_path: Path) -> None:
    template = {"tokenizer.chat_template.rerank": "[CLS] {document} . {query} [SEP]"}
    model = llama.load(changed(made, tmp_path / "own.gguf", template))
    assert model.tokenize_pair("the cat", "sat") == [CLS, *ids("sat . the cat"), SEP]
    model.close()


def test_what_is_no_number_is_no_score(llama: LlamaEngine, made: Made, tmp_path: Path) -> None:
    model = llama.load(changed(made, tmp_path / "nan.gguf", {}, spoil="cls.output.weight"))
    ranker = model.open_ranker(n_ctx=64, n_threads=1)
    with pytest.raises(NotFinite):
        ranker.rank(model.tokenize_pair("the cat", "sat"))
    ranker.close()
    model.close()


def test_rerankers_and_embedders_are_not_mistaken(llama: LlamaEngine, model: LlamaModel, made: Made) -> None:
    with pytest.raises(UnsupportedModel, match="not an embedding model"):
        model.open_embedder(n_seq=1, n_ctx=64, n_threads=1)
    embedder = llama.load(made[0].with_name("plain.gguf"))
    with pytest.raises(UnsupportedModel, match="not a reranker"):
        embedder.open_ranker(n_ctx=64, n_threads=1)
    embedder.close()
