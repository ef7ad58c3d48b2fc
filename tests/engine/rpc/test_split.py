"""What is computed on workers has the bits of what is computed here, in every type of weights, and never ends us."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.engine.rpc.address import Address
from edgellm.engine.rpc.split import Split, WorkerShare
from edgellm.errors import WorkerLost, WorkerRefused
from edgellm.formats.quant_types import named_type
from edgellm.progress import Report, silent
from edgellm.weights.random_model import write_random_model
from tests.engine.rpc.workers import Link, WorkerProcess, worker_here
from tests.measure.shapes import tiny

pytestmark = pytest.mark.engine

TOKENS = list(range(3, 60))
N_LAYERS = tiny().n_layer


def shared(n_here: int, *workers: tuple[Address, int]) -> Split:
    return Split(n_here, tuple(WorkerShare(address, count) for address, count in workers))


def at(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host, int(port))


def logits(engine: LlamaEngine, path: Path, split: Split | None, report: Report = silent) -> npt.NDArray[np.float32]:
    """What follows a prompt, and then a token alone."""
    model = engine.load(path, split=split, report=report)
    try:
        context = model.open_context(n_ctx=256, n_batch=64, n_threads=1)
        try:
            context.decode(TOKENS)
            first = context.logits()
            context.decode([7])
            return np.stack([first, context.logits()])
        finally:
            context.close()
    finally:
        model.close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, engine: InstalledEngine) -> Path:
    return random_model(tmp_path_factory.mktemp("split") / "tiny.gguf", "I2_S", engine)


def random_model(path: Path, quant: str, engine: InstalledEngine) -> Path:
    codec = Quantizer(engine.libraries, 1)
    write_random_model(path, tiny(), weights=named_type(quant), head=named_type("Q6_K"), codec=codec)
    return path


@pytest.mark.parametrize("quant", ["I2_S", "TQ2_0", "Q4_0", "Q4_K", "F16"])
def test_layers_on_a_worker_have_the_same_bits(
    quant: str, llama: LlamaEngine, engine: InstalledEngine, tmp_path: Path
) -> None:
    path = random_model(tmp_path / "tiny.gguf", quant, engine)
    alone = logits(llama, path, None)
    with worker_here(engine) as worker:
        assert np.array_equal(logits(llama, path, shared(0, (worker, N_LAYERS))), alone)


def test_two_workers_on_slow_links_have_the_same_bits(llama: LlamaEngine, engine: InstalledEngine, model: Path) -> None:
    alone = logits(llama, model, None)
    with (
        worker_here(engine) as first, worker_here(engine) as second,
        Link(str(first), delay=0.002, speed=125e6) as near, Link(str(second), delay=0.002, speed=125e6) as far,
    ):  # fmt: skip
        assert np.array_equal(logits(llama, model, shared(0, (at(near.address), 1), (at(far.address), 1))), alone)


def test_a_worker_serves_one_client_after_the_other(llama: LlamaEngine, engine: InstalledEngine, model: Path) -> None:
    with worker_here(engine) as worker:
        split = shared(N_LAYERS - 1, (worker, 1))
        first = logits(llama, model, split)
        assert np.array_equal(logits(llama, model, split), first)
        held = llama.load(model, split=split)
        try:
            with pytest.raises(WorkerRefused) as refused:
                llama.load(model, split=split)
            assert "in use" in refused.value.why
        finally:
            held.close()


def test_a_killed_worker_is_an_error_of_the_answer_and_the_process_goes_on(
    llama: LlamaEngine, with_engine: object, model: Path
) -> None:
    with WorkerProcess() as worker:
        loaded = llama.load(model, split=shared(0, (at(worker.address), N_LAYERS)))
        context = loaded.open_context(n_ctx=256, n_batch=64, n_threads=1)
        context.decode(TOKENS)
        worker.kill()
        with pytest.raises(WorkerLost, match=worker.address):
            for token in range(100):
                context.decode([token])
        with pytest.raises(WorkerLost):
            context.decode([7])
        context.close()
        loaded.close()
    assert np.isfinite(logits(llama, model, None)).all()


def test_a_cut_link_is_noticed_although_nothing_is_closed(
    llama: LlamaEngine, engine: InstalledEngine, model: Path
) -> None:
    with worker_here(engine) as worker, Link(str(worker)) as link:
        loaded = llama.load(model, split=shared(0, (at(link.address), N_LAYERS)))
        context = loaded.open_context(n_ctx=256, n_batch=64, n_threads=1)
        context.decode(TOKENS)
        link.cut()
        with pytest.raises(WorkerLost) as lost:
            context.decode([7])
        assert "cut" in lost.value.why
        context.close()
        loaded.close()


@pytest.mark.soak
def test_a_worker_that_is_lost_while_the_model_loads(llama: LlamaEngine, engine: InstalledEngine, model: Path) -> None:
    with worker_here(engine) as worker, Link(str(worker), delay=0.05) as link:

        def report(_: object) -> None:
            link.cut()

        with pytest.raises(WorkerLost):
            logits(llama, model, shared(0, (at(link.address), N_LAYERS)), report)
