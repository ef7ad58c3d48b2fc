"""`edgellm convert` on tiny checkpoints."""

from pathlib import Path

import pytest

from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.weights import checkpoint_maker as make
from tests.weights.numpy_models import Shape


def test_a_table_of_what_was_written(tmp_path: Path) -> None:
    made = make.bonsai(tmp_path / "Bonsai", Shape())
    result = edgellm("convert", str(made.directory), "-o", str(tmp_path / "b.gguf"))
    assert result.returncode == 0, result.stderr
    assert "TQ2_0       14" in result.stdout and "next: edgellm " in result.stderr
    assert (tmp_path / "b.gguf").is_file()


def test_json(tmp_path: Path) -> None:
    made = make.qwen2(tmp_path / "qwen", Shape(), gptq=make.Gptq())
    got = data(edgellm("convert", str(made.directory), "-o", str(tmp_path / "q.gguf"), "--json"))
    assert (got["outtype"], got["head"], got["architecture"]) == ("Q4_0", "F16", "qwen2")
    assert {kind["type"]: kind["n_tensors"] for kind in got["types"]} == {"F16": 1, "Q4_0": 14, "F32": 11}
    assert edgellm("show", got["path"]).returncode == 0


def test_refusals(tmp_path: Path, settings: Settings) -> None:
    made = make.bonsai(tmp_path / "Bonsai", Shape())
    result = edgellm("convert", str(made.directory), "--outtype", "i2_s", "--json")
    assert result.returncode == 6 and error(result)["code"] == "unsupported-model"
    assert edgellm("convert", str(made.directory), "--outtype", "q3").returncode == 2
    assert edgellm("convert", str(tmp_path / "nothing")).returncode == 3
    without_engine = edgellm("convert", str(made.directory), "--head", "q6_k")
    assert without_engine.returncode == 7 and "edgellm engine build" in without_engine.stderr


@pytest.mark.engine
def test_a_head_that_the_engine_quantizes(tmp_path: Path, with_engine: Settings) -> None:
    made = make.bitnet(tmp_path / "bitnet", Shape())
    got = data(edgellm("convert", str(made.directory), "--head", "q6_k", "-o", str(tmp_path / "b.gguf"), "--json"))
    assert {kind["type"] for kind in got["types"]} == {"I2_S", "Q6_K", "F32"}
