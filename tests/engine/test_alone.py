"""Rows get the same bits alone and in company, at every level: products, attention, and a model's logits.

python -m tests.engine.test_alone LIB_DIRECTORY                   prints what differs at this level
python -m tests.engine.test_alone LIB_DIRECTORY MODEL F16 40,250  the same for a model at these lengths of the context
"""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from edgellm.engine.builds.installed import load
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.formats.quant_types import named_type
from edgellm.machine.cpu import detect
from tests.engine.ggml_graph import Floats, Ggml

pytestmark = pytest.mark.engine

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q2_K", "Q4_K", "Q5_K", "Q6_K", "TQ2_0"]
COMPANY = [2, 3, 4, 7, 8, 15, 16]
MORE_COMPANY = [*COMPANY, 17, 33, 63, 64, 65, 100]
# Types whose own products are exact in any company: packed, and at AVX-512 VNNI where they lie.
PACKED = ["TQ2_0", "Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
IN_PLACE = ["Q4_0", "Q4_1", "Q8_0", "Q6_K"]
LEVELS = ["", "avx2", "stock"]
LENGTHS = [40, 250, 505, 1000]


def any_company_in_place(kernels: str) -> bool:
    """Whether products of weights that are not packed are ours at this level, for any number of tokens."""
    return kernels in ("avx512-vnni", "amx")


def products_that_differ(ggml: Ggml, libraries: Path) -> Iterator[str]:
    """Products of every type of weights, where they lie and packed."""
    level = ggml.edgellm_kernels().decode()
    for name in TYPES:
        more = name in IN_PLACE and any_company_in_place(level)
        yield from product_that_differs(ggml, libraries, name, MORE_COMPANY if more else COMPANY, packed=False)
    if level != "stock":
        for name in PACKED:
            yield from product_that_differs(ggml, libraries, name, MORE_COMPANY, packed=True)


def product_that_differs(
    ggml: Ggml, libraries: Path, name: str, company: Sequence[int], *, packed: bool
) -> Iterator[str]:
    """One of them."""
    columns, rows = 512, 96
    rng = np.random.default_rng(3)
    kind = named_type(name)
    data = Quantizer(libraries, n_threads=1)(rng.standard_normal((rows, columns)).astype(np.float32), kind).tobytes()
    most = company[-1]
    x = (rng.standard_normal((most, columns)) * rng.uniform(0.01, 100, (most, 1))).astype(np.float32)
    product = ggml.repacked_product if packed else ggml.product
    alone = np.concatenate([product(kind.id, data, (columns, rows), x[i : i + 1]) for i in range(most)])
    for n in company:
        together = product(kind.id, data, (columns, rows), x[:n], n_threads=1 + n % 3)
        if not np.array_equal(together, alone[:n]):
            yield f"{name}{', packed' * packed}: {n} tokens"


def attention_that_differs(ggml: Ggml) -> Iterator[str]:
    """Attention over few and many keys, alone with one thread, together with several."""
    heads, kv_heads, size, most = 6, 2, 64, MORE_COMPANY[-1]
    for keys in (140, 256, 512, 513, 1024, 1792):
        rng = np.random.default_rng(keys)
        q = rng.standard_normal((heads, most, size)).astype(np.float32)
        k, v = (rng.standard_normal((kv_heads, keys, size)).astype(np.float16) for _ in range(2))
        mask = np.where(np.tri(most, keys, keys - most, dtype=bool), 0, -np.inf).astype(np.float16)
        alone = np.concatenate([ggml.attention(q[:, i : i + 1], k, v, mask[i : i + 1]) for i in range(most)])
        for n in MORE_COMPANY:
            for n_threads in (1, 2, 3):
                together = ggml.attention(q[:, :n].copy(), k, v, mask[:n], n_threads=n_threads)
                if not np.array_equal(together, alone[:n]):
                    yield f"attention over {keys} keys: {n} rows, {n_threads} threads"


def attention_with_strangers_that_differs(ggml: Ggml) -> Iterator[str]:
    """Attention over a cache that others share: keys of other sequences lie between one's own."""
    heads, kv_heads, size, n, keys = 4, 2, 64, 5, 700
    rng = np.random.default_rng(1)
    q = rng.standard_normal((heads, n, size)).astype(np.float32)
    k, v = (rng.standard_normal((kv_heads, keys, size)).astype(np.float16) for _ in range(2))
    own = np.flatnonzero(rng.random(keys) < 0.4)
    seen = np.tri(n, len(own), len(own) - n, dtype=bool)
    alone = ggml.attention(q, k[:, own], v[:, own], np.where(seen, 0, -np.inf).astype(np.float16))
    mask = np.full((n, keys), -np.inf, np.float16)
    mask[:, own] = np.where(seen, 0, -np.inf)
    if not np.array_equal(ggml.attention(q, k, v, mask), alone):
        yield "attention with keys of others between"


def logits_that_differ(llama: LlamaEngine, path: Path, cache: str, lengths: Sequence[int]) -> Iterator[str]:
    """Logits of a model that reads tokens one by one, and then together."""
    company = MORE_COMPANY if any_company_in_place(llama.kernels) else COMPANY
    most = company[-1]
    model = llama.load(path)
    tokens = np.random.default_rng(5).integers(300, 20000, lengths[-1] + most).tolist()
    context = model.open_context(n_ctx=lengths[-1] + most + 64, n_batch=1024, n_threads=2, type_k=cache, type_v=cache)
    for before, length in itertools.pairwise([0, *lengths]):
        context.decode(tokens[before:length])
        alone = []
        for token in tokens[length : length + most]:
            context.decode([token])
            alone.append(context.logits().copy())
        for n in company:
            context.keep(length)
            rows = context.score(tokens[length : length + n])
            if not np.array_equal(rows, np.stack(alone[:n])):
                yield f"{path.stem}, {cache} cache, after {length} tokens: {n} together"
        context.keep(length)
    context.close()
    model.close()


def differences(level: str, *arguments: object) -> list[str]:
    """What differs at a level, which is chosen when the engine's library is loaded."""
    command = [sys.executable, "-m", "tests.engine.test_alone", *map(str, arguments)]
    env = {**os.environ, "EDGELLM_KERNELS": level}
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if "does not have" in found.stderr:
        pytest.skip(f"this machine has no {level}")
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


@pytest.mark.parametrize("level", LEVELS)
def test_products_and_attention(engine_lib_dir: Path, level: str) -> None:
    assert differences(level, engine_lib_dir) == []


@pytest.mark.model
@pytest.mark.parametrize("cache", ["F16", "Q8_0"])
def test_logits_of_a_model(engine_lib_dir: Path, smollm2: Path, cache: str) -> None:
    assert differences("", engine_lib_dir, smollm2, cache, "40,505") == []


@pytest.mark.model
def test_a_prompt_in_parts(llama: LlamaEngine, smollm2: Path) -> None:
    """An answer after a prefix that was kept equals one after a prompt that was computed as a whole."""
    if "avx2" not in detect().instruction_sets or llama.kernels == "stock":
        pytest.skip(f"{llama.kernels} has no products of Q4_1 for many tokens")
    tokens = np.random.default_rng(7).integers(300, 20000, 400).tolist()
    model = llama.load(smollm2)
    context = model.open_context(n_ctx=512, n_batch=512, n_threads=2)

    def logits(ends: list[int]) -> dict[int, Floats]:
        """The logits of the last token at each of these lengths, read one after the other."""
        context.keep(0)
        found = {}
        for end in ends:
            context.decode(tokens[len(context.tokens) : end])
            found[end] = context.logits().copy()
        return found

    whole = {end: logits([end])[end] for end in (1, 64, 65, 100, 250, 400)}
    for ends in ([1, 400], [250, 400], [64, 65, 100, 400]):
        for end, row in logits(ends).items():
            assert np.array_equal(row, whole[end]), (ends, end)
    context.close()
    model.close()


@pytest.mark.soak
@pytest.mark.model
@pytest.mark.parametrize("cache", ["F16", "Q8_0"])
@pytest.mark.parametrize("level", LEVELS)
def test_logits_at_every_length(engine_lib_dir: Path, smollm2: Path, level: str, cache: str) -> None:
    assert differences(level, engine_lib_dir, smollm2, cache, ",".join(map(str, LENGTHS))) == []


def main(arguments: Sequence[str]) -> None:
    """Print what differs, a line each."""
    libraries = Path(arguments[0])
    if len(arguments) == 1:
        ggml = Ggml(libraries)
        found = [
            *products_that_differ(ggml, libraries),
            *attention_that_differs(ggml),
            *attention_with_strangers_that_differs(ggml),
        ]
    else:
        engine = load(libraries.parent)
        assert engine
        llama = LlamaEngine(engine)
        lengths = [int(each) for each in arguments[3].split(",")]
        found = list(logits_that_differ(llama, Path(arguments[1]), arguments[2], lengths))
    sys.stdout.writelines(f"{each}\n" for each in found)


if __name__ == "__main__":
    main(sys.argv[1:])
