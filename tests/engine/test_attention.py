"""Attention over a prompt: bit for bit what llama.cpp's own conversions of keys and masks give.

python -m tests.engine.test_attention LIB_DIRECTORY      prints a digest for each case
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.engine.ggml_graph import Floats, Ggml, Halfs

pytestmark = pytest.mark.engine
# Heads, heads of keys, tokens, keys, size of a head, ALiBi's bias, kind of mask.
Case = tuple[int, int, int, int, int, float, str]
CASES: list[Case] = [
    (4, 2, 64, 256, 64, 0, "causal"),
    (3, 1, 130, 320, 128, 0, "causal"),
    (2, 2, 65, 64, 80, 8, "causal"),
    (2, 1, 70, 100, 64, 0, "causal"),
    (2, 2, 64, 128, 40, 0, "random"),
    (2, 2, 64, 192, 96, 0, "none"),
    (1, 1, 300, 512, 16, 0, "random"),
]


def values(case: Case) -> tuple[Floats, Halfs, Halfs, Halfs | None]:
    heads, kv_heads, tokens, keys, size, _, kind = case
    rng = np.random.default_rng(tokens * keys + size)
    q = rng.standard_normal((heads, tokens, size)).astype(np.float32)
    k, v = (rng.standard_normal((kv_heads, keys, size)).astype(np.float16) for _ in range(2))
    if kind == "none":
        return q, k, v, None
    seen = np.tri(tokens, keys, keys - tokens, dtype=bool) if kind == "causal" else rng.random((tokens, keys)) < 0.4
    seen[:, 0] = True
    seen[tokens // 2, :] = kind == "causal"  # a row that sees nothing
    return q, k, v, np.where(seen, 0, -np.inf).astype(np.float16)


def reference(case: Case) -> npt.NDArray[np.float64]:
    heads, kv_heads, tokens, _, size, _, _ = case
    q, k, v, mask = values(case)
    k, v = (np.repeat(each.astype(np.float64), heads // kv_heads, axis=0) for each in (k, v))  # type: ignore[assignment]
    scores = q.astype(np.float64) @ k.transpose(0, 2, 1) * size**-0.5
    weights = np.exp(scores if mask is None else scores + mask)
    sums = weights.sum(axis=2, keepdims=True)
    return (weights / np.where(sums == 0, 1, sums) @ v).transpose(1, 0, 2).reshape(tokens, heads * size)


@pytest.mark.parametrize("case", [case for case in CASES if not case[5]])
def test_attention_is_right(engine_lib_dir: Path, case: Case) -> None:
    assert np.abs(Ggml(engine_lib_dir).attention(*values(case)) - reference(case)).max() < 1e-5


def test_the_same_bits_as_stock(engine_lib_dir: Path) -> None:
    command = [sys.executable, "-m", "tests.engine.test_attention", str(engine_lib_dir)]
    found = [
        subprocess.run(command, env={**os.environ, "EDGELLM_KERNELS": level}, capture_output=True, check=True).stdout
        for level in ("", "stock")
    ]
    assert found[0] == found[1] and len(found[0].splitlines()) == len(CASES)


def main() -> None:
    """Print the digests."""
    ggml = Ggml(Path(sys.argv[1]))
    for case in CASES:
        result = ggml.attention(*values(case), max_bias=case[5])
        sys.stdout.write(f"{hashlib.sha256(result.tobytes()).hexdigest()}\n")


if __name__ == "__main__":
    main()
