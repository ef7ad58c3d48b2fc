"""A worker's process: how it starts, fails to, answers, is ended, and what becomes of it when we die."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.llama import LlamaEngine
from edgellm.errors import CorruptFile, DoesNotFit, EdgellmError, EngineError, ModelNotFound, UnsupportedModel
from edgellm.machine import launch
from edgellm.machine.child import ChildFailed
from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.verdict import read_outline
from edgellm.models.local.packed import PackedFiles
from edgellm.serve import logs
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.upstream import UpstreamRefused
from edgellm.serve.workers.worker import CONTROL, Worker
from tests.engine.bitnet_file import TINY, metadata, small_bpe, tensors, write
from tests.serve.fake_worker import FakeModel, is_running
from tests.serve.recordings import chunks, refusal_of

PLAN = RunPlan(n_ctx=512, n_slots=2, n_threads=3)
CHAT = "/v1/chat/completions"
SECONDS = 30.0  # for what takes milliseconds, on a machine that has other things to do


def within(work: Coroutine[Any, Any, None]) -> None:
    """Run it; a test that hangs fails."""
    asyncio.run(asyncio.wait_for(work, SECONDS))


@asynccontextmanager
async def started(fake: FakeModel, kind: ModelKind = ModelKind.CHAT, **more: Any) -> AsyncIterator[Worker]:
    worker = await Worker.start(fake.program, fake.model(kind, **more), PLAN, log=fake.path.with_suffix(".log"))
    try:
        yield worker
    finally:
        await worker.stop(grace=0)


async def nothing() -> None:
    """Nothing has to be sent before waiting."""


def arguments_of(fake: FakeModel) -> list[str]:
    return list(fake.starts[-1]["arguments"])


def test_a_worker_is_started_with_its_plan_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_ARG_CTX_SIZE", "7")
    fake = FakeModel(tmp_path)

    async def work() -> None:
        async with started(fake, chat_template="{{ messages }}") as worker:
            assert worker.is_alive and worker.load_seconds > 0 and worker.pid == fake.starts[0]["pid"]
            socket = Path(arguments_of(fake)[1])
            assert socket.parent.stat().st_mode & 0o777 == 0o700, "nobody else can open the socket"
            async with worker.upstream.stream(CHAT, {"completion_id": "a"}, nothing) as stream:
                assert [chunk.raw async for chunk in stream] == [chunk.raw for chunk in chunks("chat")]
        assert not is_running(worker.pid) and not socket.parent.exists()

    within(work())
    arguments = arguments_of(fake)
    pairs = dict(itertools.pairwise(arguments))
    assert pairs["--model"] == str(fake.path) and pairs["--alias"] == "fake" and pairs["--ctx-size"] == "1024"
    assert pairs["--parallel"] == "2" and pairs["--threads"] == pairs["--threads-batch"] == "3"
    assert pairs["--chat-template"] == "{{ messages }}" and pairs["--batch-size"] == str(PLAN.n_batch)
    assert not {"--embeddings", "--reranking", "--flash-attn"} & {*arguments}
    environment = fake.starts[0]["environment"]
    assert environment["EDGELLM_STREAM_BEAT_MS"] == "30" and "LLAMA_ARG_CTX_SIZE" not in environment


def test_a_tuned_plan_reaches_the_worker(tmp_path: Path) -> None:
    fake = FakeModel(tmp_path)
    plan = replace(PLAN, n_threads=1, n_threads_batch=4, n_batch=128, flash_attention=False)

    async def work() -> None:
        worker = await Worker.start(fake.program, fake.model(), plan, log=tmp_path / "log")
        await worker.stop(grace=0)

    within(work())
    pairs = dict(itertools.pairwise(arguments_of(fake)))
    assert (pairs["--threads"], pairs["--threads-batch"], pairs["--flash-attn"]) == ("1", "4", "off")
    assert pairs["--batch-size"] == pairs["--ubatch-size"] == "128"


@pytest.mark.engine
def test_llama_server_maps_the_packed_file_that_another_process_filled(
    engine: InstalledEngine, tools: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "tiny.gguf", {**metadata(TINY), **small_bpe(TINY.vocab)}, tensors(TINY))
    model = ServedModel("tiny", path, read_outline(path), ModelKind.COMPLETION, 1 << 20, 1.0)
    files = PackedFiles(tmp_path / "packed", engine.record.stamp, least=0)
    LlamaEngine(engine, files).load(path).close()
    packed = files.prepare(path)
    assert packed and packed.nbytes > 0

    async def work() -> None:
        worker = await Worker.start(tools / "llama-server", model, PLAN, log=tmp_path / "log", packed=packed)
        maps = Path(f"/proc/{worker.pid}/maps").read_text().splitlines()
        assert {line.split()[4] for line in maps if str(packed.path) in line} == {str(packed.path.stat().st_ino)}
        await worker.stop()

    within(work())


@pytest.mark.parametrize(("kind", "option"), [(ModelKind.EMBEDDING, "--embeddings"), (ModelKind.RERANK, "--reranking")])
def test_texts_to_embed_or_rank_are_computed_whole(tmp_path: Path, kind: ModelKind, option: str) -> None:
    fake = FakeModel(tmp_path)

    async def work() -> None:
        async with started(fake, kind):
            pass

    within(work())
    arguments = arguments_of(fake)
    assert option in arguments and arguments[arguments.index("--ubatch-size") + 1] == "512"


def test_it_is_waited_for_until_it_is_ready(tmp_path: Path) -> None:
    fake = FakeModel(tmp_path, ready_after=0.3)

    async def work() -> None:
        async with started(fake) as worker:
            assert worker.load_seconds >= 0.3

    within(work())


def test_why_it_could_not_be_loaded_is_in_the_error_and_in_the_log(tmp_path: Path) -> None:
    says = [f"line {number}" for number in range(9)]
    fake = FakeModel(tmp_path, says=[*says, "error: no such tensor"], dies_at_start=3)

    async def work() -> None:
        with pytest.raises(UnsupportedModel) as failed:
            async with started(fake):
                pass
        assert failed.value.what == "fake could not be loaded"
        assert failed.value.why == (
            "it ended with exit status 3: line 4 / line 5 / line 6 / line 7 / line 8 / error: no such tensor"
        )
        log = fake.path.with_suffix(".log")
        assert failed.value.hint == f"see {log}"
        assert log.read_text().splitlines() == [*says, "error: no such tensor"]
        assert not list(Path(arguments_of(fake)[1]).parent.parent.glob(Path(arguments_of(fake)[1]).parent.name))

    within(work())


# What llama-server prints at its end, as it was seen, and what a client hears of it.
TEMPLATE_DUMP = [f"{{%- set line_{number} = messages -%}}" for number in range(40)]
LAST_WORDS: list[tuple[list[str], str]] = [
    (
        ["0.00.08 E llama_model_load: error loading model: unknown model architecture: 'new'",
         "0.00.08 E cmn  common_init_: failed to load model '/home/me/new.gguf'"],
        "unknown model architecture: 'new'",
    ),
    (
        ["0.00.12 E llama_model_load: error loading model: check_tensor_dims: tensor 'output_norm.weight' not found",
         "0.00.12 E srv  llama_server: exiting due to model loading error"],
        "check_tensor_dims: tensor 'output_norm.weight' not found",
    ),
    (
        ["0.01.50 E srv  init: init: chat template parsing error: Unable to generate parser for this template.",
         "------------", "While executing FilterExpression at line 1, column 24 in source:",
         "Error: Unknown (built-in) filter 'nosuch' for type Array",
         "0.01.51 E srv  llama_server: exiting due to model loading error"],
        "llama-server says: Unknown (built-in) filter 'nosuch' for type Array",
    ),
    (
        ["0.00.98 E common_chat_templates_init: error: parser: Parser Error: Expected }} (Got })",
         "error: the supplied chat template is not supported:", *TEMPLATE_DUMP],
        "its chat template is broken: Expected }} (Got })",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("says", "why"), LAST_WORDS, ids=range(len(LAST_WORDS)))
def test_the_reason_is_one_line_without_directories(tmp_path: Path, says: list[str], why: str) -> None:
    async def work() -> None:
        with pytest.raises(UnsupportedModel) as failed:
            async with started(FakeModel(tmp_path, says=says, dies_at_start=1)):
                pass
        assert failed.value.why == why

    within(work())


@pytest.mark.parametrize(
    ("signal", "kind"), [(9, DoesNotFit), (15, ChildFailed), (11, UnsupportedModel)], ids=["KILL", "TERM", "SEGV"]
)
def test_one_that_is_ended_by_a_signal(tmp_path: Path, signal: int, kind: type[EdgellmError]) -> None:
    async def work() -> None:
        with pytest.raises(EdgellmError) as failed:
            async with started(FakeModel(tmp_path, dies_of_signal=signal)):
                pass
        assert type(failed.value) is kind and "it was ended by SIG" in failed.value.why

    within(work())


def test_a_file_that_was_damaged_or_removed_since_is_named(tmp_path: Path) -> None:
    async def work() -> None:
        fake = FakeModel(tmp_path, dies_at_start=1, says=["E: error loading model: failed to load model from it"])
        fake.path.write_bytes(b"GGUF and no more")
        with pytest.raises(CorruptFile, match="could not be loaded") as failed:
            async with started(fake):
                pass
        assert failed.value.why.startswith("fake.gguf")
        fake.path.unlink()
        with pytest.raises(ModelNotFound) as failed:
            async with started(fake):
                pass
        assert failed.value.why.startswith("there is no file")

    within(work())


def test_one_that_dies_without_a_word(tmp_path: Path) -> None:
    async def work() -> None:
        with pytest.raises(UnsupportedModel) as failed:
            async with started(FakeModel(tmp_path, dies_at_start=0)):
                pass
        assert failed.value.why == "it ended with exit status 0"

    within(work())


def test_a_program_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    async def work() -> None:
        fake = FakeModel(tmp_path)
        with pytest.raises(UnsupportedModel, match="fake could not be loaded"):
            await Worker.start(tmp_path / "nothing", fake.model(), PLAN, log=tmp_path / "log")

    within(work())


def test_what_it_prints_without_end_does_not_stop_it_and_the_log_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LOG_BYTES", 100_000)
    fake = FakeModel(tmp_path, prints=1_000_000)

    async def work() -> None:
        async with started(fake) as worker:
            assert worker.is_alive
            async with worker.upstream.stream(CHAT, {"completion_id": "a"}, nothing) as stream:
                assert len([chunk async for chunk in stream]) == len(chunks("chat"))

    within(work())
    sizes = [path.stat().st_size for path in tmp_path.glob("fake.log*")]
    assert 1 < len(sizes) <= logs.LOG_FILES + 1 and max(sizes) < 300_000


def test_a_worker_that_dies_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    fake = FakeModel(tmp_path, dies_after=3)

    async def work() -> None:
        async with started(fake) as worker:
            seen = []
            with pytest.raises(EngineError, match="the worker ended while it answered"):
                async with worker.upstream.stream(CHAT, {"completion_id": "a"}, nothing) as stream:
                    async for chunk in stream:
                        seen.append(chunk)
            assert await worker.wait() == 9 and not worker.is_alive
            assert [chunk.raw for chunk in seen] in [[each.raw for each in chunks("chat")[:n]] for n in range(4)]
            with pytest.raises(EngineError):
                await worker.end_answer("a")

    within(work())


def test_an_answer_is_ended_by_its_id_in_good_order(tmp_path: Path) -> None:
    fake = FakeModel(tmp_path, until_stopped=True)

    async def work() -> None:
        async with started(fake) as worker:
            reasons, n_chunks = [], 0
            async with worker.upstream.stream(CHAT, {"completion_id": "mine"}, nothing) as stream:
                async for chunk in stream:
                    n_chunks += 1
                    if n_chunks == 20:
                        await worker.end_answer("another")
                        await worker.end_answer("mine")
                    reasons += [choice["finish_reason"] for choice in chunk.data["choices"] if choice["finish_reason"]]
            assert n_chunks > 20 and reasons == ["length"]

    within(work())
    assert [each["body"] for each in fake.requests if each["path"] == CONTROL] == [
        {"id": "another", "action": "stop"}, {"id": "mine", "action": "stop"},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["too_long", "bad_grammar", "no_messages"])
def test_a_refusal_is_a_problem_for_the_client(tmp_path: Path, name: str) -> None:
    fake = FakeModel(tmp_path, refuses=refusal_of(name))

    async def work() -> None:
        async with started(fake) as worker:
            with pytest.raises(UpstreamRefused) as streamed:
                async with worker.upstream.stream(CHAT, {}, nothing):
                    pass
            with pytest.raises(UpstreamRefused) as posted:
                await worker.upstream.post(CHAT, {})
            assert streamed.value.status == posted.value.status == 400
            assert streamed.value.error == refusal_of(name)[1]["error"]

    within(work())


def test_leaving_a_stream_early_closes_its_connection(tmp_path: Path) -> None:
    fake = FakeModel(tmp_path, until_stopped=True)

    async def work() -> None:
        async with started(fake) as worker:
            async with worker.upstream.stream(CHAT, {"completion_id": "a"}, nothing) as stream:
                async for _ in stream:
                    break
            async with worker.upstream.stream(CHAT, {"completion_id": "b"}, nothing) as stream:
                await worker.end_answer("b")
                assert len([chunk async for chunk in stream]) >= len(chunks("chat"))

    within(work())


@pytest.mark.parametrize("ignores_term", [False, True])
def test_it_is_ended_with_grace_and_by_force(tmp_path: Path, ignores_term: bool) -> None:
    fake = FakeModel(tmp_path, ignores_term=ignores_term)

    async def work() -> None:
        async with started(fake) as worker:
            await worker.stop(grace=0.2 if ignores_term else SECONDS)
            assert await worker.wait() == (-signal.SIGKILL if ignores_term else 0)
            await worker.stop()  # once more is no harm

    within(work())


def test_a_start_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    fake = FakeModel(tmp_path, ready_after=3600)

    async def work() -> None:
        starting = asyncio.create_task(Worker.start(fake.program, fake.model(), PLAN, log=tmp_path / "log"))
        while not fake.starts:
            await asyncio.sleep(0.01)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not is_running(fake.starts[0]["pid"]) and not Path(arguments_of(fake)[1]).parent.exists()

    within(work())


PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-I", sys.argv[1], str(os.getpid()), sys.executable, "-IS", "-c",
                  "import os, time; print(os.getpid(), flush=True); time.sleep(3600)"])
time.sleep(3600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_worker_ends_when_its_parent_is_killed() -> None:
    command = [sys.executable, "-IS", "-c", PARENT, launch.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            child = int(parent.stdout.readline())
            assert is_running(child)
        finally:
            parent.kill()
        wait_until(lambda: not is_running(child))


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_launcher_whose_parent_has_gone_starts_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-I", launch.__file__, "1" if os.getpid() != 1 else "2", sys.executable, "-c"]
    ended = subprocess.run([*command, "print('x')"], capture_output=True, check=False)
    assert ended.returncode == 0 and ended.stdout == (b"" if sys.platform == "linux" else b"x\n")
