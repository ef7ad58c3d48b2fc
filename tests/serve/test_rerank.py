"""Reranking, with a small reranker whose scores are known."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.serve.reranker_maker import reranker
from tests.serve.server import Server
from tests.weights.tokenizer_files import WORDS

pytestmark = [pytest.mark.engine, pytest.mark.model]
QUERY = "the cat"
DOCUMENTS = ["sat", "the cat sat .", "cats cats cats", ". the", "the the the"]


def ids(text: str) -> list[int]:
    return [WORDS.index(word) for word in text.replace("cats", "cat ##s").split()]


@pytest.fixture(scope="module")
def ranking(start: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Any]]:
    path, score = reranker(tmp_path_factory.mktemp("reranker"))
    with start(str(path), "--slots", "2") as server:
        yield server, score


def test_the_order_is_that_of_the_models_scores(ranking: tuple[Server, Any]) -> None:
    server, score = ranking
    expected = {i: score(ids(f"[CLS] {QUERY} [SEP] {text} [SEP]")) for i, text in enumerate(DOCUMENTS)}
    reply = server.post("/v1/rerank", {"model": "reranker", "query": QUERY, "documents": DOCUMENTS}).json()
    told = {each["index"]: each["relevance_score"] for each in reply["results"]}
    assert told == pytest.approx(expected, abs=0.01)
    assert list(told) == sorted(expected, key=lambda index: -expected[index])
    assert reply["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("path", ["/rerank", "/v1/reranking"])
def test_the_best_with_their_texts(ranking: tuple[Server, Any], path: str) -> None:
    server, _ = ranking
    documents = [{"text": text} for text in DOCUMENTS]
    body = {"query": QUERY, "documents": documents, "top_n": 2, "return_documents": True}
    results = server.post(path, body).json()["results"]
    assert len(results) == 2
    assert all(each["document"]["text"] == DOCUMENTS[each["index"]] for each in results)


def test_a_document_that_is_too_long_is_a_400(ranking: tuple[Server, Any]) -> None:
    server, _ = ranking
    reply = server.post("/v1/rerank", {"query": QUERY, "documents": ["the " * 100]})
    assert reply.status == 400 and reply.json()["error"]["n_ctx"] == 64


def test_a_reranker_does_nothing_else(ranking: tuple[Server, Any]) -> None:
    server, _ = ranking
    reply = server.post("/v1/embeddings", {"model": "reranker", "input": "the"})
    assert reply.status == 400 and "ranks texts" in reply.json()["error"]["message"]


def test_other_models_are_told_what_is_needed(server: Server) -> None:
    reply = server.post("/v1/rerank", {"model": "bert", "query": "a", "documents": ["b"]})
    assert reply.status == 400 and "pooling_type" in reply.json()["error"]["message"]


@pytest.mark.parametrize("wrong", [{"documents": []}, {"top_n": 0}, {"documents": [1]}, {"max_chunks": 1}])
def test_wrong_requests(server: Server, wrong: dict[str, Any]) -> None:
    reply = server.post("/v1/rerank", {"query": "a", "documents": ["b"], **wrong})
    assert reply.status == 400 and reply.json()["error"]["param"].split(".")[0] in wrong
