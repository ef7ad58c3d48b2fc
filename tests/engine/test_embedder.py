"""Vectors of texts equal those of plain numpy, whether computed alone, together or in a batch job."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.errors import UnsupportedModel
from edgellm.settings import Settings
from edgellm.weights.convert.converter import convert
from tests.weights import checkpoint_maker as make
from tests.weights.numpy_models import bert_vector

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, make.Made]:
    directory = tmp_path_factory.mktemp("bert")
    made = make.bert(directory)
    return convert(directory, directory / "bert.gguf", outtype="F32").path, made


@pytest.fixture(scope="module")
def bert(llama: LlamaEngine, made: tuple[Path, make.Made]) -> Iterator[LlamaModel]:
    model = llama.load(made[0])
    yield model
    model.close()


def test_vectors_are_those_of_numpy_alone_and_together(bert: LlamaModel, made: tuple[Path, make.Made]) -> None:
    texts = [bert.tokenize_input(text) for text in ("the cat", "hello world", "the cat the cat hello")]
    embedder = bert.open_embedder(n_seq=4, n_ctx=64, n_threads=2)
    together = embedder.embed(texts)
    assert together.shape == (3, bert.info.n_embd) and bert.info.pooled
    for tokens, vector in zip(texts, together, strict=True):
        assert np.allclose(np.linalg.norm(vector), 1, atol=1e-5)
        assert np.allclose(embedder.embed([tokens])[0], vector, atol=1e-4)
        assert float(vector @ bert_vector(made[1].weights, tokens, layers=2, heads=4)) > 0.999
    for wrong in ([], [[]], [[1] * 65], [[1]] * 5):
        with pytest.raises(ValueError, match="texts of"):
            embedder.embed(wrong)
    embedder.close()
    embedder.close()


def test_a_model_that_generates_is_no_embedder(llama: LlamaEngine, smollm2: Path) -> None:
    model = llama.load(smollm2)
    with pytest.raises(UnsupportedModel, match="not an embedding model"):
        model.open_embedder(n_seq=1, n_ctx=64, n_threads=1)
    model.close()


def test_a_batch_of_embeddings(tmp_path: Path, with_engine: Settings, made: tuple[Path, make.Made]) -> None:
    bodies = [
        {"input": "the cat"}, {"input": ["the cat", "hello world"], "encoding_format": "base64"},
        {"input": [[1, 2], [3]], "token_ids": True}, {"input": "cat " * 600}, {"input": [10**6], "token_ids": True},
    ]  # fmt: skip
    lines = [{"custom_id": str(n), "url": "/v1/embeddings", "body": body} for n, body in enumerate(bodies)]
    lines.append({"custom_id": "x", "url": "/v1/completions", "body": {"prompt": "hi"}})
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, lines)))
    command = [sys.executable, "-m", "edgellm", "batch", str(source), "-o", str(out), "-m", str(made[0]), "-q"]
    result = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert result.returncode == 8, result.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    first, second, third = (row["response"]["body"] for row in rows[:3])
    single = np.array(first["data"][0]["embedding"], np.float32)
    coded = np.frombuffer(base64.b64decode(second["data"][0]["embedding"]), "<f4")
    assert np.allclose(single, coded, atol=1e-4) and [each["index"] for each in second["data"]] == [0, 1]
    assert first["object"] == "list" and first["usage"]["prompt_tokens"] == first["usage"]["total_tokens"] > 0
    assert len(third["data"]) == 2
    assert "tokens" in rows[3]["error"]["message"] and "not a token" in rows[4]["error"]["message"]
    assert "embedding model" in rows[5]["error"]["message"]
