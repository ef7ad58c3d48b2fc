"""The scripts on the page about clusters: the Job is YAML of the shape it must have, the shell scripts parse."""

import re
import subprocess
import textwrap
from pathlib import Path

import pytest
import yaml

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "batch-on-a-cluster.md"
BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?:^(?: {4}.*)?\n)+", PAGE.read_text(), re.MULTILINE)]
SCRIPTS = [block.strip() for block in BLOCKS if block.strip().startswith("#!/bin/bash")]


def test_the_job_of_kubernetes_gives_every_shard_once() -> None:
    (text,) = (block for block in BLOCKS if block.strip().startswith("apiVersion"))
    job = yaml.safe_load(text)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed" and spec["template"]["spec"]["restartPolicy"] == "Never"
    (container,) = spec["template"]["spec"]["containers"]
    (script,) = container["args"]
    assert f"--shard $shard/{spec['completions']} " in script
    mounts, volumes = container["volumeMounts"], spec["template"]["spec"]["volumes"]
    assert [each["name"] for each in mounts] == [each["name"] for each in volumes]
    assert container["workingDir"] == mounts[0]["mountPath"]
    for index in (0, spec["completions"] - 1):
        said = subprocess.run(
            ["/bin/sh", "-c", script.replace("edgellm batch", "echo")],
            env={"JOB_COMPLETION_INDEX": str(index)}, capture_output=True, text=True, encoding="utf-8", check=True,
        ).stdout  # fmt: skip
        assert f"-o part{index + 1}.jsonl" in said and f"--shard {index + 1}/16" in said


@pytest.mark.parametrize("script", SCRIPTS, ids=["shards", "ray"])
def test_the_scripts_of_slurm_parse(script: str, tmp_path: Path) -> None:
    subprocess.run(["/bin/sh", "-n"], input=script, text=True, encoding="utf-8", check=True)
    assert "#SBATCH --cpus-per-task" in script
