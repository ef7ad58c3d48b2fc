"""`edgellm batch --ray` as a user runs it, on a real Ray cluster of this machine; skipped where Ray is missing."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm import extras
from edgellm.settings import Settings
from tests.commands.cli import data, edgellm, error
from tests.engine.tiny_models import write_bitnet
from tests.nodes.local_cluster import LocalCluster, needs_ray

pytestmark = [pytest.mark.engine]


@pytest.fixture(autouse=True)
def home(with_engine: Settings) -> Settings:
    return with_engine


@pytest.fixture
def tiny(tmp_path: Path, vocabularies: Path) -> Path:
    return write_bitnet(tmp_path / "tiny.gguf", vocabularies)


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[LocalCluster]:
    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(local_cluster: LocalCluster, home: Settings) -> Iterator[LocalCluster]:
    """A cluster whose nodes have this test's home; they are gone after it."""
    local_cluster.env = {"EDGELLM_HOME": str(home.data.parent)}
    yield local_cluster
    local_cluster.kill_all()


def written(path: Path, n_rows: int, n_tokens: int) -> Path:
    """Rows of three groups, each with a long common beginning."""
    groups = [" ".join(f"{word} {n}" for n in range(30)) for word in ("apples", "pears", "plums")]
    rows = [
        {"id": f"row-{n}", "prompt": f"{groups[n % 3]}. Row {n}", "max_tokens": n_tokens, "seed": n}
        for n in range(n_rows)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def command(source: Path, out: Path, model: Path, *more: str) -> list[str]:
    return ["batch", str(source), "-o", str(out), "-m", str(model), "--raw", "-c", "512", "--slots", "2", *more]


def answers(path: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [(row["custom_id"], row["response"]["body"]["choices"][0]["text"]) for row in rows]


def assert_same(found: list[tuple[str, str]], expected: list[tuple[str, str]]) -> None:
    """Every row once, in order, with its own answer.

    Which rows are computed together changes the last bits of logits, and so once in some 60,000 tokens what is drawn.
    """
    assert [name for name, _ in found] == [name for name, _ in expected]
    n_other = sum(answer != other for answer, other in zip(found, expected, strict=True))
    assert n_other <= 2 + len(expected) // 100


def n_lines(out: Path) -> int:
    part = out.with_name(f"{out.name}.part")
    return part.read_bytes().count(b"\n") if part.exists() else out.exists() and len(out.read_bytes().splitlines())


@needs_ray
def test_a_cluster_that_no_node_can_serve_is_one_error(tmp_path: Path, tiny: Path, cluster: LocalCluster) -> None:
    source, out = written(tmp_path / "in.jsonl", 3, 4), tmp_path / "out.jsonl"
    cluster.add({"EDGELLM_HOME": str(tmp_path / "bare")})
    result = edgellm(*command(source, out, tiny, "--json", "--ray", cluster.address))
    assert result.returncode == 7 and error(result)["code"] == "engine-missing"
    assert not [*tmp_path.glob("out*")]


@needs_ray
def test_every_row_once_in_order_while_nodes_and_the_driver_are_killed(
    tmp_path: Path, tiny: Path, cluster: LocalCluster
) -> None:
    source, here, out = written(tmp_path / "in.jsonl", 60, 40), tmp_path / "here.jsonl", tmp_path / "out.jsonl"
    first, _ = cluster.add(), cluster.add()
    assert edgellm(*command(source, here, tiny, "-q")).returncode == 0
    driver = subprocess.Popen(
        [sys.executable, "-m", "edgellm", *command(source, out, tiny, "-q", "--ray", cluster.address)]
    )
    while n_lines(out) < 6 and driver.poll() is None:
        time.sleep(0.1)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL and not out.exists()
    killer = threading.Timer(1.0, cluster.kill, [first])
    killer.start()
    result = edgellm(*command(source, out, tiny, "--json", "--ray", cluster.address), timeout=240)
    killer.join()
    tally = data(result)["tally"]
    assert tally["done"] == 60 and tally["failed"] == 0 and tally["resumed"] >= 6
    assert tally["energy_joules"] is None and tally["reused_tokens"] > 0
    assert_same(answers(out), answers(here))
    again = edgellm(*command(source, out, tiny, "--json"))  # the same batch, finished, without a cluster
    assert data(again)["tally"]["resumed"] == 60


def test_an_address_without_an_answer_is_one_error(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: True)
    source = written(tmp_path / "in.jsonl", 3, 4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        result = here(*command(source, tmp_path / "out.jsonl", tiny, "--ray", nobody, "--json"))
    assert result.returncode == 4 and error(result)["what"] == f"no Ray cluster answers at {nobody}"
    for wrong in ("ray://x:1", "x:y", "x:0", "x:99999"):
        result = here(*command(source, tmp_path / "out.jsonl", tiny, "--ray", wrong, "--json"))
        assert result.returncode == 2 and "not the address of a Ray cluster" in error(result)["what"]


@pytest.mark.parametrize(
    "options", [["--docs", "manuals"], ["--tools", "clock"], ["--lora", "x.gguf"], ["--server", "http://127.0.0.1:1"]]
)
def test_what_nodes_cannot_do_is_refused(
    tmp_path: Path, tiny: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: True)
    source = written(tmp_path / "in.jsonl", 3, 4)
    words = command(source, tmp_path / "out.jsonl", tiny, *options, "--ray", "--json")
    result = here(*(word for word in words if word != "--raw"))
    assert result.returncode == 2 and f"{options[0]} and --ray do not go together" in error(result)["what"]


def test_an_embedding_model_is_refused(tmp_path: Path, minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: True)
    source = written(tmp_path / "in.jsonl", 3, 4)
    result = here("batch", "--ray", str(source), "-o", str(tmp_path / "out.jsonl"), "-m", str(minilm), "--json")
    assert result.returncode == 2 and "--shard" in error(result)["try"]


def test_without_the_extra_the_error_says_what_to_install(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    result = here(*command(tmp_path / "in.jsonl", tmp_path / "out.jsonl", tiny, "--ray", "--json"))
    assert result.returncode == 2
    found = error(result)
    assert "edgellm[ray]" in found["what"] and "290 MB" in found["why"] and "pip install 'ray>=" in found["try"]


def here(*arguments: str) -> subprocess.CompletedProcess[str]:
    from tests.commands.cli import edgellm_here

    return edgellm_here(*arguments)


@needs_ray
@pytest.mark.soak
def test_a_thousand_rows_while_nodes_come_and_go(tmp_path: Path, tiny: Path, cluster: LocalCluster) -> None:
    """Ten nodes are killed and added at random, and the driver is killed three times."""
    source, alone, out = written(tmp_path / "in.jsonl", 1000, 60), tmp_path / "here.jsonl", tmp_path / "out.jsonl"
    assert edgellm(*command(source, alone, tiny, "-q"), timeout=1200).returncode == 0
    chance, nodes, failures = random.Random(2), [cluster.add(), cluster.add()], list[str]()
    arguments = [sys.executable, "-m", "edgellm", *command(source, out, tiny, "--ray", cluster.address)]

    def churn() -> None:
        try:
            for _ in range(10):
                time.sleep(chance.uniform(2, 6))
                nodes.append(cluster.add())
                cluster.kill(nodes.pop(chance.randrange(len(nodes))))
        except Exception as wrong:
            failures.append(repr(wrong))

    churner = threading.Thread(target=churn)
    churner.start()
    for goal in (120, 320, 560):
        with subprocess.Popen(arguments, stderr=subprocess.PIPE) as driver:
            threading.Thread(target=lambda it=driver: it.stderr.read(), daemon=True).start()  # type: ignore[misc]
            while n_lines(out) < goal and driver.poll() is None:
                time.sleep(0.1)
            assert driver.poll() is None, "the batch ended before it was killed"
            os.kill(driver.pid, signal.SIGKILL)
    result = subprocess.run([*arguments, "--json"], capture_output=True, timeout=1200, check=False)
    churner.join()
    assert result.returncode == 0 and not failures, (result.stderr, failures)
    tally: dict[str, Any] = json.loads(result.stdout)["data"]["tally"]
    assert tally["done"] == 1000 and tally["failed"] == 0
    assert_same(answers(out), answers(alone))
