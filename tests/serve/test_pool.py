"""The pool: what is loaded when, how long it stays, what makes room, and what happens when a worker dies or hangs."""

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgellm.errors import DoesNotFit, EngineError, ModelNotFound, UnsupportedModel
from edgellm.machine.memory import Room
from edgellm.models.fit.memory import RunPlan
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.serve.http.problems import Problem
from edgellm.serve.options import ServeOptions
from edgellm.serve.workers import pool as pool_module
from edgellm.serve.workers.catalog import Catalog, ModelKind, ServedModel
from edgellm.serve.workers.pool import Loaded, Pool
from edgellm.serve.workers.worker import Worker
from tests.serve.fake_worker import FakeModel, is_running

SECONDS = 30.0


def within(work: Coroutine[Any, Any, None]) -> None:
    """Run it; a test that hangs fails."""
    asyncio.run(asyncio.wait_for(work, SECONDS))


async def until(condition: Any) -> None:
    """Wait for what happens by itself; `within` has the limit."""
    while not condition():
        await asyncio.sleep(0.005)


class House:
    """A pool of fake models with a clock that stands still, and what it has started."""

    def __init__(self, directory: Path, *names: str, kind: ModelKind = ModelKind.CHAT, **options: Any) -> None:
        self.fakes = {name: FakeModel(directory, name) for name in names}
        self.now = 0.0
        self.n_looks = 0
        self.starts: Counter[str] = Counter()
        self.plans: list[RunPlan] = []
        self.directory = directory
        catalog = Catalog([fake.model(kind) for fake in self.fakes.values()])
        self.kept: list[int] = []
        self.pool = Pool(catalog, ServeOptions(**options), self.start, n_threads=2, keep=self.keep, clock=self.clock)

    def clock(self) -> float:
        self.n_looks += 1
        return self.now

    async def keep(self, worker: Worker) -> None:
        assert worker.is_alive
        self.kept.append(worker.pid)

    async def looked(self) -> None:
        """The pool has looked at what is idle, at least once since now."""
        before = self.n_looks
        await until(lambda: self.n_looks > before + 1)

    async def start(self, model: ServedModel, plan: RunPlan) -> Worker:
        self.starts[model.name] += 1
        self.plans.append(plan)
        fake = self.fakes[model.name]
        return await Worker.start(fake.program, model, plan, log=self.directory / "log")

    @property
    def loaded(self) -> list[str]:
        return sorted(state.model.name for state in self.pool.loaded)

    def state(self, name: str) -> Loaded:
        return self.pool.state(self.pool.catalog.get(name))

    async def use(self, name: str, **more: Any) -> int:
        """One request; the process id of its worker."""
        async with self.pool.lease(name, **more) as worker:
            assert worker.is_alive
            return worker.pid


@asynccontextmanager
async def serving(house: House) -> AsyncIterator[Pool]:
    """The pool with its clean-up at work; all workers have ended behind it."""
    running = asyncio.create_task(house.pool.run())
    try:
        yield house.pool
    finally:
        running.cancel()
        await house.pool.stop()
        pids = [start["pid"] for fake in house.fakes.values() for start in fake.starts]
        assert not [pid for pid in pids if is_running(pid)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look and ask often."""
    monkeypatch.setattr(pool_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(pool_module, "PULSE_SECONDS", 0.02)
    monkeypatch.setattr(pool_module, "FIRST_PAUSE", 0.001)


def problem(caught: pytest.ExceptionInfo[Problem]) -> tuple[int, str, int | None]:
    return caught.value.status, caught.value.code, caught.value.retry_after


def test_a_model_is_loaded_at_its_first_request_and_stays(tmp_path: Path) -> None:
    house = House(tmp_path, "a", "b", n_ctx=256, n_slots=3)

    async def work() -> None:
        async with serving(house) as pool:
            assert house.loaded == [] and house.state("a").worker is None
            first = await house.use("a")
            house.now = 5.0
            assert await house.use("a:latest") == first and house.loaded == ["a"]
            assert pool.idle_seconds(house.state("a")) == 0.0
            house.now = 7.5
            assert pool.idle_seconds(house.state("a")) == 2.5
            async with pool.lease("a"):
                assert pool.n_in_flight == 1 and pool.idle_seconds(house.state("a")) is None
            assert pool.n_in_flight == 0

    within(work())
    assert house.starts == {"a": 1} and house.plans == [RunPlan(256, 3, "F16", n_threads=2)]


def test_a_model_runs_as_it_was_tuned(tmp_path: Path) -> None:
    house = House(tmp_path, "a", "b", n_ctx=256, n_slots=2)
    tuning = Tuning(1, 3, 128, flash_attention=False)
    house.pool._tuning = lambda model: tuning if model.name == "a" else None

    async def work() -> None:
        async with serving(house):
            await house.use("a")
            await house.use("b")

    within(work())
    tuned = RunPlan(256, 2, n_batch=128, n_threads=1, n_threads_batch=3, flash_attention=False)
    assert house.plans == [tuned, RunPlan(256, 2, n_threads=2)]


def test_requests_that_come_together_load_once(tmp_path: Path) -> None:
    house = House(tmp_path, "a")
    house.fakes["a"].play(ready_after=0.2)

    async def work() -> None:
        async with serving(house):
            assert len(set(await asyncio.gather(*[house.use("a") for _ in range(12)]))) == 1

    within(work())
    assert house.starts == {"a": 1}


def test_one_that_cannot_be_loaded_is_tried_again_by_the_next_request(tmp_path: Path) -> None:
    house = House(tmp_path, "a")
    house.fakes["a"].play(dies_at_start=2, says=["out of luck"])

    async def work() -> None:
        async with serving(house):
            outcomes = await asyncio.gather(*[house.use("a") for _ in range(3)], return_exceptions=True)
            assert all(isinstance(each, UnsupportedModel) and "out of luck" in each.why for each in outcomes)
            assert house.pool.n_in_flight == 0 and not house.state("a").restarting
            house.fakes["a"].play()
            await house.use("a")

    within(work())


def test_what_a_model_cannot_do_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    house = House(tmp_path, "a", kind=ModelKind.EMBEDDING)

    async def work() -> None:
        async with serving(house) as pool:
            with pytest.raises(Problem) as wrong:
                async with pool.lease("a", ModelKind.CHAT, ModelKind.COMPLETION):
                    pass
            assert problem(wrong) == (400, "wrong-model", None) and wrong.value.field == "model"
            assert wrong.value.message == "a turns texts into vectors; this needs a model for chat or completion"
            with pytest.raises(ModelNotFound):
                async with pool.lease("nothing"):
                    pass
            with pytest.raises(ModelNotFound) as unknown:
                pool.catalog.get("a@office")
            assert "answers from documents in chats alone" in unknown.value.why

    within(work())
    assert not house.starts


@pytest.mark.parametrize("kind", list(ModelKind))
def test_every_kind_says_what_it_does(tmp_path: Path, kind: ModelKind) -> None:
    refused = pool_module.wrong_kind(FakeModel(tmp_path, "m").model(kind), (ModelKind.RERANK,))
    assert refused.message.startswith("m ") and refused.message.endswith("; this needs a model for rerank")


def test_the_least_recently_used_makes_room(tmp_path: Path) -> None:
    house = House(tmp_path, "a", "b", "c", max_loaded=2)

    async def work() -> None:
        async with serving(house):
            for name in ("a", "b", "a", "c"):
                house.now += 1
                await house.use(name)
            assert house.loaded == ["a", "c"]

    within(work())


def test_one_in_use_is_waited_for(tmp_path: Path) -> None:
    house = House(tmp_path, "a", "b", max_loaded=1)

    async def work() -> None:
        async with serving(house) as pool:
            async with pool.lease("a") as worker:
                second = asyncio.create_task(house.use("b"))
                await until(lambda: house.state("b").in_flight)
                assert worker.is_alive and not second.done()
            await second
            assert house.loaded == ["b"]

    within(work())


def test_nobody_waits_for_ever_for_room(tmp_path: Path) -> None:
    house = House(tmp_path, "a", "b", max_loaded=1)

    async def work() -> None:
        async with serving(house) as pool, pool.lease("a"):
            second = asyncio.create_task(house.use("b"))
            await until(lambda: house.state("b").in_flight)
            house.now += pool_module.PATIENCE_SECONDS + 1
            with pytest.raises(Problem) as busy:
                await second
            assert problem(busy) == (503, "models-busy", 2)
            assert busy.value.message == "there is no room for b while a is in use; try again in 2 seconds"

    within(work())


def test_no_model_at_all_may_be_loaded(tmp_path: Path) -> None:
    house = House(tmp_path, "a", max_loaded=0)

    async def work() -> None:
        async with serving(house):
            with pytest.raises(EngineError, match="no model may be loaded"):
                await house.use("a")

    within(work())


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that are free, as the pool sees them; it starts with plenty."""
    free = [64 << 30]
    monkeypatch.setattr(pool_module.memory, "room", lambda: Room(free[0], None))
    return free


def test_what_does_not_fit_is_an_error_with_numbers(tmp_path: Path, room: list[int]) -> None:
    house = House(tmp_path, "a")
    room[0] = 1 << 20

    async def work() -> None:
        async with serving(house):
            with pytest.raises(DoesNotFit) as large:
                await house.use("a")
            assert re.fullmatch(  # what is needed counts this Python's own memory, which differs a little
                r"a needs 0\.\d\d GB at 4,096 tokens in each of 4 slots, but only 0\.00 GB is available",
                large.value.what,
            )
            assert house.pool.n_in_flight == 0

    within(work())
    assert not house.starts


def test_no_model_must_go_for_one_that_can_never_fit(
    tmp_path: Path, room: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, "a", "b")
    monkeypatch.setattr(pool_module.memory, "total", lambda: 2 << 20)

    async def work() -> None:
        async with serving(house) as pool, pool.lease("a"):
            room[0] = 1 << 20
            with pytest.raises(DoesNotFit, match=r"b needs 0\.\d\d GB"):  # at once, and not as one that may pass
                await house.use("b")
            assert house.loaded == ["a"]

    within(work())


def test_idle_models_and_what_else_holds_memory_make_room(tmp_path: Path, room: list[int]) -> None:
    house = House(tmp_path, "a", "b")
    released: list[str] = []

    async def release() -> bool:
        released.append(",".join(house.loaded))
        return len(released) == 1

    house.pool.release = release

    async def work() -> None:
        async with serving(house) as pool:
            await house.use("a")
            room[0] = 1 << 20
            unload = pool.unload

            async def unload_and_free(state: Loaded) -> None:
                await unload(state)
                room[0] = 64 << 30

            pool.unload = unload_and_free  # type: ignore[method-assign]
            await house.use("b")
            assert released == ["a", "a"] and house.loaded == ["b"], "first what is no model, then a model"

    within(work())


def test_a_smaller_context_is_planned_under_a_limit(tmp_path: Path, room: list[int]) -> None:
    house = House(tmp_path, "a", n_ctx=8192)
    assert house.pool.plan(house.fakes["a"].model()).n_ctx == 4096, "it was trained with no more"
    assert house.pool.expected(house.fakes["a"].model()) == RunPlan(4096, 4, "F16", n_threads=2)


def test_a_default_context_stays_what_clients_were_given(tmp_path: Path, room: list[int]) -> None:
    pool, model = (house := House(tmp_path, "a")).pool, house.fakes["a"].model()
    model = replace(model, outline=replace(model.outline, n_ctx_train=65_536, keys=(2048,), values=(2048,)))
    room[0] = 8 << 30
    assert pool.wanted(model).n_ctx == 49_152 and pool.wanted(model).n_slots == 4
    room[0] = 3 << 30
    assert pool.wanted(model).n_ctx == 49_152, "less memory now is no reason"
    with pytest.raises(DoesNotFit):
        pool.plan(model, room=Room(1 << 30))


def test_a_model_that_would_not_fit_otherwise_gets_a_shorter_context(tmp_path: Path, room: list[int]) -> None:
    house = House(tmp_path, "a")
    model = house.pool.catalog.get("a")
    large = replace(model, outline=replace(model.outline, n_ctx_train=65_536, keys=(2048,), values=(2048,)))
    house.pool.catalog._models["a"] = large

    async def work() -> None:
        async with serving(house) as pool:
            assert pool.wanted(large).n_ctx == 65_536
            room[0] = 1 << 30
            await house.use("a")
            assert pool.wanted(large).n_ctx < 16_384

    within(work())


@pytest.mark.parametrize(("keep", "after"), [(None, 900.0), (20.0, 20.0)])
def test_one_that_nobody_uses_is_unloaded(tmp_path: Path, keep: float | None, after: float) -> None:
    house = House(tmp_path, "a")

    async def work() -> None:
        async with serving(house):
            await house.use("a", keep_seconds=keep)
            house.now = after - 0.5
            await house.looked()
            assert house.loaded == ["a"]
            house.now = after
            await until(lambda: not house.loaded)
            assert house.state("a").keep_seconds is None, "the next load begins anew"

    within(work())


def test_one_in_use_is_never_idle(tmp_path: Path) -> None:
    house = House(tmp_path, "a", idle_seconds=1)

    async def work() -> None:
        async with serving(house) as pool, pool.lease("a") as worker:
            house.now = 1e6
            await house.looked()
            assert worker.is_alive and house.loaded == ["a"]

    within(work())


def test_conversations_are_kept_when_nobody_waits_and_before_a_worker_is_stopped(tmp_path: Path) -> None:
    house = House(tmp_path, "a", idle_seconds=100)

    async def work() -> None:
        async with serving(house) as pool:
            pid = await house.use("a")
            house.now = 5
            await house.use("a")
            house.now = 5 + pool_module.KEEP_SECONDS - 1
            await house.looked()
            assert house.kept == []
            house.now += 1
            await until(lambda: house.kept)
            await house.looked()
            assert house.kept == [pid]
            house.now = 50
            await pool.unload(house.state("a"))
            assert house.kept == [pid], "it has not answered since"
            pid = await house.use("a")
            house.now = 60
            await house.use("a")
            await house.use("a", keep_seconds=0)
            assert house.loaded == [] and house.kept[1:] == [pid]

    within(work())


@pytest.mark.parametrize(("keep", "idle"), [(-1.0, 10.0), (None, None)])
def test_one_may_be_kept_for_ever(tmp_path: Path, keep: float | None, idle: float | None) -> None:
    house = House(tmp_path, "a", idle_seconds=idle)

    async def work() -> None:
        async with serving(house):
            await house.use("a", keep_seconds=keep)
            house.now = 1e9
            await house.looked()
            assert house.loaded == ["a"]

    within(work())


def test_keep_nothing_unloads_with_the_last_request(tmp_path: Path) -> None:
    house = House(tmp_path, "a")

    async def work() -> None:
        async with serving(house) as pool:
            async with pool.lease("a") as worker:
                await house.use("a", keep_seconds=0)
                assert worker.is_alive and house.loaded == ["a"], "another request is not over"
            assert house.loaded == [] and not worker.is_alive
            await house.use("a")
            assert house.loaded == ["a"], "that was for once"

    within(work())


def test_too_many_waiting_is_refused_and_counted_right(tmp_path: Path) -> None:
    house = House(tmp_path, "a", n_slots=1, max_queue=1)

    async def work() -> None:
        async with serving(house) as pool, pool.lease("a"), pool.lease("a"):
            with pytest.raises(Problem) as full:
                await house.use("a")
            assert problem(full) == (429, "queue-full", 2)
            assert full.value.message == "2 requests for a are waiting already; try again in 2 seconds"
            assert pool.n_in_flight == 2

    within(work())


def test_one_that_dies_is_started_again_and_who_asks_meanwhile_comes_again(tmp_path: Path) -> None:
    house = House(tmp_path, "a")

    async def work() -> None:
        async with serving(house) as pool:
            async with pool.lease("a") as worker:
                house.fakes["a"].play(ready_after=0.3)
                worker.kill()
                await worker.wait()
                with pytest.raises(Problem) as restarting:
                    await house.use("a")
                assert problem(restarting) == (503, "worker-restarting", 2)
                await until(lambda: house.state("a").restarting)
                with pytest.raises(Problem) as restarting:
                    await house.use("a")
                assert problem(restarting) == (503, "worker-restarting", 2)
            await until(lambda: house.loaded and not house.state("a").restarting)
            assert await house.use("a") != worker.pid
            assert pool.n_restarts == 1 and house.starts == {"a": 2}

    within(work())


def test_one_that_dies_again_and_again_gets_longer_pauses_and_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(tmp_path, "a")
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        if seconds >= 100:
            pauses.append(seconds)
            seconds = 0
        await sleep(seconds)

    monkeypatch.setattr(pool_module, "FIRST_PAUSE", 100.0)
    monkeypatch.setattr(pool_module, "LONGEST_PAUSE", 500.0)
    monkeypatch.setattr(pool_module.asyncio, "sleep", noted)

    async def work() -> None:
        async with serving(house) as pool:
            async with pool.lease("a") as worker:
                house.fakes["a"].play(dies_at_start=1)
                worker.kill()
                await until(lambda: house.state("a").failures > 3 and not house.state("a").restarting)
            assert pauses == [200.0, 400.0, 500.0] and house.starts == {"a": 5} and pool.n_restarts == 1
            with pytest.raises(UnsupportedModel, match="could not be loaded"):
                await house.use("a")
            house.fakes["a"].play()
            await house.use("a")
            assert house.state("a").failures == 0

    with caplog.at_level(logging.ERROR, "edgellm.serve"):
        within(work())
    assert "the worker of a ended with status -9; a is started again" in caplog.text


def test_one_that_takes_no_step_is_killed_and_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    house = House(tmp_path, "a", stall_seconds=0.2)
    house.fakes["a"].play(hangs=True)

    async def work() -> None:
        async with serving(house) as pool:
            async with pool.lease("a") as worker:
                house.fakes["a"].play()
                assert await worker.wait() == -9
            await until(lambda: house.starts["a"] == 2 and house.loaded and not house.state("a").restarting)
            assert await house.use("a") != worker.pid and pool.n_restarts == 1

    with caplog.at_level(logging.ERROR, "edgellm.serve"):
        within(work())
    assert "the worker of a took no step for 0 s" in caplog.text


def test_a_pool_that_is_closed_takes_no_more_but_lets_answers_end(tmp_path: Path) -> None:
    house = House(tmp_path, "a")

    async def work() -> None:
        async with serving(house) as pool:
            async with pool.lease("a") as worker:
                pool.close()
                with pytest.raises(Problem) as closing:
                    await house.use("a")
                assert problem(closing) == (503, "shutting-down", 2) and worker.is_alive
            await pool.stop()
            assert house.loaded == [] and not worker.is_alive

    within(work())


def test_a_worker_that_dies_while_the_pool_closes_is_not_started_again(tmp_path: Path) -> None:
    house = House(tmp_path, "a")

    async def work() -> None:
        async with serving(house) as pool, pool.lease("a") as worker:
            pool.close()
            worker.kill()
            await worker.wait()
            await until(lambda: pool.n_restarts == 1 and not house.state("a").restarting)
            assert house.starts == {"a": 1}

    within(work())


def test_a_pool_that_stops_while_it_unloads_leaves_no_worker(tmp_path: Path) -> None:
    house = House(tmp_path, "a")
    house.fakes["a"].play(ignores_term=True)

    async def work() -> None:
        async with serving(house) as pool:
            await house.use("a")
            unloading = asyncio.create_task(pool.unload(house.state("a")))
            await until(lambda: not house.loaded)
            unloading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await unloading
            assert is_running(house.fakes["a"].starts[0]["pid"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Worker.stop, "__defaults__", (0.2,))
        within(work())


def test_a_pool_that_stops_while_it_starts_a_worker_again_leaves_none(tmp_path: Path) -> None:
    house = House(tmp_path, "a")

    async def work() -> None:
        async with serving(house) as pool, pool.lease("a") as worker:
            house.fakes["a"].play(ready_after=3600)
            worker.kill()
            await until(lambda: len(house.fakes["a"].starts) == 2)
            assert house.state("a").restarting

    within(work())


def test_the_state_of_a_model_that_was_never_asked_for(tmp_path: Path) -> None:
    house = House(tmp_path, "a")
    state = house.pool.state(replace(house.fakes["a"].model(), name="x"))
    assert state.worker is None and house.pool.idle_seconds(state) is None and house.pool.loaded == []
