"""Results that are not numbers are errors everywhere; first tokens that are nonsense are noticed, and remembered."""

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.engine.fake import FakeModel
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.sampling import Sampling
from edgellm.errors import NotFinite
from edgellm.formats.gguf_file import GGUFFile
from edgellm.machine.cpu import usable_cores
from edgellm.measure.bench.worker import BenchWorker
from edgellm.models.fit.memory import RunPlan
from edgellm.run.self_test import N_TOKENS, LikeliestToken, SelfTests, SelfTestVerdict, doubt_about, first_tokens
from edgellm.serve.workers.catalog import ModelKind
from edgellm.serve.workers.self_test import self_test
from edgellm.serve.workers.worker import Worker
from edgellm.settings import Settings
from edgellm.weights.convert.converter import convert
from tests.commands.cli import data, edgellm, error
from tests.serve.fake_worker import FakeModel as FakeServed
from tests.weights import checkpoint_maker as make

LARGE = 100_000_000
Edit = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def edited(source: Path, target: Path, tensor: str, edit: Edit) -> Path:
    """A copy of a model with other numbers in one of its F32 tensors."""
    shutil.copyfile(source, target)
    with GGUFFile.open(source) as gguf:
        info = gguf.tensors[tensor]
        values = gguf.tensor_bytes(tensor).view(np.float32).copy()
    with target.open("r+b") as file:
        file.seek(info.offset)
        file.write(edit(values).astype(np.float32).tobytes())
    return target


def tokens(*pairs: tuple[int, float]) -> list[LikeliestToken]:
    return [LikeliestToken(*pair) for pair in pairs]


def test_what_is_nonsense() -> None:
    sane = tokens((7, 0.9), (8, 0.4), (7, 0.001), (9, 0.7))
    assert doubt_about(sane, 1000, LARGE) is None and doubt_about([], 1000, LARGE) is None
    assert "equally likely" in (doubt_about(tokens(*[(0, 1e-3)] * N_TOKENS), 1000, 100) or "")
    unsure = tokens((1, 0.005), (2, 0.009), (3, 0.002), (4, 0.001))
    assert "1% sure" in (doubt_about(unsure, 50_000, LARGE) or "")
    same = tokens(*[(5, 0.9)] * N_TOKENS)
    assert "repeats one token" in (doubt_about(same, 1000, LARGE) or "")
    # A toy knows nothing, and need not.
    assert doubt_about(unsure, 50_000, 100) is doubt_about(same, 1000, 100) is None


def test_the_tokens_are_the_likeliest_and_the_context_is_empty_afterwards() -> None:
    table = np.zeros((257, 257), np.float32)
    for token in range(256):
        table[token, (token + 1) % 256] = np.log(256)  # against 256 others: one half
    model = FakeModel(table=table)
    context = model.open_context(n_ctx=64, n_batch=4, n_threads=1)
    comma = ord(",")
    assert [token.id for token in first_tokens(model, context)] == [comma + 1, comma + 2, comma + 3, comma + 4]
    assert all(token.probability == pytest.approx(0.5) for token in first_tokens(model, context))
    assert not context.tokens
    assert first_tokens(model, model.open_context(n_ctx=8, n_batch=4, n_threads=1)) == []


def test_verdicts_are_remembered_for_the_file_as_it_is(tmp_path: Path) -> None:
    model, record = tmp_path / "m.gguf", tmp_path / "cache" / "tests.json"
    model.write_bytes(b"one")
    tests = SelfTests(record, "stamp")
    assert tests.known(model) is None
    assert tests.judge(model, [], 10, LARGE) is None and tests.known(model) is None
    assert "repeats" in (tests.judge(model, tokens(*[(1, 0.9)] * N_TOKENS), 10, LARGE) or "")
    assert SelfTests(record, "stamp").known(model) == SelfTestVerdict("it repeats one token")
    assert SelfTests(record, "another engine").known(model) is None
    model.write_bytes(b"another")
    assert tests.known(model) is None
    for damaged in (b"\xff", b"[]", json.dumps({str(model): 3}).encode()):
        record.write_bytes(damaged)
        assert tests.known(model) is None
    assert SelfTests(Path("/dev/null/x"), "stamp").judge(model, tokens((1, 0.5)), 10, LARGE) is None


def test_a_worker_is_tested_once(tmp_path: Path) -> None:
    tests = SelfTests(tmp_path / "tests.json", "stamp")

    async def doubt(fake: FakeServed, kind: ModelKind = ModelKind.CHAT) -> str | None:
        model = fake.model(kind)
        worker = await Worker.start(fake.program, model, RunPlan(512), log=tmp_path / "log")
        try:
            return await self_test(worker, tests)
        finally:
            await worker.stop()

    def replies(logprob: float | None, n: int) -> dict[str, object]:
        return {"/completion": {"completion_probabilities": [{"id": 1, "logprob": logprob}] * n}}

    fake = FakeServed(tmp_path, replies=replies(float(np.log(1 / 1000)), N_TOKENS))
    assert "equally likely" in (asyncio.run(doubt(fake)) or "")
    fake.play(refuses=(500, {}))  # it is not asked again
    assert "equally likely" in (asyncio.run(doubt(fake)) or "")
    assert asyncio.run(doubt(fake, ModelKind.EMBEDDING)) is None
    broken = FakeServed(tmp_path, "broken", replies=replies(None, 1))
    with pytest.raises(NotFinite, match="broken computes no numbers"):
        asyncio.run(doubt(broken))
    short = FakeServed(tmp_path, "short", refuses=(400, {"error": {"message": "too long"}}))
    assert asyncio.run(doubt(short)) is None and tests.known(short.path) is None


@pytest.mark.engine
@pytest.mark.model
def test_the_embedded_model_passes_and_damaged_copies_do_not(
    with_engine: Settings, llama: LlamaEngine, smollm2: Path, tmp_path: Path
) -> None:
    healthy = edgellm("run", "smollm2", "Hello", "-n", "2", "--json")
    assert data(healthy)["doubt"] is None
    kept = json.loads(with_engine.self_tests.read_text())
    assert [entry["doubt"] for entry in kept.values()] == [None]

    mute = edited(smollm2, tmp_path / "mute.gguf", "output_norm.weight", np.zeros_like)
    said = edgellm("run", str(mute), "Hello", "-n", "2", "--temp", "0")
    assert said.returncode == 0 and "every token is equally likely" in said.stderr
    assert "equally likely" in data(edgellm("run", str(mute), "Hello", "-n", "2", "--json"))["doubt"]
    random = np.random.default_rng(1)
    noisy = edited(smollm2, tmp_path / "noisy.gguf", "output_norm.weight", lambda x: random.normal(0, 0.02, x.shape))
    model = llama.load(noisy)
    context = model.open_context(n_ctx=64, n_batch=64, n_threads=usable_cores())
    assert doubt_about(first_tokens(model, context), model.info.n_vocab, model.info.n_params)
    context.close()
    model.close()


@pytest.mark.engine
@pytest.mark.model
def test_nan_is_an_error_in_every_verb(
    with_engine: Settings, llama: LlamaEngine, smollm2: Path, tmp_path: Path
) -> None:
    broken = edited(smollm2, tmp_path / "broken.gguf", "output_norm.weight", lambda x: x * np.nan)
    for arguments in (("run", str(broken), "Hello"), ("quality", str(broken))):
        found = edgellm(*arguments, "--json")
        assert found.returncode == 7 and error(found)["code"] == "not-finite", arguments
        assert "broken.gguf" in error(found)["what"]
    worker = BenchWorker(str(broken), n_ctx=64, n_seqs=[], n_ctx_seq=64, n_batch=64, n_threads=1)
    with pytest.raises(NotFinite):
        worker.load(lambda *_: None)
    rows, out = tmp_path / "rows.txt", tmp_path / "out.jsonl"
    rows.write_text("Hello\n")
    assert edgellm("batch", str(rows), "-o", str(out), "-m", str(broken), "-n", "2").returncode == 8
    assert json.loads(out.read_text())["error"]["code"] == "not-finite"

    model = llama.load(broken)
    context = model.open_context(n_ctx=64, n_batch=64, n_threads=1)
    with pytest.raises(NotFinite):
        context.score([1, 2])
    sampler = context.open_sampler(Sampling(temperature=0))
    with pytest.raises(NotFinite):
        sampler.sample()
    sampler.close()
    context.close()
    model.close()

    make.bert(tmp_path)
    bert = convert(tmp_path, tmp_path / "bert.gguf", outtype="F32").path
    dumb = llama.load(edited(bert, tmp_path / "dumb.gguf", "token_embd_norm.weight", lambda x: x * np.nan))
    embedder = dumb.open_embedder(n_seq=1, n_ctx=64, n_threads=1)
    with pytest.raises(NotFinite, match=r"dumb\.gguf"):
        embedder.embed([[1, 2]])
    embedder.close()
    dumb.close()
