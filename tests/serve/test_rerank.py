"""Reranking, with a small reranker whose scores are known."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import edgellm
from edgellm.documents.collection import RERANKER
from edgellm.documents.index import add_roots, update
from edgellm.documents.shelf import Shelf
from edgellm.serve.documents.store import id_of
from edgellm.settings import Settings
from tests.serve.reranker_maker import reranker
from tests.serve.server import Server
from tests.weights.tokenizer_files import WORDS

pytestmark = [pytest.mark.engine, pytest.mark.model]
Ranking = tuple[Server, Callable[[Sequence[int]], float], Path]
QUERY = "the cat"
DOCUMENTS = ["sat", "the cat sat .", "cats cats cats", ". the", "the the the"]


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.replace("cats", "cat ##s").split()]


@pytest.fixture(scope="module")
def ranking(
    start: Callable[..., Server], serve_home: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ranking]:
    """A server of a reranker, with documents that are reranked by it; what it gives for token ids; and its file."""
    path, score = reranker(tmp_path_factory.mktemp("reranker"))
    folder = tmp_path_factory.mktemp("cats")
    for number, text in enumerate(("the cat sat .", "cat . .", "sat cat", "the the cat")):
        (folder / f"{number}.txt").write_text(text)
    shelf = Shelf(Path(serve_home["EDGELLM_HOME"], "data", "documents"))
    with shelf.make("cats") as collection:
        add_roots(collection, [folder])
        update(collection, None)
        collection.set(RERANKER, str(path))
    with start(str(path), "--slots", "2", "--docs", "cats", "--offline") as server:
        yield server, score, path
    shelf.remove("cats")  # the home is shared with other files of tests


def test_the_order_is_that_of_the_models_scores(ranking: Ranking) -> None:
    server, score, _ = ranking
    expected = {i: score(ids(f"[CLS] {QUERY} [SEP] {text} [SEP]")) for i, text in enumerate(DOCUMENTS)}
    reply = server.post("/v1/rerank", {"model": "reranker", "query": QUERY, "documents": DOCUMENTS}).json()
    told = {each["index"]: each["relevance_score"] for each in reply["results"]}
    assert told == pytest.approx(expected, abs=0.01)
    assert list(told) == sorted(expected, key=lambda index: -expected[index])
    assert reply["usage"]["total_tokens"] > 0


def test_in_process_the_scores_are_the_same(ranking: Ranking, with_engine: Settings) -> None:
    server, _, path = ranking
    reply = server.post("/v1/rerank", {"model": "reranker", "query": QUERY, "documents": DOCUMENTS}).json()
    told = {each["index"]: each["relevance_score"] for each in reply["results"]}
    with edgellm.open(str(path)) as model:
        assert dict(enumerate(model.rank(QUERY, DOCUMENTS))) == pytest.approx(told, rel=1e-3, abs=1e-3)
        with pytest.raises(edgellm.EdgellmError, match="has 105 tokens with its question"):
            model.rank(QUERY, ["the " * 100])
        with pytest.raises(edgellm.EdgellmError, match="not an embedding model"):
            model.embed([QUERY])
        with pytest.raises(edgellm.EdgellmError, match="not a chat model"):
            model.ask(QUERY)


def test_documents_are_in_the_order_of_the_scores(ranking: Ranking) -> None:
    server, *_ = ranking
    store = id_of("vs_", "cats")
    found = server.post(f"/v1/vector_stores/{store}/search", {"query": "cat", "rewrite_query": False}).json()["data"]
    texts = [f"{each['filename'].replace('.', ' ')} \n{each['content'][0]['text']}" for each in found]
    reply = server.post("/v1/rerank", {"model": "reranker", "query": "cat", "documents": texts}).json()
    assert [each["index"] for each in reply["results"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("path", ["/rerank", "/v1/reranking"])
def test_the_best_with_their_texts(ranking: Ranking, path: str) -> None:
    server, *_ = ranking
    documents = [{"text": text} for text in DOCUMENTS]
    body = {"query": QUERY, "documents": documents, "top_n": 2, "return_documents": True}
    results = server.post(path, body).json()["results"]
    assert len(results) == 2
    assert all(each["document"]["text"] == DOCUMENTS[each["index"]] for each in results)


def test_a_document_that_is_too_long_is_a_400(ranking: Ranking) -> None:
    server, *_ = ranking
    reply = server.post("/v1/rerank", {"query": QUERY, "documents": ["the " * 100]})
    assert reply.status == 400 and reply.json()["error"]["n_ctx"] == 64
    assert "which exceeds the available context size of 64" in reply.json()["error"]["message"]


def test_a_reranker_does_nothing_else(ranking: Ranking) -> None:
    server, *_ = ranking
    reply = server.post("/v1/embeddings", {"model": "reranker", "input": "the"})
    assert reply.status == 400 and "ranks texts" in reply.json()["error"]["message"]
    assert server.post("/api/show", {"model": "reranker"}).json()["capabilities"] == ["rerank"]


def test_other_models_are_told_what_is_needed(server: Server) -> None:
    reply = server.post("/v1/rerank", {"model": "bert", "query": "a", "documents": ["b"]})
    assert reply.status == 400 and "pooling_type" in reply.json()["error"]["message"]


@pytest.mark.parametrize("wrong", [{"documents": []}, {"top_n": 0}, {"documents": [1]}, {"max_chunks": 1}])
def test_wrong_requests(server: Server, wrong: dict[str, Any]) -> None:
    reply = server.post("/v1/rerank", {"query": "a", "documents": ["b"], **wrong})
    assert reply.status == 400 and reply.json()["error"]["param"].split(".")[0] in wrong
