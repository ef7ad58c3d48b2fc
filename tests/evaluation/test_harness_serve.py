"""lm-eval in process beside lm-eval over `edgellm serve`: the same numbers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgellm.evaluation.harness.lm import InProcessLM
from edgellm.evaluation.harness.response_log import ResponseLog
from edgellm.run.loader import LoadedModel
from tests.conftest import REAL
from tests.serve.server import Server

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning:datasets")]


@pytest.fixture
def home(tmp_path: Path, tools: Path) -> dict[str, str]:
    """The environment of a home with the real engine in it."""
    data = tmp_path / "edgellm" / "data"
    data.mkdir(parents=True)
    (data / "engines").symlink_to(REAL.engines)
    return {"HOME": str(tmp_path), "EDGELLM_HOME": str(tmp_path / "edgellm")}


def test_every_number_is_that_of_the_server(
    toy: LoadedModel, toy_model: Path, toy_tasks: Path, home: dict[str, str], tmp_path: Path
) -> None:
    """lm-eval's own client sends texts, which get the BOS of the vocabulary there as they do here."""
    from lm_eval.api.instance import Instance

    with Server.start(str(toy_model), "--slots", "1", "--kv", "f32", env=home) as server:
        name = server.get("/v1/models").json()["data"][0]["id"]
        arguments = f"base_url={server.url}/v1/completions,model={name},max_retries=1,tokenized_requests=False"
        command = [
            sys.executable, "-m", "lm_eval", "run", "--model", "local-completions", "--model_args", arguments,
            "--tasks", str(toy_tasks / "toy_choice.yaml"), "--num_fewshot", "1", "--limit", "20", "--log_samples",
            "--output_path", str(tmp_path / "out"),
        ]  # fmt: skip
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    (file,) = (tmp_path / "out").rglob("samples_*.jsonl")
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    with ResponseLog.open(tmp_path / "log", {}) as log:
        lm = InProcessLM(toy, log)
        for sample in samples:
            asked = [(each["arg_0"], each["arg_1"]) for each in sample["arguments"].values()]
            requests = [Instance("loglikelihood", {}, pair, 0, ("toy", sample["doc_id"], 1)) for pair in asked]
            for (value, greedy), ((other, greedy_there),) in zip(
                lm.loglikelihood(requests), sample["resps"], strict=True
            ):
                assert value == pytest.approx(float(other), abs=1e-3) and str(greedy) == greedy_there
    assert lm.n_requests == 80
