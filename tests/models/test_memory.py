"""The memory estimate against what the engine really takes, and what is refused by it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.errors import ContextTooLarge, CorruptFile, DoesNotFit
from edgellm.formats.gguf_file import GGUFFile
from edgellm.models.memory import MemoryNeed, choose_context, estimate, require_fit
from edgellm.settings import Settings


@pytest.mark.model
def test_the_kv_cache_of_smollm2_is_exact(smollm2: Path) -> None:
    with GGUFFile.open(smollm2) as gguf:
        need = estimate(gguf, n_ctx=4096, n_batch=256)
    # 30 layers, 3 KV heads of 64, keys and values, 2 bytes each.
    assert need.kv_cache == 30 * 3 * 64 * 2 * 4096 * 2
    assert need.weights == pytest.approx(96_576_768, rel=0.001)


@pytest.mark.engine
@pytest.mark.model
@pytest.mark.parametrize("n_ctx", [1024, 8192])
def test_the_estimate_is_near_the_measured_peak(n_ctx: int, with_engine: Settings, smollm2: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edgellm",
        "run",
        "smollm2",
        "word " * 600,
        "--json",
        "-n",
        "2",
        "-c",
        str(n_ctx),
        "-t",
        "1",
    ]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    peak = json.loads(result.stdout)["stats"]["peak_resident_bytes"]
    with GGUFFile.open(smollm2) as gguf:
        need = estimate(gguf, n_ctx=n_ctx, n_batch=256)
    assert 0.85 * peak < need.total < 1.15 * peak


def test_the_default_context_is_the_models_own_when_that_is_less() -> None:
    assert choose_context(2048, None) == 2048
    assert choose_context(131072, None) == 4096
    assert choose_context(131072, 100_000) == 100_000
    with pytest.raises(ContextTooLarge, match="8,192") as caught:
        choose_context(8192, 8193)
    with pytest.raises(CorruptFile, match="corrupt"):
        choose_context(0, None)
    assert caught.value.exit_code == 2 and caught.value.hint == "--ctx-size 8192"


def test_too_little_memory_is_refused_with_the_parts() -> None:
    need = MemoryNeed(weights=10**9, kv_cache=2 * 10**9, compute=10**8, slack=10**8)
    require_fit(need, need.total, name="m", n_ctx=4096)
    with pytest.raises(DoesNotFit, match=r"m needs 3\.20 GB at 4,096 tokens, 3\.00 GB is available") as caught:
        require_fit(need, 3 * 10**9, name="m", n_ctx=4096)
    assert "weights 1.00, KV cache 2.00" in caught.value.why and caught.value.exit_code == 5


@pytest.mark.engine
@pytest.mark.model
def test_a_real_limit_is_seen(with_engine: Settings) -> None:
    limit = 400_000_000
    code = (
        f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}));"
        "import sys; sys.argv = ['edgellm', 'run', 'smollm2', 'hi', '-c', '8192'];"
        "from edgellm.cli import main; main()"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert result.returncode == 5, result.stderr
    assert "is available" in result.stderr and "Traceback" not in result.stderr


def test_absurd_layer_counts_are_corrupt(tmp_path: Path) -> None:
    from tests.formats.gguf_bytes import LLAMA, gguf, u32

    path = tmp_path / "absurd.gguf"
    path.write_bytes(gguf([LLAMA, u32("llama.block_count", 2**31), u32("llama.embedding_length", 64)]))
    with GGUFFile.open(path) as file, pytest.raises(CorruptFile, match="absurd"):
        estimate(file, n_ctx=4096, n_batch=256)
