"""Running llama.cpp's converter, replaced by a stand-in: its requirements, its progress, and its failures."""

from pathlib import Path

import pytest

from edgellm.errors import EdgellmError, UsageError
from edgellm.progress import Progress
from edgellm.weights.convert.converter import convert
from edgellm.weights.convert.upstream import NEEDS, SCRIPT, convert_with_upstream
from tests.weights import checkpoint_maker as make
from tests.weights.numpy_models import Shape

SUCCEED = """
import shutil, sys
print("INFO: hello", flush=True)
sys.stderr.write("\\rWriting:  40%|####      |\\rWriting: 100%|##########|\\n")
shutil.copy(sys.argv[1] + "/made.gguf", sys.argv[sys.argv.index("--outfile") + 1])
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source tree whose converter succeeds, and stand-ins for the modules it needs."""
    tree = tmp_path / "llama.cpp"
    tree.mkdir()
    for name in NEEDS:
        (tmp_path / "modules" / name).mkdir(parents=True)
        (tmp_path / "modules" / name / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    (tree / SCRIPT).write_text(SUCCEED)
    return tree


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    made = make.llama(tmp_path / "strange", Shape())
    convert(made.directory, made.directory / "made.gguf", outtype="F16")
    return made.directory


def test_a_conversion_with_progress(tree: Path, checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = convert_with_upstream(tree, checkpoint, tmp_path / "out.gguf", report=seen.append)
    assert (result.name, result.outtype, result.architecture) == ("strange", "F16", "llama")
    assert [progress.done for progress in seen] == [0, 40, 100]
    assert (tmp_path / "out.gguf").read_bytes() == (checkpoint / "made.gguf").read_bytes()


@pytest.mark.parametrize(
    ("script", "outtype", "why"),
    [
        ("raise SystemExit('Model MambaForCausalLM is not supported')", "f16", "MambaForCausalLM is not supported"),
        ("import sys; sys.exit(3)", "f16", "no reason"),
        (SUCCEED, "tq2_0", "none of its tensors became TQ2_0"),
    ],
)
def test_failures_leave_nothing(
    tree: Path, checkpoint: Path, tmp_path: Path, script: str, outtype: str, why: str
) -> None:
    (tree / SCRIPT).write_text(script)
    with pytest.raises(EdgellmError) as failed:
        convert_with_upstream(tree, checkpoint, tmp_path / "out.gguf", outtype=outtype)
    assert why in failed.value.why
    assert not list(tmp_path.glob("*out.gguf*"))


def test_what_it_needs_is_named(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="cannot run") as refused:
        convert_with_upstream(tmp_path, checkpoint)
    assert "pip install torch transformers" in refused.value.hint
    with pytest.raises(UsageError, match="cannot write I2_S"):
        convert_with_upstream(tmp_path, checkpoint, outtype="i2_s")


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("modeling_strange.py", "print('run')", "modeling_strange.py is code"),
        ("pytorch_model.bin", "", "pickled"),
        ("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": "x.Y"}}', "auto_map"),
    ],
)
def test_a_checkpoint_with_code_is_refused(tree: Path, checkpoint: Path, name: str, text: str, why: str) -> None:
    (checkpoint / name).write_text(text)
    with pytest.raises(UsageError, match="may not run on strange") as caught:
        convert_with_upstream(tree, checkpoint)
    assert why in caught.value.why
