"""Under a memory limit that is too small: every verb refuses with the numbers, or adapts; none is killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgellm.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.model]

MB = 10**6
# Sets the limit in a process of its own, before anything is imported.
LIMITED = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from edgellm.cli import main
main()
"""
JOINED = """
import os, sys
with open(sys.argv.pop(1), "w") as procs:
    procs.write(str(os.getpid()))
from edgellm.cli import main
main()
"""
Result = subprocess.CompletedProcess[str]


def run(code: str, *arguments: str) -> Result:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
    assert "Traceback" not in result.stderr, result.stderr
    return result


def with_address_space(limit: int, *arguments: str) -> Result:
    return run(LIMITED, str(limit), *arguments)


@pytest.mark.parametrize("megabytes", [100, 190, 260, 420])
@pytest.mark.parametrize(
    "verb",
    [
        "list",
        "show smollm2",
        "fit smollm2",
        "verify",
        "pull smollm2",
        "run smollm2 hi -n 2 -t 1",
        "run smollm2 hi -n 2 -t 1 -c 8192 --force",
    ],
)
def test_a_limit_of_the_address_space_ends_in_a_refusal_or_an_answer(
    verb: str, megabytes: int, with_engine: Settings
) -> None:
    result = with_address_space(megabytes * MB, *verb.split())
    assert result.returncode in (0, 5), (result.returncode, result.stderr)
    if result.returncode == 5 and not verb.startswith("fit"):
        assert ("error:" in result.stderr and "memory" in result.stderr + result.stdout) or "available" in result.stderr


def test_the_refusal_has_the_numbers_and_what_would_fit(with_engine: Settings) -> None:
    result = with_address_space(500 * MB, "run", "smollm2", "hi", "-n", "2", "-t", "1", "-c", "8192", "--json")
    assert result.returncode == 5
    error = json.loads(result.stderr)["error"]
    assert error["code"] == "does-not-fit" and error["facts"]["needed"] > error["facts"]["available"] > 0
    assert "fits instead:" in error["why"] and error["try"].startswith("the same with ")
    # What it says to try works, under the same limit.
    options = error["try"].removeprefix("the same with ").partition(",")[0].split()
    command = ["run", "smollm2", "hi", "-n", "2", "-t", "1", "-c", "8192", *options, "--json"]
    assert with_address_space(500 * MB, *command).returncode == 0


def test_a_cap_chooses_and_is_kept(with_engine: Settings) -> None:
    result = run(LIMITED, "-1", "run", "smollm2", "hi", "-n", "4", "--max-memory", "240MB", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)["data"]
    assert answer["kv_type"] == "Q8_0" and answer["stats"]["peak_resident_bytes"] <= 240 * MB


def test_a_cap_that_nothing_fits_below_is_refused(with_engine: Settings) -> None:
    result = run(LIMITED, "-1", "run", "smollm2", "hi", "--max-memory", "120MB")
    assert result.returncode == 5 and "0.12 GB is available" in result.stderr


def test_a_run_that_hits_its_cap_ends_with_a_message(with_engine: Settings) -> None:
    result = run(LIMITED, "-1", "run", "smollm2", "hi", "--max-memory", "120MB", "--force")
    assert result.returncode == 5 and "--max-memory allows 0.12 GB" in result.stderr


def memory_cgroup() -> tuple[Path, str]:
    """This process's memory cgroup, and the name of the file with its limit."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if "memory" in names.split(","):
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/"), "memory.limit_in_bytes"
        if not names and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup") / path.lstrip("/"), "memory.max"
    pytest.skip("there are no memory cgroups here")


@pytest.fixture
def contained() -> Iterator[Callable[..., Result]]:
    """Run a verb in a cgroup of its own with a limit; skipped where none can be made (it takes root)."""
    parent, limit_file = memory_cgroup()
    group = parent / f"edgellm-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made: {error}")

    def inside(limit: int, *arguments: str, **more: Any) -> Result:
        try:
            (group / limit_file).write_text(str(limit))
        except OSError as error:
            pytest.skip(f"no memory limit can be set: {error}")
        return run(JOINED, str(group / "cgroup.procs"), *arguments)

    yield inside
    group.rmdir()


def test_a_container_that_is_too_small_is_refused(contained: Callable[..., Result], with_engine: Settings) -> None:
    for verb in (["run", "smollm2", "hi", "-n", "2"], ["chat", "smollm2"]):
        result = contained(200 * MB, *verb, "-c", "8192")
        assert result.returncode == 5 and "is available" in result.stderr, (result.returncode, result.stderr)
    fit = contained(200 * MB, "fit", "smollm2", "-c", "8192", "--json")
    assert fit.returncode == 5 and json.loads(fit.stdout)["data"]["available"] <= 200 * MB


def test_a_container_that_is_large_enough_is_used(contained: Callable[..., Result], with_engine: Settings) -> None:
    """Without much room above the estimate: it is what is really needed."""
    fit = json.loads(contained(300 * MB, "fit", "smollm2", "-c", "2048", "--json").stdout)["data"]
    assert fit["fits"]
    limit = fit["need"]["total"] + 70 * MB  # what this process already had when it looked
    result = contained(limit, "run", "smollm2", "word " * 300, "-n", "4", "-c", "2048", "-t", "1", "--json")
    assert result.returncode == 0, (result.returncode, result.stderr)


def test_adapting_inside_a_container(contained: Callable[..., Result], with_engine: Settings) -> None:
    result = contained(340 * MB, "run", "smollm2", "hi", "-n", "2", "--max-memory", "210MB", "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)["data"]
    assert answer["stats"]["n_ctx"] < 4096 or answer["kv_type"] == "Q8_0"
