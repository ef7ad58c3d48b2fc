"""The real engine: it is ours, it refuses what it must, and it computes correctly."""

import gc
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.engine.builds.builder import library_path
from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.llama import LlamaEngine, LlamaModel
from edgellm.engine.sampling import Sampling
from edgellm.errors import EngineError, UnsupportedModel
from tests.engine.tiny_models import write_bitnet

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def smol(llama: LlamaEngine, smollm2: Path) -> Iterator[LlamaModel]:
    model = llama.load(smollm2)
    yield model
    model.close()


def first_logits(model: LlamaModel, tokens: list[int]) -> npt.NDArray[np.float32]:
    context = model.open_context(n_ctx=256, n_batch=64, n_threads=1)
    try:
        context.decode(tokens)
        return context.logits()
    finally:
        context.close()


def test_the_loaded_library_carries_our_stamp(llama: LlamaEngine, stack: PatchStack) -> None:
    assert llama.stamp == stack.stamp


def test_a_stock_library_is_refused(engine: InstalledEngine, tmp_path: Path) -> None:
    """The same bindings are loaded over a library that has everything except our stamp."""
    stock = tmp_path / "engine"
    shutil.copytree(engine.directory, stock, symlinks=True)
    library = library_path(stock / "lib", "llama").resolve()
    data = library.read_bytes()
    assert b"edgellm_stamp" in data
    library.write_bytes(data.replace(b"edgellm_stamp", b"nothing_stamp"))
    code = (
        "import sys; from pathlib import Path; from edgellm.engine.builds.installed import load;"
        "from edgellm.engine.llama import LlamaEngine; LlamaEngine(load(Path(sys.argv[1])))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(stock)], capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "EngineError: the llama.cpp library in this process is not edgellm's" in result.stderr


def test_a_library_that_does_not_load_is_an_engine_error(engine: InstalledEngine, tmp_path: Path) -> None:
    broken = tmp_path / "engine"
    shutil.copytree(engine.directory, broken, symlinks=True)
    library_path(broken / "lib", "llama").resolve().write_bytes(b"not a library")
    code = (
        "import sys; from pathlib import Path; from edgellm.engine.builds.installed import load;"
        "from edgellm.engine.llama import LlamaEngine; LlamaEngine(load(Path(sys.argv[1])))"
    )
    result = subprocess.run([sys.executable, "-c", code, str(broken)], capture_output=True, text=True, check=False)
    assert "EngineError: the engine's library does not load" in result.stderr


def test_bitnet_reads_its_activation_from_the_file(llama: LlamaEngine, vocabularies: Path, tmp_path: Path) -> None:
    """Upstream ignores the key, so a stock engine returns the same logits for all of these."""
    logits = {}
    for name, hidden_act in (("default", None), ("silu", "silu"), ("relu2", "relu2")):
        model = llama.load(write_bitnet(tmp_path / f"{name}.gguf", vocabularies, hidden_act=hidden_act))
        logits[name] = first_logits(model, [1, 5, 9, 200])
        model.close()
    assert np.array_equal(logits["default"], logits["silu"])
    spread = float(np.std(logits["silu"]))
    assert float(np.sqrt(np.mean((logits["relu2"] - logits["silu"]) ** 2))) > 0.2 * spread


def test_bitnet_refuses_an_activation_it_does_not_know(llama: LlamaEngine, vocabularies: Path, tmp_path: Path) -> None:
    path = write_bitnet(tmp_path / "gelu.gguf", vocabularies, hidden_act="gelu")
    with pytest.raises(UnsupportedModel, match=r"cannot load gelu\.gguf") as caught:
        llama.load(path)
    assert "gelu" in caught.value.why


def test_an_unknown_architecture_is_named(llama: LlamaEngine, vocabularies: Path, tmp_path: Path) -> None:
    path = write_bitnet(tmp_path / "other.gguf", vocabularies, architecture="nosuch")
    with pytest.raises(UnsupportedModel) as caught:
        llama.load(path)
    assert "unknown model architecture: 'nosuch'" in caught.value.why
    assert caught.value.exit_code == 6


def test_a_long_q4_1_prompt_runs(smol: LlamaModel) -> None:
    """The prompt is long enough for the matrix kernels, which once died with SIGILL on AMX machines."""
    tokens = smol.tokenize("The quick brown fox jumps over the lazy dog. " * 12)
    assert len(tokens) > 100
    context = smol.open_context(n_ctx=256, n_batch=256, n_threads=2)
    context.decode(tokens)
    assert np.isfinite(context.logits()).all()
    context.close()


def test_cutting_and_filling_up_again_gives_the_same_logits(smol: LlamaModel) -> None:
    tokens = smol.tokenize("One two three four five six seven eight")
    context = smol.open_context(n_ctx=256, n_batch=64, n_threads=1)
    context.decode(tokens)
    before = context.logits()
    assert context.keep(3) == 3 and context.tokens == tokens[:3]
    context.decode(tokens[3:])
    after = context.logits()
    context.close()
    assert float(np.max(np.abs(before - after))) < 0.05 * float(np.std(before))


def test_threads_for_prompts_and_flash_attention_are_the_engines_own(llama: LlamaEngine, smol: LlamaModel) -> None:
    tokens = smol.tokenize("One two three four five")
    rows = []
    for flash_attention, said in ((None, "auto"), (True, "enabled"), (False, "disabled")):
        with llama.transcript() as log:
            context = smol.open_context(
                n_ctx=256, n_batch=64, n_threads=1, n_threads_batch=2, flash_attention=flash_attention
            )
        assert re.search(rf"flash_attn += {said}", "".join(log))
        c, pointer = llama.bindings, context._pointer
        assert (c.llama_n_threads(pointer), c.llama_n_threads_batch(pointer)) == (1, 2)
        context.decode(tokens)
        rows.append(context.logits())
        context.close()
    automatic, on, off = rows
    assert np.array_equal(automatic, on) and not np.array_equal(on, off)
    assert np.abs(on - off).max() < 2 and on.argmax() == off.argmax()
    sequences = smol.open_sequences(n_seq=2, n_ctx=64, n_batch=64, n_threads=2, n_threads_batch=1)
    assert (c.llama_n_threads(sequences._pointer), c.llama_n_threads_batch(sequences._pointer)) == (2, 1)
    sequences.close()
    with llama.transcript() as log:  # a quantized cache cannot do without
        smol.open_context(
            n_ctx=256, n_batch=64, n_threads=1, type_k="Q8_0", type_v="Q8_0", flash_attention=False
        ).close()
    assert re.search("flash_attn += enabled", "".join(log))


def test_sampling_with_a_seed_repeats_and_without_it_varies(smol: LlamaModel) -> None:
    def draw(sampling: Sampling) -> list[int]:
        context = smol.open_context(n_ctx=256, n_batch=64, n_threads=1)
        context.decode(smol.tokenize("Once upon a time"))
        sampler = context.open_sampler(sampling)
        tokens = []
        for _ in range(8):
            tokens.append(sampler.sample())
            context.decode(tokens[-1:])
        sampler.close()
        context.close()
        return tokens

    hot = Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0)
    assert draw(replace(hot, seed=1)) == draw(replace(hot, seed=1))
    assert draw(replace(hot, seed=1)) != draw(replace(hot, seed=2))
    assert draw(Sampling(temperature=0, seed=1)) == draw(Sampling(temperature=0, seed=2))


def test_a_repeat_penalty_changes_a_greedy_answer(smol: LlamaModel) -> None:
    context = smol.open_context(n_ctx=256, n_batch=64, n_threads=1)
    prompt = smol.tokenize("ha ha ha ha ha ha ha ha ha ha")
    context.decode(prompt)
    plain = context.open_sampler(Sampling(temperature=0), prompt)
    penalised = context.open_sampler(Sampling(temperature=0, repeat_penalty=3.0), prompt)
    first, second = plain.sample(), penalised.sample()
    assert first in prompt and second not in prompt
    plain.close(), penalised.close(), context.close()


def test_tokens_and_pieces(smol: LlamaModel) -> None:
    text = "Grüße, 世界 🌍!"
    pieces = b"".join(smol.piece(token) for token in smol.tokenize(text))
    assert pieces.decode() == text
    (end,) = smol.tokenize("<|im_end|>", special=True)
    assert smol.is_end(end) and smol.piece(end) == b""
    assert len(smol.tokenize("<|im_end|>")) > 1
    assert smol.tokenize("") == []


def test_too_many_tokens_at_once_is_a_bug_and_says_so(smol: LlamaModel) -> None:
    context = smol.open_context(n_ctx=256, n_batch=8, n_threads=1)
    with pytest.raises(ValueError, match="1 to 8 tokens"):
        context.decode(list(range(9)))
    context.close()


def test_a_full_context_is_an_engine_error(smol: LlamaModel) -> None:
    context = smol.open_context(n_ctx=256, n_batch=256, n_threads=1)
    context.decode([5] * 256)
    with pytest.raises(EngineError, match="the computation failed") as caught:
        context.decode([5])
    assert caught.value.why == "the context is full"
    context.close()


def test_an_engine_that_is_gone_is_never_called_back(
    llama: LlamaEngine, engine: InstalledEngine, tmp_path: Path
) -> None:
    """The library keeps a single address for its log callback, whichever engine registered it."""
    other = LlamaEngine(engine)
    del other
    gc.collect()
    assert not llama._c.llama_model_load_from_file(b"/nosuch.gguf", llama._c.llama_model_default_params())
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF")
    with pytest.raises(UnsupportedModel) as refused:
        llama.load(bad)
    assert refused.value.why != "the engine gave no reason"
