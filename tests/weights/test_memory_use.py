"""The memory use of converting and quantizing: a few slabs, plus the tensor being read of a mapped file.

Each runs in a child process, which prints its peak. The short tests use two sizes of a model with a sixth of BitNet
2B-4T's rows, so that a leak per layer shows. The long ones use the real size and the bound of 2.5 GB.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgellm.settings import Settings
from tests.engine import bitnet_file
from tests.engine.bitnet_file import BITNET_2B_4T, Shape
from tests.weights.large_checkpoint import write_bitnet

SMALL = Shape(n_layers=2, width=1024, ffn=2816, n_heads=8, n_kv_heads=2, vocab=24576)
MB = 1_000_000

CONVERT = """
import sys
from pathlib import Path
from edgellm.machine import memory
from edgellm.weights.convert.converter import convert
before = memory.peak_resident()
convert(Path(sys.argv[1]), Path(sys.argv[2]), outtype=sys.argv[3])
print(memory.peak_resident() - before)
"""
QUANTIZE = """
import sys
from pathlib import Path
from edgellm.engine.builds.installed import require
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.builds.patches import PatchStack
from edgellm.machine import memory
from edgellm.settings import Settings, resource_directory
from edgellm.weights.quantize.quantizer import QuantizeOptions, quantize
engine = LlamaEngine(require(Settings.from_environment(), PatchStack.load(resource_directory("patches"))))
before = memory.peak_resident()
quantize(engine, Path(sys.argv[1]), sys.argv[3], Path(sys.argv[2]), QuantizeOptions(force=True, n_threads=2))
print(memory.peak_resident() - before)
"""


def growth(code: str, *arguments: object) -> int:
    """Return the growth of the peak in bytes, beyond the memory of Python, numpy and the engine."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stderr
    return int(result.stdout.split()[-1])


@pytest.mark.parametrize("packed", [True, False])
def test_converting_takes_slabs_not_the_model(tmp_path: Path, packed: bool) -> None:
    peaks = []
    for layers in (2, 6):
        directory = write_bitnet(tmp_path / str(layers), replace(SMALL, n_layers=layers), packed=packed)
        peaks.append(growth(CONVERT, directory, tmp_path / "out.gguf", "I2_S"))
    slab = 4 * (8 << 20)  # float32
    assert max(peaks) < 4 * slab
    assert peaks[1] < peaks[0] + 8 * MB


@pytest.mark.engine
def test_transcoding_takes_one_tensor(tmp_path: Path, with_engine: Settings) -> None:
    path = tmp_path / "model.gguf"
    bitnet_file.write(path, _keys(SMALL), bitnet_file.tensors(SMALL))
    peak = growth(QUANTIZE, path, tmp_path / "out.gguf", "TQ2_0")
    # The mapped embedding, 2 M weights in float32 with a few temporaries, and the engine's own plan.
    assert peak < 2 * SMALL.vocab * SMALL.width + 5 * (4 << 21)


@pytest.mark.soak
@pytest.mark.parametrize("packed", [True, False])
def test_converting_bitnet_2b_4t(tmp_path: Path, packed: bool) -> None:
    directory = write_bitnet(tmp_path / "bitnet", BITNET_2B_4T, packed=packed)
    peak = growth(CONVERT, directory, tmp_path / "out.gguf", "I2_S")
    assert peak < 2_400 * MB


@pytest.mark.soak
@pytest.mark.engine
@pytest.mark.parametrize("target", ["TQ2_0", "TQ1_0", "F16"])
def test_transcoding_bitnet_2b_4t(tmp_path: Path, with_engine: Settings, target: str) -> None:
    path = tmp_path / "model.gguf"
    bitnet_file.write(path, _keys(BITNET_2B_4T), bitnet_file.tensors(BITNET_2B_4T))
    peak = growth(QUANTIZE, path, tmp_path / "out.gguf", target)
    assert peak < 2_400 * MB


def _keys(shape: Shape) -> bitnet_file.Keys:
    return {**bitnet_file.metadata(shape), **bitnet_file.small_bpe(shape.vocab)}
