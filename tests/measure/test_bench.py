"""The parts of a benchmark: samples, misbehaving child processes, peers' output, workers, the history."""

import ctypes
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from edgellm.engine.kernels import memory_reader
from edgellm.errors import DoesNotFit, EngineError, UnsupportedModel, UsageError
from edgellm.machine.child import WaitHooks
from edgellm.measure import bandwidth
from edgellm.measure.bench import benchmark
from edgellm.measure.bench import contenders as bench_contenders
from edgellm.measure.bench import history as bench_history
from edgellm.measure.bench.contenders import NamedModel, Rivals
from edgellm.measure.bench.peer import PeerRunner, parse_rate
from edgellm.measure.bench.plan import BenchPlan, Contender, Peer
from edgellm.measure.bench.remarks import remarks
from edgellm.measure.bench.result import Benchmark, Contestant, Measurement, Samples, Setting, Test
from edgellm.measure.bench.runner import EngineRunner
from edgellm.models.fit.tuned_plan import Tuning
from edgellm.progress import Observer, Progress
from edgellm.settings import Settings

PREFILL, DECODE = Test("prefill", 64, 1, 1), Test("decode", 16, 1, 1)
SETTING = Setting("2026-11-24T10:00:00+00:00", "some CPU", "0.3.36", "abc", "cc 12")
READ = ctypes.string_at  # like the engine's function, only slower
PLAN = BenchPlan(n_prompt=64, n_gen=4, n_threads=(1,), n_rounds=2)


def test_ratios_are_taken_round_by_round() -> None:
    """The second round was slow for both, so the ratio does not show it."""
    ours, theirs = Samples((20.0, 4.0, 22.0)), Samples((10.0, 2.0, 10.0))
    assert ours.over(theirs).values == (2.0, 2.0, 2.2)
    assert (ours.median, ours.lowest, ours.highest, ours.spread) == (20.0, 4.0, 22.0, 0.9)


@pytest.mark.engine
def test_bandwidth_is_a_number_that_a_machine_may_have(engine_lib_dir: Path) -> None:
    assert 1e8 < bandwidth.read_bandwidth(1, memory_reader(engine_lib_dir)) < 1e12


def test_the_bandwidth_buffer_leaves_memory_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 256 << 20 <= bandwidth.buffer_bytes() <= 1 << 30
    monkeypatch.setattr(bandwidth.memory, "available", lambda: 100 << 20)
    assert bandwidth.buffer_bytes() == 25 << 20


RECORD = {"n_prompt": 64, "n_gen": 0, "avg_ts": 123.5, "n_threads": 1}


@pytest.mark.parametrize(
    "output",
    [
        json.dumps([RECORD]),
        json.dumps([{"n_prompt": 0, "n_gen": 64, "avg_ts": 9.0}, RECORD], indent=2),
        "warning: something [x]\n" + json.dumps([RECORD], indent=2) + "\nbuild: 123 (1)\n",
        "noise\n" + json.dumps(RECORD) + "\n" + json.dumps({**RECORD, "n_gen": 9}),
        json.dumps([{"n_prompt": "64", "n_gen": "0", "avg_ts": "123.5"}]),
    ],
)
def test_output_of_any_llama_bench_is_understood(output: str) -> None:
    assert parse_rate(output.encode(), PREFILL, name="the peer") == 123.5


@pytest.mark.parametrize(
    "output",
    [
        "",
        "| model | size | t/s |\n",
        "[" * 100_000,
        "null",
        "[1, 2, [3]]",
        "\0\xff\xfe",
        json.dumps([{**RECORD, "avg_ts": float("nan")}]),
        json.dumps([{**RECORD, "avg_ts": -1}]),
        json.dumps([{**RECORD, "avg_ts": True}]),
        json.dumps([{**RECORD, "avg_ts": "fast"}]),
        json.dumps([{**RECORD, "n_prompt": 128}]),
        '[{"n_prompt": 64, "n_gen": 0, "avg_ts": 1' + "0" * 400 + "}]",
    ],
)
def test_rubbish_from_a_peer_is_refused(output: str) -> None:
    with pytest.raises(EngineError, match="the output of the peer is not understood"):
        parse_rate(output.encode("latin-1"), PREFILL, name="the peer")


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    return path


def peer_runner(program: Path, model: Path, limit: float | None = None, arguments: tuple[str, ...] = ()) -> PeerRunner:
    peer = Peer(program, arguments)
    return PeerRunner(Contender("other", model, peer=peer), peer, PLAN, WaitHooks(), limit=limit)


def test_a_peer_gets_the_test_and_the_users_options(tmp_path: Path) -> None:
    body = (
        "import json, sys\n"
        f"open({str(tmp_path / 'seen')!r}, 'w').write(json.dumps(sys.argv[1:]))\n"
        f"print(json.dumps([{RECORD}]))"
    )
    runner = peer_runner(script(tmp_path / "llama-bench", body), tmp_path / "m.gguf", arguments=("-rtr", "1"))
    reading = runner.measure(PREFILL, seed=1)
    assert reading is not None and reading.rate == 123.5
    assert runner.measure(replace(DECODE, n_seq=8), seed=1) is None
    seen = json.loads((tmp_path / "seen").read_text())
    expected = ["-m", str(tmp_path / "m.gguf"), "-p", "64", "-n", "0", "-t", "1", "-r", "1", "-o", "json", "-rtr", "1"]
    assert seen == expected


def test_a_peer_that_hangs_is_given_up(tmp_path: Path) -> None:
    program = script(tmp_path / "llama-bench", "import time; time.sleep(600)")
    with pytest.raises(EngineError, match="the peer other gives no answer"):
        peer_runner(program, tmp_path / "m.gguf", limit=1).measure(DECODE, seed=0)


def test_a_peer_that_fails_tells_its_last_words(tmp_path: Path) -> None:
    program = script(tmp_path / "llama-bench", "raise SystemExit('unknown model architecture')")
    with pytest.raises(EngineError, match="the peer other failed") as caught:
        peer_runner(program, tmp_path / "m.gguf").measure(DECODE, seed=0)
    assert "exit status 1; its last words: unknown model architecture" in caught.value.why


# The real engine


@pytest.fixture
def runner(with_engine: Settings, smollm2: Path) -> Iterator[EngineRunner]:
    made = EngineRunner(Contender("smollm2", smollm2, kernels="scalar"), replace(PLAN, n_threads=(2,)), WaitHooks())
    yield made
    made.close()


@pytest.mark.engine
@pytest.mark.model
def test_a_worker_measures_and_then_waits_without_spinning(runner: EngineRunner) -> None:
    runner.start()
    reading = runner.measure(Test("prefill", 64, 1, 2), seed=0)
    assert reading.ttft_seconds is not None and reading.rate > 0
    assert 64 / reading.rate <= reading.ttft_seconds  # the first token comes after the prompt
    assert runner.measure(Test("decode", 4, 1, 2), seed=0).ttft_seconds is None
    assert runner.peak_resident_bytes is not None and runner.peak_resident_bytes > 90_000_000
    assert runner.load_seconds is not None and runner.load_seconds > 0
    assert runner._child is not None
    worker = psutil.Process(runner._child.pid)
    assert worker.environ()["EDGELLM_KERNELS"] == "scalar"
    time.sleep(0.3)  # lets the threads of the last computation finish
    before = worker.cpu_times()
    time.sleep(1)
    after = worker.cpu_times()
    assert after.user + after.system - before.user - before.system <= 0.05


@pytest.mark.engine
@pytest.mark.model
def test_a_worker_that_dies_or_hangs_is_one_clear_error(runner: EngineRunner) -> None:
    runner.start()
    assert runner._child is not None
    worker = psutil.Process(runner._child.pid)
    worker.suspend()
    runner._limit = 1
    with pytest.raises(EngineError, match="the worker of smollm2 gives no answer"):
        runner.measure(DECODE, seed=0)
    worker.kill()
    with pytest.raises(EngineError, match="the worker of smollm2 failed") as caught:
        runner.measure(DECODE, seed=0)
    assert "SIGKILL" in caught.value.why


@pytest.mark.engine
def test_what_the_engine_refuses_keeps_its_kind(with_engine: Settings, tmp_path: Path) -> None:
    from tests.weights.gguf_maker import write_llama

    path = write_llama(tmp_path / "odd.gguf", keys={"tokenizer.ggml.model": "nosuch"})
    runner = EngineRunner(Contender("odd", path), PLAN, WaitHooks())
    with pytest.raises(UnsupportedModel, match=r"the engine cannot load odd\.gguf") as caught:
        runner.start()
    runner.close()
    assert caught.value.exit_code == 6


@pytest.mark.engine
@pytest.mark.model
def test_models_that_do_not_fit_together_take_turns(
    with_engine: Settings, smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contenders = [Contender("a", smollm2, against="b"), Contender("b", smollm2)]
    need = benchmark._need(contenders[0], PLAN)
    monkeypatch.setattr(benchmark, "buffer_bytes", lambda: 0)
    monkeypatch.setattr(benchmark.memory, "available", lambda: need + 1000)
    result = benchmark.benchmark(contenders, PLAN, SETTING, READ)
    assert not result.together and result.complete and result.n_rounds == 2
    assert [len(c.load_seconds.values) for c in result.contenders if c.load_seconds] == [2, 2]
    monkeypatch.setattr(benchmark.memory, "available", lambda: need - 1000)
    with pytest.raises(DoesNotFit, match="a needs"):
        benchmark.benchmark(contenders, PLAN, SETTING, READ)


@pytest.mark.engine
@pytest.mark.model
def test_stopping_keeps_the_complete_rounds(with_engine: Settings, smollm2: Path) -> None:
    done: list[int] = []

    def report(event: Progress) -> None:
        if event.stage == "measuring":
            done.append(event.done)

    watch = Observer(report, lambda: bool(done) and done[-1] >= 3)  # in the second round of two tests each
    result = benchmark.benchmark([Contender("a", smollm2)], replace(PLAN, n_rounds=50), SETTING, READ, watch)
    assert not result.complete and result.n_rounds == 1 and len(result.measurements) == 2
    with pytest.raises(KeyboardInterrupt):
        benchmark.benchmark([Contender("a", smollm2)], PLAN, SETTING, READ, Observer(interrupted=lambda: True))


# Contenders


def test_contenders_are_named_and_compared(
    with_engine: Settings, smollm2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(rivals: Rivals, *models: NamedModel) -> list[tuple[str, str | None]]:
        found = bench_contenders.contenders(models or [NamedModel("smol", smollm2)], rivals, with_engine)
        return [(contender.name, contender.against) for contender in found]

    assert names(Rivals()) == [("smol Q4_1", None)]
    stock = [("smol Q4_1", "smol Q4_1 stock"), ("smol Q4_1 stock", None)]
    assert names(Rivals(stock=True)) == stock
    assert names(Rivals(kernels=("avx2",))) == [("smol Q4_1", None), ("smol Q4_1 avx2", "smol Q4_1")]
    assert names(Rivals(stock=True, kernels=("avx2",))) == [stock[0], ("smol Q4_1 avx2", stock[1][0]), stock[1]]
    twice = names(Rivals(), NamedModel("smol", smollm2), NamedModel("smol", smollm2))
    assert twice == [("smol Q4_1", None), ("smol Q4_1 (2)", "smol Q4_1")]
    other = names(Rivals(model=NamedModel("other", smollm2)))
    assert other == [("smol Q4_1", "other Q4_1"), ("other Q4_1", None)]
    peer = names(Rivals(peer=Peer(Path("/opt/llama-bench"))))
    assert peer == [("smol Q4_1", "llama-bench Q4_1"), ("llama-bench Q4_1", None)]
    monkeypatch.setenv("EDGELLM_KERNELS", "avx2")
    assert names(Rivals()) == [("smol Q4_1 avx2", None)]
    with pytest.raises(UsageError, match="no kernels 'avx3'") as caught:
        names(Rivals(kernels=("avx3",)))
    assert "did you mean avx2" in caught.value.why


# History


def result(rate: float, date: str = SETTING.date, **changes: object) -> Benchmark:
    contestant = Contestant("m Q4_0", Path("/m.gguf"), "f00", "", None, None, 10, 9, None, None)
    measurement = Measurement("m Q4_0", DECODE, Samples((rate, rate / 2, rate * 2)), None, None, None)
    setting = replace(SETTING, date=date)
    made = Benchmark(setting, 3, 0, True, True, (contestant,), (), (measurement,))
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fast", "tuning", "said"),
    [
        ((20.0, 21.0, 19.0), Tuning(1, 1), True),
        ((20.0, 21.0, 9.0), Tuning(1, 1), False),  # not in every round
        ((20.0, 21.0, 19.0), Tuning(2, 1), False),  # they are in use
        ((20.0, 21.0, 19.0), Tuning(3, 1), False),  # what is in use was not measured
        ((20.0, 21.0, 19.0), None, False),  # nobody else runs it so
    ],
)
def test_threads_that_are_better_than_those_in_use_are_named(
    fast: tuple[float, ...], tuning: Tuning | None, said: bool
) -> None:
    made = result(10.0)
    one = replace(made.measurements[0], rate=Samples((10.0, 10.0, 10.0)))
    two = replace(one, test=replace(DECODE, n_threads=2), rate=Samples(fast))
    contestant = replace(made.contenders[0], tuning=tuning)
    found = [
        text for text in remarks(replace(made, contenders=(contestant,), measurements=(one, two))) if "tune" in text
    ]
    assert len(found) == said
    if said:
        assert "m Q4_0, decode 16: 2 threads were 2.00 times as fast as the 1 in use; edgellm tune" in found[0]


def test_history_finds_the_same_model_again(tmp_path: Path) -> None:
    for rate, date in ((12.0, "2026-11-02T00:00:00+00:00"), (10.0, "2026-11-01T00:00:00+00:00")):
        bench_history.save(tmp_path, result(rate, date))
    past = bench_history.earlier(tmp_path, {"f00"})
    assert [record.median for record in past.records] == [10.0, 12.0] and past.n_unreadable == 0
    assert (past.records[0].lowest, past.records[0].highest, past.records[0].stamp) == (5.0, 20.0, "abc")
    now = result(15.0)
    found = bench_history.previous(past, now, now.contenders[0], now.measurements[0])
    assert found is not None and found.median == 12.0
    assert bench_history.earlier(tmp_path, {"other"}).records == ()
    elsewhere = replace(now, setting=replace(SETTING, cpu="another CPU"))
    assert bench_history.previous(past, elsewhere, now.contenders[0], now.measurements[0]) is None
    deeper = replace(now, depth=100)
    assert bench_history.previous(past, deeper, now.contenders[0], now.measurements[0]) is None


def test_a_damaged_history_is_counted_and_left_alone(tmp_path: Path) -> None:
    path = bench_history.save(tmp_path, result(10.0))
    good = path.read_text()
    (tmp_path / "dir.json").mkdir()
    for number in range(0, len(good) - 1, 7):  # cut anywhere
        (tmp_path / "cut.json").write_text(good[:number])
        assert bench_history.earlier(tmp_path, {"f00"}).n_unreadable == 2
    damages = [
        good.replace('"version": 1', '"version": 99'),
        good.replace("10.0", "NaN"),
        good.replace("10.0", '"x"'),
        good.replace("10.0", "1e999"),
        good.replace('"values": [', '"values": [[], '),
        good.replace('"contender": "m Q4_0"', '"contender": "other"'),
        "[]",
        "null",
        "[" * 100_000,
        "x" * (5 << 20),
    ]
    for text in damages:
        (tmp_path / "cut.json").write_text(text)
        found = bench_history.earlier(tmp_path, {"f00"})
        assert (found.n_unreadable, len(found.records)) == (2, 1), text[:200]


def test_a_full_disk_leaves_the_history_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench_history.save(tmp_path, result(10.0))
    before = sorted(tmp_path.iterdir())

    def full(_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgellm.files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        bench_history.save(tmp_path, result(20.0, "2026-12-01T00:00:00+00:00"))
    assert sorted(tmp_path.iterdir()) == before
