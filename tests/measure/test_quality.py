"""Windows, positions and comparisons: scripted models by hand, and the real engine against its own raw logits."""

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.fake import END, FakeModel
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import ContextTooLarge, DoesNotFit, UsageError
from edgellm.machine import memory
from edgellm.measure.quality import N_BATCH, Quality, QualityOptions, compare, measure
from edgellm.measure.sample import SHIPPED, Sample, read_sample
from edgellm.progress import Observer, Progress
from edgellm.text import LARGEST_TEXT
from edgellm.weights.quantize.quantizer import QuantizeOptions, quantize
from tests.engine.engine_logits import logits as raw_logits

ALPHABET = "".join(map(chr, range(128)))


def sample(text: str) -> Sample:
    return Sample("a text", text, len(text))


def successor_model(p: float = 0.5) -> FakeModel:
    """A model that predicts the successor of the last byte with probability `p`, and all others equally."""
    table = np.zeros((END + 1, END + 1), np.float32)
    for byte in range(END):
        table[byte, byte + 1] = np.log(p / (1 - p) * END)
    return FakeModel(table=table)


@pytest.mark.parametrize("n_ctx", [8, 9, 63, 100, 128])
def test_every_position_predicts_the_next_token(n_ctx: int) -> None:
    """In an alphabet each token is the successor of the last; a position off by one would have 1/512 instead of 1/2."""
    found = compare([successor_model()], sample(ALPHABET), QualityOptions(n_ctx, n_threads=1))
    assert found.model.perplexity.value == pytest.approx(2)
    n_windows = 128 // n_ctx
    assert found.n_tokens == n_windows * n_ctx and found.complete
    assert found.n_positions == n_windows * (n_ctx - 1 - n_ctx // 2)
    assert found.base is None and found.divergence is None


def test_a_base_and_what_it_costs() -> None:
    models = [successor_model(0.25), successor_model(0.5)]
    found = compare(models, sample(ALPHABET), QualityOptions(64, n_threads=1))
    assert found.base is not None and found.divergence is not None
    assert (found.model.perplexity.value, found.base.perplexity.value) == (pytest.approx(4), pytest.approx(2))
    assert found.divergence.perplexity_change == pytest.approx(1)
    # 1/2 ln(1/2 : 1/4), plus 1/2 ln(1/2 : 3/4) for the 256 other tokens together.
    assert found.divergence.mean == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(2 / 3), abs=1e-6)
    assert found.divergence.same_top == 1


def test_tokens_limit_the_text_and_progress_reports_them() -> None:
    seen: list[Progress] = []
    found = compare(
        [successor_model()], sample(ALPHABET), QualityOptions(16, n_tokens=40, n_threads=1), Observer(seen.append)
    )
    assert found.n_tokens == 32 and [(p.done, p.total) for p in seen] == [(16, 32), (32, 32)]


def test_stopping_early() -> None:
    calls = iter([False, True])
    watch = Observer(interrupted=lambda: next(calls))
    found = compare([successor_model()], sample(ALPHABET), QualityOptions(16, n_threads=1), watch)
    assert not found.complete and found.n_tokens == 32 and found.model.perplexity.value == pytest.approx(2)
    with pytest.raises(KeyboardInterrupt):  # the first batch of a long window is only context
        compare(
            [successor_model()], sample(ALPHABET), QualityOptions(128, n_threads=1), Observer(interrupted=lambda: True)
        )
    assert N_BATCH <= 64


class _Halves(FakeModel):
    """A model that splits a text into other tokens."""

    def tokenize(self, text: str, *, special: bool = False, bos: bool = True) -> list[int]:
        return super().tokenize(text)[::2]


def test_what_cannot_be_measured() -> None:
    with pytest.raises(UsageError, match="too few"):
        compare([successor_model()], sample("short"), QualityOptions(8, n_threads=1))
    with pytest.raises(UsageError, match="cannot be compared"):
        compare([successor_model(), _Halves()], sample(ALPHABET), QualityOptions(8, n_threads=1))


def test_texts(tmp_path: Path) -> None:
    shipped = read_sample()
    assert shipped.n_bytes == SHIPPED.stat().st_size > 30_000 and len(shipped.text.encode()) == shipped.n_bytes
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xe9t\xe9")
    with pytest.raises(UsageError, match="not a text in UTF-8"):
        read_sample(path)
    with path.open("wb") as file:
        file.truncate(LARGEST_TEXT + 1)
    with pytest.raises(UsageError, match="too large"):
        read_sample(path)
    for nothing in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UsageError, match="no text file"):
            read_sample(nothing)


@pytest.fixture(scope="module")
def llm(engine: InstalledEngine) -> LlamaEngine:
    return LlamaEngine(engine)


@pytest.mark.engine
@pytest.mark.model
def test_the_embedded_model_against_raw_logits(llm: LlamaEngine, smollm2: Path) -> None:
    """The perplexity equals one computed from the bare bindings, with a float32 cache and a separate formula."""
    n_ctx = 96
    found = measure(llm, smollm2, read_sample(), QualityOptions(n_ctx, n_ctx, 1), against=None, watch=Observer())
    model = llm.load(smollm2)
    bos = model.tokenize("")
    tokens = [*bos, *model.tokenize(read_sample().text)[len(bos) : n_ctx]]
    model.close()
    logits = raw_logits(llm, smollm2, tokens, n_threads=1, n_batch=N_BATCH).astype(np.float64)
    first = n_ctx // 2
    came = logits[np.arange(first, n_ctx - 1), tokens[first + 1 :]]
    nll = np.log(np.exp(logits[first:-1]).sum(axis=-1)) - came
    assert found.n_positions == len(nll) == n_ctx - 1 - first
    assert found.model.perplexity.value == pytest.approx(np.exp(nll.mean()), rel=0.04)  # 8-bit activations
    assert 5 < found.model.perplexity.value < 60  # a model of English on English


@pytest.mark.engine
@pytest.mark.model
def test_windows_and_memory_that_are_refused(llm: LlamaEngine, smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContextTooLarge):
        measure(llm, smollm2, read_sample(), QualityOptions(1 << 20), against=None, watch=Observer())
    monkeypatch.setattr(memory, "room", lambda: memory.Room(100_000_000, None))
    with pytest.raises(DoesNotFit) as refused:
        measure(llm, smollm2, read_sample(), QualityOptions(), against=smollm2, watch=Observer())
    assert "without --against" in str(refused.value.hint)


@pytest.mark.soak
@pytest.mark.engine
@pytest.mark.model
def test_numbers_are_those_of_llama_perplexity(llm: LlamaEngine, smollm2: Path, tools: Path, tmp_path: Path) -> None:
    """Compares the perplexity of the embedded model, and KLD and same-top of a smaller one, on two whole windows."""
    small = quantize(llm, smollm2, "Q4_K_S", tmp_path / "small.gguf", QuantizeOptions(force=True)).path
    options = QualityOptions(n_ctx=256, n_tokens=512)
    found: Quality = measure(llm, small, read_sample(), options, against=smollm2, watch=Observer())
    assert found.base is not None and found.divergence is not None
    logits = tmp_path / "logits.bin"
    common = [str(tools / "llama-perplexity"), "-c", "256", "--chunks", "2", "-f", str(SHIPPED)]
    common += ["-b", str(N_BATCH), "-ub", str(N_BATCH)]
    base = _run([*common, "-m", str(smollm2), "--kl-divergence-base", str(logits)])
    theirs = _run([*common, "-m", str(small), "--kl-divergence-base", str(logits), "--kl-divergence"])
    assert found.base.perplexity.value == pytest.approx(_number(r"PPL = +([\d.]+)", base), rel=0.005)
    assert found.base.perplexity.error == pytest.approx(_number(r"PPL = .*\+/- +([\d.]+)", base), rel=0.01)
    assert found.model.perplexity.value == pytest.approx(_number(r"Mean PPL\(Q\) +: +([\d.]+)", theirs), rel=0.005)
    assert found.divergence.mean == pytest.approx(_number(r"Mean +KLD: +([\d.]+)", theirs), rel=0.05)
    assert 100 * found.divergence.same_top == pytest.approx(_number(r"Same top p: +([\d.]+)", theirs), abs=1)


def _run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return result.stdout + result.stderr


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, text
    return float(found[1])
