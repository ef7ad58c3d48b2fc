"""Slow tests of a file with the shape of BitNet b1.58 2B-4T, in bitnet.cpp's format, in the bindings and the tools."""

import json
import re
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm.engine.llama import LlamaEngine
from edgellm.engine.sampling import Sampling
from edgellm.formats.gguf_file import GGUFFile
from edgellm.measure.sample import SHIPPED
from tests.engine.bitnet_file import BITNET_2B_4T, metadata, tensors, write

pytestmark = [pytest.mark.soak, pytest.mark.engine]


@pytest.fixture(scope="module")
def bitnet(tmp_path_factory: pytest.TempPathFactory, vocabularies: Path) -> Path:
    path = tmp_path_factory.mktemp("bitnet") / "bitnet-2b-4t.gguf"
    return write(path, metadata(BITNET_2B_4T), tensors(BITNET_2B_4T), vocabularies / "ggml-vocab-llama-bpe.gguf")


def run(command: list[object]) -> subprocess.CompletedProcess[str]:
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return result


def test_it_is_like_the_official_file(bitnet: Path) -> None:
    with GGUFFile.open(bitnet) as gguf:
        types = [info.type.name for info in gguf.tensors.values()]
        assert {name: types.count(name) for name in types} == {"F16": 1, "F32": 121, "I2_S": 210}
        assert gguf.architecture == "bitnet-b1.58" and "tokenizer.ggml.pre" not in gguf.metadata
        assert gguf.get_int("general.file_type") == 40 and "output.weight" not in gguf.tensors


def test_the_bindings_generate(llama: LlamaEngine, bitnet: Path) -> None:
    model = llama.load(bitnet)
    context = model.open_context(n_ctx=64, n_batch=32, n_threads=2)
    tokens = model.tokenize("1234 is a number.")
    assert [model.piece(token) for token in tokens[-6:]] == [b"123", b"4", b" is", b" a", b" number", b"."]
    context.decode(tokens)
    assert np.isfinite(context.logits()).all()
    sampler = context.open_sampler(Sampling(temperature=0))
    for _ in range(4):
        context.decode([sampler.sample()])
    assert len(context.tokens) == len(tokens) + 4
    sampler.close()
    context.close()
    model.close()


def test_llama_bench(tools: Path, bitnet: Path) -> None:
    common = ["-m", bitnet, "-p", 16, "-n", 4, "-r", 1, "-t", 2, "-o", "json"]
    runs = json.loads(run([tools / "llama-bench", *common]).stdout)
    assert [(each["n_prompt"], each["n_gen"]) for each in runs] == [(16, 0), (0, 4)]
    assert all(each["avg_ts"] > 0 and "I2_S" in each["model_type"] for each in runs)


def test_llama_perplexity(tools: Path, bitnet: Path) -> None:
    common = ["-m", bitnet, "-f", SHIPPED, "-c", 64, "-b", 64, "--chunks", 1, "-t", 2]
    found = re.search(r"PPL = ([\d.]+)", run([tools / "llama-perplexity", *common]).stderr)
    # Random weights know nothing, so the perplexity is close to the vocabulary's 128,256 tokens.
    assert found is not None and 10_000 < float(found[1]) < 10_000_000


def test_llama_server(tools: Path, bitnet: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [tools / "llama-server", "-m", bitnet, "-c", 128, "-t", 2, "--host", "127.0.0.1", "--port", port]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_until_healthy(f"{address}/health", server)
            answer = _post(f"{address}/completion", {"prompt": "Hello", "n_predict": 4, "temperature": 0})
            assert answer["tokens_predicted"] == 4 and answer["content"]
        finally:
            server.terminate()


def _wait_until_healthy(address: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert server.poll() is None, "llama-server ended"
        try:
            with urllib.request.urlopen(address):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.5)
    pytest.fail("llama-server does not get ready")


def _post(address: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        found: dict[str, Any] = json.loads(response.read())
        return found
