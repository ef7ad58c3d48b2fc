"""A model is trained, and its file holds exactly what was trained; an interrupted run computes the same."""

import contextlib
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (the extra edgellm[train])")

from edgellm.engine.llama import LlamaEngine  # noqa: E402
from edgellm.engine.quantize import Quantizer  # noqa: E402
from edgellm.engine.sampling import Sampling  # noqa: E402
from edgellm.errors import DiskFull, DoesNotFit, EdgellmError, UnsupportedModel, UsageError  # noqa: E402
from edgellm.formats.gguf_file import GGUFFile  # noqa: E402
from edgellm.training import job as job_module  # noqa: E402
from edgellm.training.base_model import MATRIX, read_gguf  # noqa: E402
from edgellm.training.options import FineTuneOptions, Method  # noqa: E402
from edgellm.weights.convert.converter import convert  # noqa: E402
from tests.training.test_decoder import logits  # noqa: E402
from tests.training.tiny import SMALL, TOKENS, abbreviations, job, trained  # noqa: E402
from tests.weights import checkpoint_maker as make  # noqa: E402
from tests.weights.engine_run import Loaded, relative_rmse  # noqa: E402

pytestmark = pytest.mark.engine

QUICK = FineTuneOptions(steps=4, batch=2, rate=1e-3, held_out=0.1, n_threads=1, head="f32", save_every=2)
MAKERS: dict[str, Callable[[Path], make.Made]] = {
    "bitnet": lambda path: make.bitnet(path, SMALL, packed=False),
    "falcon-e": lambda path: make.falcon_e(path, SMALL),
    "bonsai": lambda path: make.bonsai(path, SMALL),
    "llama": lambda path: make.llama(path, SMALL),
}


def options(**more: object) -> FineTuneOptions:
    from dataclasses import replace

    return replace(QUICK, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("maker", "method", "outtype"),
    [
        ("bitnet", Method.TERNARY, None), ("bitnet", Method.SCALES, None),
        ("falcon-e", Method.TERNARY, None),
        ("bonsai", Method.TERNARY, None), ("bonsai", Method.SCALES, None), ("bonsai", Method.TERNARY, "f32"),
        ("llama", Method.FULL, "f32"),
    ],
)  # fmt: skip
def test_the_file_is_what_was_trained(
    tmp_path: Path, llama: LlamaEngine, maker: str, method: Method, outtype: str | None
) -> None:
    """Codes are identical, and the engine computes the logits of torch at the first position.

    TQ2_0 computes with 8-bit activations, which no Bonsai was trained with: there the codes and scales must do.
    """
    MAKERS[maker](tmp_path / "model")
    with job(llama, tmp_path / "model", tmp_path / "out.gguf", options(method=method, outtype=outtype)) as running:
        before = {name: each.codes.copy() for name, each in running.base.weights.items() if MATRIX.fullmatch(name)}
        steps = list(running.run())
        result = running.finish()
        model = running._open().model
        expected = logits(model, TOKENS)
        slabs = {name: model.get_submodule(name.removesuffix(".weight")).slab() for name in before}
    assert result.path == tmp_path / "out.gguf" and len(steps) == 4 and all(np.isfinite(result.losses))
    written = read_gguf(result.path, Quantizer(llama.installed.libraries, 1))
    kinds = {each.type.name for name, each in written.weights.items() if MATRIX.fullmatch(name)}
    assert kinds == {
        {"bitnet": "I2_S", "falcon-e": "I2_S", "bonsai": "TQ2_0"}.get(maker, "F32") if outtype is None else "F32"
    }
    if maker != "llama" and outtype is None:
        moved = sum(int((slabs[name].codes != before[name]).sum()) for name in before)
        assert (moved > 0) == (method is Method.TERNARY)
        for name, slab in slabs.items():
            assert np.array_equal(written.weights[name].codes, slab.codes), name
            assert np.array_equal(np.broadcast_to(written.weights[name].scales[:, 0], slab.scales.shape), slab.scales)
    if kinds != {"TQ2_0"}:
        with Loaded(llama.bindings, result.path) as run:
            assert relative_rmse(run.logits(TOKENS), expected)[0] < 1e-3


def test_a_file_of_codes_becomes_a_model_that_computes_the_same(tmp_path: Path, llama: LlamaEngine) -> None:
    """From I2_S and TQ2_0 back to latent weights: with a rate of nothing, the file is the same again."""
    for maker in ("bitnet", "bonsai"):
        MAKERS[maker](tmp_path / maker)
        source = convert(tmp_path / maker, tmp_path / f"{maker}.gguf").path
        found = trained(llama, source, tmp_path / f"{maker}-2.gguf", options(steps=1, rate=1e-30, head=None))
        assert found.path is not None and found.held_out_before == pytest.approx(found.held_out_after, rel=1e-4)
        codec = Quantizer(llama.installed.libraries, 1)
        one, two = read_gguf(source, codec), read_gguf(found.path, codec)
        for name, each in one.weights.items():
            if MATRIX.fullmatch(name):
                assert np.array_equal(each.codes, two.weights[name].codes)
                assert np.allclose(each.scales, two.weights[name].scales, rtol=1e-6)
        with GGUFFile.open(source) as first, GGUFFile.open(found.path) as second:
            assert dict(first.metadata).keys() == dict(second.metadata).keys()
            for key in first.metadata:
                if key != "general.alignment":
                    assert first.metadata.raw(key) == second.metadata.raw(key), key


def weights_of(path: Path) -> bytes:
    return path.read_bytes()


@pytest.mark.parametrize("method", [Method.TERNARY, Method.LORA])
def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path: Path, llama: LlamaEngine, method: Method) -> None:
    make.bonsai(tmp_path / "model", SMALL)
    chosen = options(method=method, steps=7, save_every=3)
    whole = trained(llama, tmp_path / "model", tmp_path / "whole.gguf", chosen)
    output = tmp_path / "parts.gguf"
    with job(llama, tmp_path / "model", output, chosen) as running:
        for step in running.run():
            if step.step == 5:
                break  # the generator is closed, and saves step 5
    with job(llama, tmp_path / "model", output, options(method=method, steps=7, save_every=3, resume=True)) as running:
        left = [step.step for step in running.run()]
        result = running.finish()
    assert left == [6, 7] and result.path is not None and whole.path is not None
    assert weights_of(result.path) == weights_of(whole.path)
    assert result.losses == whole.losses and result.held_out_before == whole.held_out_before
    assert [json.loads(line)["step"] for line in result.metrics.read_text().splitlines()] == list(range(8))


def test_what_came_after_the_last_checkpoint_is_computed_again(tmp_path: Path, llama: LlamaEngine) -> None:
    """As after kill -9: the files are those of step 4 with metrics of step 5, and a torn line."""
    make.bonsai(tmp_path / "model", SMALL)
    chosen = options(steps=6)
    whole = trained(llama, tmp_path / "model", tmp_path / "whole.gguf", chosen)
    output, work = tmp_path / "parts.gguf", tmp_path / "parts.training"
    with job(llama, tmp_path / "model", output, chosen) as running:
        steps = running.run()
        for _ in range(5):
            next(steps)
        kept = {path.name: path.read_bytes() for path in work.iterdir()}
        steps.close()
    for path in work.iterdir():
        path.unlink()
    for name, content in kept.items():
        (work / name).write_bytes(content)
    (work / ".123.part").write_bytes(b"half a checkpoint")
    with (work / "metrics.jsonl").open("a") as metrics:
        metrics.write('{"step": 6, "lo')
    assert [name for name in kept if name.startswith("step-")] == ["step-000000004.safetensors"]
    with job(llama, tmp_path / "model", output, options(steps=6, resume=True)) as running:
        assert [step.step for step in running.run()] == [5, 6]
        result = running.finish()
    assert result.path is not None and whole.path is not None
    assert weights_of(result.path) == weights_of(whole.path)


def answers(llama: LlamaEngine, path: Path) -> int:
    """How many abbreviations the engine knows."""
    model = llama.load(path)
    context = model.open_context(n_ctx=64, n_batch=64, n_threads=1)
    right = 0
    for prompt, answer in abbreviations():
        context.keep(0)
        context.decode(model.tokenize(prompt))
        sampler = context.open_sampler(Sampling(temperature=0))
        said = b""
        for _ in range(3):
            token = sampler.sample()
            said += model.piece(token)
            context.decode([token])
        sampler.close()
        right += said.decode(errors="replace") == answer
    context.close()
    model.close()
    return right


def test_a_ternary_model_learns_abbreviations(tmp_path: Path, llama: LlamaEngine) -> None:
    """The short form of the worked example: a ternary file that knew none of 20 abbreviations knows 18 at least."""
    make.bitnet(tmp_path / "model", SMALL, packed=False)
    before = convert(tmp_path / "model", tmp_path / "before.gguf").path
    assert answers(llama, before) == 0
    chosen = FineTuneOptions(steps=50, batch=2, rate=2e-3, held_out=0, n_threads=1, length=64)
    result = trained(llama, tmp_path / "model", tmp_path / "after.gguf", chosen)
    assert result.path is not None and np.mean(result.losses[-5:]) < 0.5 < result.losses[0]
    assert answers(llama, result.path) >= 18


def test_a_teacher_pulls_the_model_towards_it(tmp_path: Path, llama: LlamaEngine) -> None:
    """With all the weight on a teacher that is the model itself, the loss is next to nothing; alone it is not."""
    make.llama(tmp_path / "model", SMALL)
    teacher = convert(tmp_path / "model", tmp_path / "teacher.gguf", outtype="F32", head="F32").path
    more = {"outtype": "f32", "steps": 1}
    alone = trained(llama, tmp_path / "model", tmp_path / "a.gguf", options(**more))
    taught = options(teacher=teacher, teacher_weight=1.0, **more)
    with_teacher = trained(llama, tmp_path / "model", tmp_path / "b.gguf", taught)
    assert with_teacher.losses[0] < 0.05 < alone.losses[0]


def test_what_cannot_be_trained_so_is_refused(tmp_path: Path, llama: LlamaEngine) -> None:
    make.llama(tmp_path / "llama", SMALL)
    make.bonsai(tmp_path / "bonsai", SMALL)
    make.phi3(tmp_path / "phi3", SMALL)
    cases = [("llama", Method.TERNARY, "--method lora"), ("llama", Method.SCALES, "--method lora"),
             ("bonsai", Method.FULL, "--method ternary")]  # fmt: skip
    for name, method, hint in cases:
        with pytest.raises(UsageError) as caught:
            job(llama, tmp_path / name, tmp_path / "out.gguf", options(method=method))
        assert hint in caught.value.hint
    with pytest.raises(UnsupportedModel, match="cannot be trained"):
        job(llama, tmp_path / "phi3", tmp_path / "out.gguf", options())
    with pytest.raises(UsageError, match="too long"):
        long = tmp_path / "long.jsonl"
        long.write_text(json.dumps({"prompt": "x " * 60, "completion": "y"}) + "\n")
        job(llama, tmp_path / "llama", tmp_path / "out.gguf", options(length=32), long)
    assert not (tmp_path / "out.training").exists() and not (tmp_path / "out.gguf").exists()


def test_too_little_memory_is_said_before_it_starts(
    tmp_path: Path, llama: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.bonsai(tmp_path / "model", SMALL)
    monkeypatch.setattr(job_module.memory, "available", lambda: 360 << 20)
    with pytest.raises(DoesNotFit) as caught:
        job(llama, tmp_path / "model", tmp_path / "out.gguf", options(batch=64, length=512))
    assert "would fit" in caught.value.hint or "smaller model" in caught.value.hint
    assert not (tmp_path / "out.training").exists()


@contextlib.contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """The system refuses to write more into any file, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_leaves_nothing_half_written(tmp_path: Path, llama: LlamaEngine) -> None:
    """Neither a checkpoint nor a model; when there is room again, the run goes on to its end."""
    make.bonsai(tmp_path / "model", SMALL)
    output, work = tmp_path / "out.gguf", tmp_path / "out.training"
    with job(llama, tmp_path / "model", output, options()) as running:
        steps = running.run()
        with files_of_at_most(100_000), pytest.raises(EdgellmError, match="cannot be written"):
            list(steps)
    assert {path.name for path in work.iterdir()} == {"lock", "settings.json", "metrics.jsonl", "header.gguf"}
    with job(llama, tmp_path / "model", output, options(resume=True)) as running:
        assert [step.step for step in running.run()] == [1, 2, 3, 4]
        with files_of_at_most(100_000), pytest.raises(EdgellmError, match="cannot be written"):
            running.finish()
    assert not output.exists() and not list(tmp_path.rglob("*.part"))
    with job(llama, tmp_path / "model", output, options(resume=True)) as running:
        assert list(running.run()) == [] and running.finish().path == output


def test_too_little_disk_is_said_before_it_starts(
    tmp_path: Path, llama: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make.bonsai(tmp_path / "model", SMALL)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000_000))
    with pytest.raises(DiskFull, match="of disk, 20"):
        job(llama, tmp_path / "model", tmp_path / "out.gguf", options())
    assert not (tmp_path / "out.training").exists()
    with job(llama, tmp_path / "model", tmp_path / "out.gguf", options(method=Method.SCALES)) as running:
        assert running.plan.n_steps == 4


def test_an_earlier_run_is_not_overwritten(tmp_path: Path, llama: LlamaEngine) -> None:
    make.bonsai(tmp_path / "model", SMALL)
    output = tmp_path / "out.gguf"
    with pytest.raises(UsageError, match="nothing to resume"):
        job(llama, tmp_path / "model", output, options(resume=True))
    with job(llama, tmp_path / "model", output, options()) as running:
        next(running.run())
        with pytest.raises(UsageError, match="begun before"):
            job(llama, tmp_path / "model", output, options())
        with pytest.raises(UsageError, match="another process"):
            job(llama, tmp_path / "model", output, options(resume=True))
    with (
        job(llama, tmp_path / "model", output, options(resume=True, rate=5e-3)) as running,
        pytest.raises(UsageError, match="cannot be resumed"),
    ):
        next(running.run())
    output.write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists already"):
        job(llama, tmp_path / "model", output, options(resume=True))
