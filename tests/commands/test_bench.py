"""`edgellm bench` as a user types it."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgellm.engine.builds.installed import InstalledEngine
from edgellm.settings import Settings, resource_directory
from tests.commands.cli import data, edgellm, error
from tests.weights.gguf_maker import write_llama

SHORT = ("-p", "32", "-n", "4", "--rounds", "2", "--threads", "1")


@pytest.fixture
def tiny_shape(with_engine: Settings) -> Settings:
    """The shape `tiny` among the user's own recipes."""
    directory = with_engine.config / "recipes"
    directory.mkdir(parents=True)
    sizes = {"layers": 2, "embedding": 256, "feed_forward": 512, "heads": 4, "kv_heads": 4, "head_size": 64}
    shape = "".join(f"{key} = {value}\n" for key, value in {**sizes, "vocabulary": 400, "context": 512}.items())
    recipe = (resource_directory("recipes") / "bitnet-2b.toml").read_text()
    recipe = re.sub(
        r"\[shape\].*?\n\n", f'[shape]\narchitecture = "bitnet-b1.58"\ntied = true\n{shape}\n', recipe, flags=re.S
    )
    (directory / "tiny.toml").write_text(recipe)
    return with_engine


@pytest.mark.engine
@pytest.mark.model
def test_drafts_on_kinds_of_work(with_engine: Settings) -> None:
    arguments = ("bench", "smollm2", "--workload", "json", "--workload", "again", "-n", "4")
    found = data(edgellm(*arguments, "--json"))
    assert found["complete"] and [each["workload"] for each in found["workloads"]] == ["json", "again"]
    for each in found["workloads"]:
        assert 0 < each["lowest"] <= each["median"] and each["ratio"] > 0 and each["tokens_per_pass"] >= 1
        assert len(each["answers"]) == 10 and all(answer["tokens"] <= 4 for answer in each["answers"])


def test_workloads_that_there_are_not(settings: Settings) -> None:
    del settings
    assert "did you mean quote?" in error(edgellm("bench", "smollm2", "--workload", "qote", "--json"))["why"]
    for wrong in (("--workload", "all"), ("a", "b", "--workload", "all"), ("a", "--workload", "all", "-n", "0")):
        assert "one model" in error(edgellm("bench", *wrong, "--json"))["what"]


@pytest.mark.engine
def test_a_shape_against_stock(tiny_shape: Settings, tmp_path: Path) -> None:
    page = tmp_path / "speed.html"
    arguments = ("bench", "--shape", "tiny", "--against", "stock", "--batch", "3", *SHORT)
    first = edgellm(*arguments, "--report", str(page))
    assert first.returncode == 0, first.stderr
    assert f"report: {page}" in first.stderr and "tiny I2_S over tiny TQ2_0 stock" in page.read_text()
    assert "decode 4 x 3" in first.stdout and "tiny TQ2_0 stock" in first.stdout and "RATIO" in first.stdout
    assert "which stock llama.cpp cannot read" in first.stderr and "kept in" in first.stderr
    found = data(edgellm(*arguments, "--json"))
    assert found["complete"] and found["together"] and found["n_rounds"] == 2
    ours, stock = found["contenders"]
    assert (ours["name"], ours["against"], stock["kernels"]) == ("tiny I2_S", "tiny TQ2_0 stock", "stock")
    assert len(found["measurements"]) == 6
    for measurement in found["measurements"]:
        rates = measurement["rate"]
        assert len(rates["values"]) == 2 and 0 < rates["lowest"] <= rates["median"] <= rates["highest"]
        assert (measurement["ratio"] is None) == (measurement["contender"] == stock["name"])
        assert measurement["cores_used"]["lowest"] > 0
        assert (measurement["ttft_seconds"] is None) == (measurement["test"]["kind"] == "decode")
        assert (measurement["roofline"] is None) == (
            measurement["test"]["kind"] == "prefill" or measurement["test"]["n_seq"] == 3
        )
    decode = found["measurements"][2]
    share = decode["rate"]["values"][0] * ours["bytes_per_token"] / found["bandwidth"][0]["rate"]["values"][0]
    assert decode["roofline"]["values"][0] == pytest.approx(share, rel=1e-2, abs=1e-5)
    assert ours["peak_resident_bytes"] > 20_000_000
    past = data(edgellm("bench", "--shape", "tiny", "--history", "--json"))
    assert len(past) == 6  # of the model itself in both runs; its stock twin is another file
    assert {record["contender"] for record in past} == {"tiny I2_S"}
    table = edgellm("bench", "--shape", "tiny", "--history", "--report", str(page)).stdout
    assert "Earlier speed of tiny I2_S" in page.read_text()
    assert "decode 4 x 3" in table and found["setting"]["stamp"] in table
    made = sorted(path.name.split("-")[0] for path in tiny_shape.bench_models.iterdir())
    assert made == ["tiny", "tiny"]


@pytest.mark.engine
def test_levels_and_the_change_since_last_time(tiny_shape: Settings) -> None:
    arguments = ("bench", "--shape", "tiny", "-p", "0", "-n", "4", "--rounds", "2", "--threads", "1,2", "-d", "8")
    arguments += ("--batch", "2")
    assert edgellm(*arguments).returncode == 0
    again = edgellm(*arguments, "--kernels", "scalar")
    assert "% since" in again.stderr and "tiny I2_S scalar" in again.stdout
    assert "prefill" not in again.stdout and "THREADS" in again.stdout and "after 8 tokens" in again.stdout


@pytest.mark.engine
@pytest.mark.model
def test_our_own_llama_bench_as_a_peer(with_engine: Settings, engine: InstalledEngine) -> None:
    program = engine.programs / "llama-bench"
    if not program.exists():
        pytest.skip("the tools are not built; edgellm engine build --tools")
    found = data(edgellm("bench", "smollm2", "--peer", str(program), *SHORT, "--json"))
    ours, peer = found["contenders"]
    assert peer["peer"] == str(program) and ours["against"] == peer["name"] == "llama-bench Q4_1"
    assert peer["peak_resident_bytes"] > 50_000_000 and peer["load_seconds"] is None
    rates = {(m["contender"], m["test"]["kind"]): m["rate"]["median"] for m in found["measurements"]}
    for kind in ("prefill", "decode"):
        # The same engine on the same file: whatever else the machine does, not an order apart.
        assert 0.1 < rates[ours["name"], kind] / rates[peer["name"], kind] < 10


@pytest.mark.engine
@pytest.mark.model
def test_broken_peers(with_engine: Settings, tmp_path: Path) -> None:
    program = tmp_path / "llama-bench"
    program.write_text("#!/bin/sh\necho '| model | t/s |'\n")
    assert edgellm("bench", "smollm2", "--peer", str(program), *SHORT).returncode == 2  # not executable
    program.chmod(0o755)
    rubbish = edgellm("bench", "smollm2", "--peer", str(program), *SHORT, "--json")
    assert rubbish.returncode == 7 and "is not understood" in error(rubbish)["what"]
    assert edgellm("bench", "smollm2", "--peer", str(tmp_path / "none"), *SHORT).returncode == 2
    assert edgellm("bench", "smollm2", "--peer-args", "-x", *SHORT).returncode == 2


@pytest.mark.engine
@pytest.mark.model
def test_refusals_have_their_exit_codes(with_engine: Settings, tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("this is no model")
    small = str(write_llama(tmp_path / "small.gguf"))
    for code, arguments in (
        (2, ()),
        (2, ("smollm2", "-p", "0", "-n", "0")),
        (2, ("smollm2", "--threads", "1,x")),
        (2, ("smollm2", "--threads", "0")),
        (2, ("smollm2", "--batch", "9999")),
        (2, ("smollm2", "--kernels", "avx3")),
        (2, ("smollm2", "--quant", "TQ2_0")),
        (2, ("--shape", "bitnet-2b", "--quant", "Q4_K_M", "--history")),
        (2, ("--shape", "bitnet-2b", "--head", "I2_S", "--history")),
        (2, (small, "-p", "600")),
        (3, ("nosuch",)),
        (3, ("--shape", "bitnet-3b")),
        (3, ("smollm2", "--against", "nosuch")),
        (6, (str(tmp_path / "text.gguf"),)),
    ):
        result = edgellm("bench", *arguments)
        assert result.returncode == code, (arguments, result.stderr)
        assert result.stdout == "" and result.stderr.startswith("error: ")
    for what in (("smollm2",), ("--shape", "bitnet-2b")):  # nothing is pulled or made to look for it
        assert data(edgellm("bench", *what, "--history", "--json")) == []


def test_without_an_engine_the_command_to_build_it_is_named(settings: Settings, tmp_path: Path) -> None:
    result = edgellm("bench", str(write_llama(tmp_path / "tiny.gguf")), "--json")
    assert result.returncode == 7 and error(result)["try"] == "edgellm engine build"


@pytest.mark.engine
@pytest.mark.model
def test_a_killed_benchmark_leaves_no_worker_and_no_lock(with_engine: Settings) -> None:
    command = [sys.executable, "-m", "edgellm", "bench", "smollm2", "-p", "64", "-n", "64", "--rounds", "1000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("measuring") and "prefill" in line:
            break
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True).stdout
    workers = [int(pid) for pid in children.split()]
    assert workers
    process.send_signal(signal.SIGKILL)
    process.communicate()
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not list(with_engine.data.glob("benchmarks/*"))
    assert edgellm("bench", "smollm2", "-p", "0", "-n", "1", "--rounds", "1", "-t", "1").returncode == 0
