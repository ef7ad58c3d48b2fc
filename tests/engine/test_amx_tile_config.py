"""The AMX tile configuration is a constant in the machine code, not stores that the compiler may drop.

gcc 12 dropped them, and the first prompt of a Q4_1 model died with SIGILL on AMX machines. An engine built where
there is no AMX has no such code, so there the one source file is compiled for an AMX machine and looked at.
"""

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.builds.source import SourceTree
from edgellm.machine.cpu import detect

# palette 1, start row 0, 14 reserved bytes, 16 column widths in bytes (uint16), 16 row counts (uint8).
TILE_CONFIG = struct.pack(
    "<BB14x16H16B", 1, 0, *(64, 64, 32, 32, 64, 64, 64, 64), *(0,) * 8, *(8, 8), *(16,) * 6, *(0,) * 8
)

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(detect().machine != "x86_64", reason="AMX is an x86 extension"),
]


def test_the_loaded_library_holds_it(engine: InstalledEngine, source_tree: SourceTree, tmp_path: Path) -> None:
    if "amx_int8" in engine.record.cpu_features:
        code = next(engine.libraries.glob("libggml-cpu.so*")).read_bytes()
    else:
        code = compiled(source_tree.llama_cpp / "ggml", tmp_path / "mmq.o")
    assert TILE_CONFIG in code


def compiled(ggml: Path, output: Path) -> bytes:
    source = ggml / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
    command = ["c++", "-std=c++17", "-O1", "-march=sapphirerapids", "-c", str(source), "-o", str(output)]
    command += [f"-I{ggml / part}" for part in ("include", "src", "src/ggml-cpu", "src/ggml-cpu/amx")]
    subprocess.run(command, check=True, stderr=sys.stderr)
    return output.read_bytes()
