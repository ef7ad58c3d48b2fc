"""`edgellm quantize` and `edgellm show --tensors` as a user types them."""

import re
from pathlib import Path

import numpy as np
import pytest

from edgellm.formats.gguf_file import GGUFFile
from edgellm.formats.ternary import i2_s_scale
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.weights.gguf_maker import write_bitnet, write_imatrix, write_llama


@pytest.mark.engine
@pytest.mark.model
def test_a_quantized_model_still_answers(with_engine: Settings, tmp_path: Path) -> None:
    refused = edgellm("quantize", "smollm2", "Q8_0", "--json")
    assert refused.returncode == 2 and "already quantized" in error(refused)["what"]
    output = tmp_path / "smol.gguf"
    result = edgellm("quantize", "smollm2", "Q8_0", "--force", "-o", str(output))
    assert result.returncode == 0 and f"next: edgellm chat {output}" in result.stderr
    assert "210 are Q4_1" in result.stderr and "Q8_0      211" in result.stdout
    answer = edgellm("run", str(output), "What is the capital of France?", "--temp", "0", "-n", "24")
    assert answer.returncode == 0 and "France" in answer.stdout


@pytest.mark.engine
def test_ternary_round_trip(with_engine: Settings, tmp_path: Path) -> None:
    source = write_bitnet(tmp_path / "bitnet.gguf")
    assert edgellm("quantize", str(source), "i2_s", "-o", str(tmp_path / "a.gguf"), "--head", "f16").returncode == 0
    for before, kind, after in (("a", "TQ2_0", "b"), ("b", "I2_S", "c"), ("c", "TQ1_0", "d"), ("d", "I2_S", "e")):
        names = [str(tmp_path / f"{name}.gguf") for name in (before, after)]
        made = data(edgellm("quantize", names[0], kind, "--head", "f16", "-o", names[1], "--json"))
        assert {tensor["action"] for tensor in made["tensors"]} == {"copy", "transcode"}
    first, *others = (tmp_path / f"{name}.gguf" for name in "ace")
    assert all(other.read_bytes() == first.read_bytes() for other in others)


@pytest.mark.engine
def test_a_dry_run_shows_every_tensor(with_engine: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_llama(tmp_path / "tiny-F16.gguf", ffn=384)
    result = edgellm("quantize", "tiny-F16.gguf", "Q4_K_M", "--dry-run", "--rule", "attn_q=q8_0")
    assert result.returncode == 0, result.stderr
    assert "tiny-Q4_K_M.gguf  nothing is written yet" in result.stdout and not Path("tiny-Q4_K_M.gguf").exists()
    assert re.search(r"^blk\.N\.attn_q\.weight +4 ", result.stdout, re.MULTILINE), "one row for the four layers"
    result = edgellm("quantize", "tiny-F16.gguf", "Q4_K_M", "--dry-run", "--rule", "attn_q=q8_0", "--all")
    # Of four layers the mix gives the last two more bits.
    for layer, wanted, target in ((0, "Q4_K", "Q5_0"), (3, "Q6_K", "Q8_0")):
        row = next(line for line in result.stdout.splitlines() if line.startswith(f"blk.{layer}.ffn_down.weight"))
        assert "384 x 256" in row and f" {target} " in row and row.rstrip().endswith(f"instead of {wanted}")
    assert "rows of 384 are not a multiple of 256" in result.stderr
    plan = data(edgellm("quantize", "tiny-F16.gguf", "--target-size", "3MB", "--dry-run", "--json"))
    assert plan["n_bytes"] <= 3_000_000 and plan["dry_run"] is True and plan["memory"]["total"] > plan["n_bytes"]
    assert {"bpw", "types", "tensors", "notes", "type", "path"} <= plan.keys()


@pytest.mark.engine
def test_refusals_have_their_exit_codes(with_engine: Settings, tmp_path: Path) -> None:
    source = str(write_llama(tmp_path / "tiny.gguf"))
    ternary = edgellm("quantize", source, "I2_S")
    assert ternary.returncode == 2 and "not trained with ternary weights" in ternary.stderr
    missing = edgellm("quantize", source, "IQ2_XS")
    assert missing.returncode == 2 and "--imatrix" in missing.stderr
    imatrix = str(write_imatrix(tmp_path / "imatrix.gguf", Path(source)))
    made = data(edgellm("quantize", source, "IQ2_XS", "--imatrix", imatrix, "-o", str(tmp_path / "q.gguf"), "--json"))
    assert "IQ2_XS" in {kind["type"] for kind in made["types"]}
    assert edgellm("quantize", source, "Q4_0", "--imatrix", source).returncode == 6
    assert edgellm("quantize", source).returncode == edgellm("quantize", source, "Q4_K_X").returncode == 2
    assert edgellm("quantize", source, "Q4_0", "--rule", "nonsense").returncode == 2
    assert edgellm("quantize", str(tmp_path / "nothing.gguf"), "Q4_0").returncode == 3
    (tmp_path / "cut.gguf").write_bytes(Path(source).read_bytes()[:-100])
    assert edgellm("quantize", str(tmp_path / "cut.gguf"), "Q4_0").returncode == 6


def test_without_an_engine_the_command_to_build_it_is_named(settings: Settings, tmp_path: Path) -> None:
    result = edgellm("quantize", str(write_llama(tmp_path / "tiny.gguf")), "Q4_0", "--json")
    assert result.returncode == 7 and error(result)["try"] == "edgellm engine build"


def test_show_tensors_of_an_i2_s_file(tmp_path: Path) -> None:
    """No engine is needed to look into a file."""
    source = write_bitnet(tmp_path / "bitnet.gguf")
    shown = data(edgellm("show", str(source), "--tensors", "--json"))
    tensors = {tensor["name"]: tensor for tensor in shown["tensors"]}
    matrix = tensors["blk.0.ffn_up.weight"]
    assert (matrix["type"], matrix["shape"], matrix["ternary"]) == ("I2_S", [256, 512], True)
    assert matrix["n_bytes"] == 256 * 512 // 4 + 32 and matrix["scales"]["count"] == 1
    with GGUFFile.open(source) as gguf:
        scale = i2_s_scale(gguf.tensor_bytes("blk.0.ffn_up.weight"), name="it")
    assert np.float32(matrix["scales"]["largest"]) == np.float32(scale)
    assert tensors["token_embd.weight"]["ternary"] is False and tensors["output_norm.weight"]["ternary"] is None
    assert shown["embedding_bytes"] == 320 * 256 * 2
    assert shown["embedding_bytes"] + shown["other_bytes"] == sum(tensor["n_bytes"] for tensor in tensors.values())
    text = edgellm("show", str(source), "--tensors").stdout
    row = next(line for line in text.splitlines() if line.startswith("blk.0.ffn_up.weight"))
    assert row.split() == [
        "blk.0.ffn_up.weight",
        "I2_S",
        "256",
        "x",
        "512",
        "32.8",
        "kB",
        "2.00",
        "yes",
        row.split()[-2],
        "token",
    ]
    assert float(row.split()[-2]) == pytest.approx(matrix["scales"]["largest"], rel=1e-5)


@pytest.mark.engine
def test_show_tensors_counts_scales_and_sees_ternary_floats(with_engine: Settings, tmp_path: Path) -> None:
    source = write_bitnet(tmp_path / "bitnet.gguf")
    for kind in ("TQ2_0", "BF16", "F32"):
        out = str(tmp_path / f"{kind}.gguf")
        assert edgellm("quantize", str(source), kind, "-o", out, "-q").returncode == 0
        tensors = {t["name"]: t for t in data(edgellm("show", out, "--tensors", "--json"))["tensors"]}
        assert tensors["blk.1.attn_q.weight"]["ternary"] is True
        assert (tensors["blk.1.attn_q.weight"]["scales"] is None) == (kind != "TQ2_0")
