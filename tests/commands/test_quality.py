"""`edgellm quality` and `edgellm quantize --check` as a user types them."""

from pathlib import Path

import pytest

from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.weights.gguf_maker import write_llama

pytestmark = pytest.mark.engine


@pytest.mark.model
def test_quality_of_the_embedded_model(with_engine: Settings) -> None:
    result = edgellm("quality", "smollm2", "--tokens", "64", "-c", "64", "-t", "1")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("quality of Q4_1 on 30.9 kB of text: perplexity ")
    assert "31 positions in windows of 64 tokens of edgellm's sample" in result.stdout


def test_a_quantization_against_its_source(with_engine: Settings, tmp_path: Path) -> None:
    source, text = write_llama(tmp_path / "tiny-F16.gguf"), tmp_path / "text.txt"
    text.write_text("0123456789 abc\n" * 40)
    common = ("--text", str(text), "-t", "1", "--json")
    made = data(edgellm("quantize", str(source), "Q4_0", "--check", "-o", str(tmp_path / "q.gguf"), *common))
    assert made["quality"]["divergence"]["mean"] > 0 and made["quality"]["base"]["path"] == str(source)
    found = data(edgellm("quality", str(tmp_path / "q.gguf"), "--against", str(source), "-c", "64", *common))
    assert found.keys() == made["quality"].keys()
    assert (found["text"], found["n_ctx"], found["n_positions"]) == ("text.txt", 64, 31 * (found["n_tokens"] // 64))
    assert 0 < found["divergence"]["mean"] < 1 and 0 < found["divergence"]["same_top"] <= 1
    assert found["model"]["perplexity"]["value"] > 1 and found["seconds"] > 0 and found["complete"] is True
    same = data(edgellm("quality", str(source), "--against", str(source), "-c", "64", *common))
    assert (same["divergence"]["maximum"], same["divergence"]["same_top"]) == (0, 1)
    line = edgellm("quality", str(tmp_path / "q.gguf"), "-a", str(source), "-c", "64", "-f", str(text)).stdout
    assert "F16 on 600 B of text: perplexity" in line and "KLD" in line and "same top token" in line


def test_refusals(with_engine: Settings, tmp_path: Path) -> None:
    source = str(write_llama(tmp_path / "tiny.gguf"))
    short = tmp_path / "short.txt"
    short.write_text("too short")
    assert error(edgellm("quality", source, "-f", str(short), "--json"))["code"] == "usage"
    assert edgellm("quality", source, "-f", str(tmp_path / "nothing.txt")).returncode == 2
    assert edgellm("quality", source, "-c", "100000").returncode == 2
    assert edgellm("quality", str(tmp_path / "nothing.gguf")).returncode == 3
    assert edgellm("quantize", source, "Q4_0", "--dry-run", "--check").returncode == 2
    assert not list(tmp_path.glob("*Q4_0*"))
    (tmp_path / "cut.gguf").write_bytes(Path(source).read_bytes()[:-100])
    assert edgellm("quality", source, "--against", str(tmp_path / "cut.gguf")).returncode == 6
