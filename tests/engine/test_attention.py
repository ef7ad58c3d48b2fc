"""Attention: right, and with the same bits at every level.

python -m tests.engine.test_attention LIB_DIRECTORY      prints a digest for each case
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from tests.engine.ggml_graph import Floats, Ggml, Halfs

pytestmark = pytest.mark.engine


class Case(NamedTuple):
    """Shapes, the kind of mask, and what some models add to attention."""

    heads: int
    kv_heads: int
    tokens: int
    keys: int
    size: int
    mask: str
    max_bias: float = 0
    softcap: float = 0
    sinks: bool = False


CASES = [
    Case(4, 2, 64, 256, 64, "causal"),
    Case(3, 1, 130, 320, 128, "causal"),
    Case(2, 2, 65, 64, 80, "causal"),
    Case(2, 1, 70, 100, 64, "causal"),
    Case(2, 2, 64, 128, 40, "random"),
    Case(2, 2, 64, 192, 96, "none"),
    Case(1, 1, 300, 512, 16, "random"),
    Case(20, 5, 1, 700, 128, "causal"),
    Case(14, 2, 1, 70, 64, "none"),
    Case(6, 2, 5, 1500, 64, "random"),
    Case(4, 1, 2, 90, 72, "causal"),
    Case(4, 2, 3, 200, 64, "distances", max_bias=8),
    Case(6, 2, 90, 200, 64, "distances", max_bias=8),
    Case(4, 4, 7, 300, 64, "causal", softcap=5),
    Case(4, 2, 70, 300, 64, "random", sinks=True),
]


def values(case: Case) -> tuple[Floats, Halfs, Halfs, Halfs | None]:
    heads, kv_heads, tokens, keys, size, kind, *_ = case
    rng = np.random.default_rng(tokens * keys + size)
    q = rng.standard_normal((heads, tokens, size)).astype(np.float32)
    k, v = (rng.standard_normal((kv_heads, keys, size)).astype(np.float16) for _ in range(2))
    if kind == "none":
        return q, k, v, None
    seen = rng.random((tokens, keys)) < 0.4 if kind == "random" else np.tri(tokens, keys, keys - tokens, dtype=bool)
    seen[:, 0] = True
    seen[tokens // 2, :] = kind != "random" or tokens == 1  # a row that sees nothing
    distances = np.abs(np.arange(keys) - np.arange(keys - tokens, keys)[:, None]) if kind == "distances" else 0
    return q, k, v, np.where(seen, -1.0 * distances, -np.inf).astype(np.float16)


def sinks(case: Case) -> Floats | None:
    return np.linspace(-1, 3, case.heads, dtype=np.float32) if case.sinks else None


def computed(ggml: Ggml, case: Case) -> Floats:
    return ggml.attention(*values(case), max_bias=case.max_bias, softcap=case.softcap, sinks=sinks(case))


def slopes(case: Case) -> npt.NDArray[np.float64]:
    """ALiBi's: powers of two for the greatest number of heads that is one, others between for the rest."""
    if not case.max_bias:
        return np.ones(case.heads)
    n = 1 << (case.heads.bit_length() - 1)
    between = [2 ** (-case.max_bias / 2 / n * (2 * i + 1)) for i in range(case.heads - n)]
    return np.array([2 ** (-case.max_bias / n * (i + 1)) for i in range(n)] + between)


def reference(case: Case) -> npt.NDArray[np.float64]:
    q, k, v, mask = values(case)
    group = case.heads // case.kv_heads
    k, v = (np.repeat(each.astype(np.float64), group, axis=0) for each in (k, v))  # type: ignore[assignment]
    scores = q.astype(np.float64) @ k.transpose(0, 2, 1) * case.size**-0.5
    if case.softcap:
        scores = case.softcap * np.tanh(scores / case.softcap)
    weights = np.exp(scores if mask is None else scores + slopes(case)[:, None, None] * mask)
    sink = sinks(case)
    sums = weights.sum(axis=2, keepdims=True) + (0 if sink is None else np.exp(sink.astype(np.float64))[:, None, None])
    return (weights / np.where(sums == 0, 1, sums) @ v).transpose(1, 0, 2).reshape(case.tokens, -1)


@pytest.mark.parametrize("case", CASES)
def test_attention_is_right(engine_lib_dir: Path, case: Case) -> None:
    assert np.abs(computed(Ggml(engine_lib_dir), case) - reference(case)).max() < 1e-5


def test_every_level_gives_the_same_bits(engine_lib_dir: Path) -> None:
    command = [sys.executable, "-m", "tests.engine.test_attention", str(engine_lib_dir)]
    found = [
        subprocess.run(command, env={**os.environ, "EDGELLM_KERNELS": level}, capture_output=True, check=True).stdout
        for level in ("", "avx2", "scalar", "stock")
    ]
    assert len(set(found)) == 1 and len(found[0].splitlines()) == len(CASES)


def main() -> None:
    """Print the digests."""
    ggml = Ggml(Path(sys.argv[1]))
    for case in CASES:
        sys.stdout.write(f"{hashlib.sha256(computed(ggml, case).tobytes()).hexdigest()}\n")


if __name__ == "__main__":
    main()
