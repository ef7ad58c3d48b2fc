"""lm-eval's tasks in process: the numbers of its own Hugging Face model, a log that survives kills, clear refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgellm.errors import CorruptFile, NetworkError, PromptTooLong, UsageError
from edgellm.evaluation.harness import published, tasks
from edgellm.evaluation.harness.data_sets import data_sets
from edgellm.evaluation.harness.lm import InProcessLM
from edgellm.evaluation.harness.response_log import ResponseLog, request_key
from edgellm.evaluation.harness.result import TaskOptions, TaskResult
from edgellm.evaluation.harness.tasks import load_tasks, run_tasks
from edgellm.extras import BENCHMARKS
from edgellm.models.recipe import PublishedScore
from edgellm.progress import Progress
from edgellm.run.loader import LoadedModel
from tests.evaluation.benchmark import N_ITEMS, SHOTS, TASKS
from tests.evaluation.record_hf import GOLDEN, computed_by, record

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning:datasets")]


def log_at(directory: Path) -> ResponseLog:
    return ResponseLog.open(directory, {"model": "toy"})


def run(model: LoadedModel, names: list[str], options: TaskOptions, log: ResponseLog, **more: Any) -> TaskResult:
    tasks = load_tasks(names, options, name=model.name, recipe=model.recipe)
    return run_tasks(model, tasks, options, log, **more)


def require_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Each choice to 1e-3 with its greedy flag, texts of hundreds of tokens to 1e-5 of their value, answers exactly.

    The metrics of the choices are exactly the same, errors too.
    """
    for name in TASKS:
        ours, theirs = found[name]["responses"], expected[name]["responses"]
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            if name == "toy_choice":
                assert mine[0] == pytest.approx(other[0], abs=1e-3) and mine[1] == other[1]
            elif name == "toy_texts":
                assert mine == pytest.approx(other, rel=1e-5)
            else:
                assert mine == other
    choice = found["toy_choice"]["metrics"]
    assert choice == expected["toy_choice"]["metrics"] and choice["acc,none"] != choice["acc_norm,none"]


def test_every_number_is_that_of_the_hugging_face_model(toy: LoadedModel, toy_tasks: Path, tmp_path: Path) -> None:
    """On 200 questions with examples before them, on whole texts, one longer than the context, and on answers."""
    with log_at(tmp_path) as log:
        lm = InProcessLM(toy, log)
        found = computed_by(lm, toy_tasks)
        assert lm.n_requests > 4 * N_ITEMS and lm.n_reused == 0
    require_same(found, json.loads(GOLDEN.read_text(encoding="utf-8")))


@pytest.mark.soak
def test_every_number_is_that_of_the_hugging_face_model_computed_now(
    toy: LoadedModel, toy_tasks: Path, tmp_path: Path
) -> None:
    """The live comparison; torch and transformers are in no extra."""
    for package in ("torch", "transformers"):
        pytest.importorskip(package)
    with log_at(tmp_path / "log") as log:
        found = computed_by(InProcessLM(toy, log), toy_tasks)
    require_same(found, record(tmp_path))


def test_scores_with_their_errors(toy: LoadedModel, toy_tasks: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    options = TaskOptions(limit=20, tasks=toy_tasks, shots=SHOTS)
    with log_at(tmp_path) as log:
        found = run(toy, ["toy_choice"], options, log, report=seen.append)
        again = run(toy, ["toy_choice"], options, log)
    assert [(score.metric, score.n_items, score.shots) for score in found.scores] == [
        ("acc", 20, 2),
        ("acc_norm", 20, 2),
    ]
    assert all(score.error and 0 < score.error < 0.2 and score.published is None for score in found.scores)
    assert (found.n_requests, found.n_reused, again.n_reused, again.n_tokens) == (80, 0, 80, 0)
    assert again.scores == found.scores
    assert seen[-1].done == seen[-1].total == 80 and "tok/s" in seen[-1].detail and "left" in seen[-1].detail


KILLED = """
import os, signal, sys
from pathlib import Path
from edgellm.engine.builds.installed import require
from edgellm.engine.builds.patches import PatchStack
from edgellm.engine.llama import LlamaEngine
from edgellm.evaluation.harness.response_log import ResponseLog
from edgellm.evaluation.harness.result import TaskOptions, TaskResult
from edgellm.evaluation.harness.tasks import load_tasks, run_tasks
from edgellm.run.loader import LoadedModel, LoadOptions, load_weights
from edgellm.settings import Settings, resource_directory
from tests.conftest import REAL

def killed(event):
    if event.done >= 24:
        os.kill(os.getpid(), signal.SIGKILL)

engine = LlamaEngine(require(REAL, PatchStack.load(resource_directory("patches"))))
model = LoadedModel("toy", *load_weights(engine, Path(sys.argv[1]), LoadOptions(kv_type="F32", n_threads=1)))
with ResponseLog.open(Path(sys.argv[3]), {"model": "toy"}) as log:
    options = TaskOptions(limit=20, tasks=Path(sys.argv[2]))
    tasks = load_tasks(["toy_choice"], options, name="toy", recipe=None)
    run_tasks(model, tasks, options, log, report=killed)
"""


def test_killed_it_goes_on(toy: LoadedModel, toy_model: Path, toy_tasks: Path, tmp_path: Path) -> None:
    """The same scores as without a kill, to the last bit, and nothing computed twice but the question under way."""
    options = TaskOptions(limit=20, tasks=toy_tasks)
    command = [sys.executable, "-c", KILLED, str(toy_model), str(toy_tasks), str(tmp_path / "killed")]
    real = {"HOME": str(Path("~root").expanduser())} if os.getuid() == 0 else {}
    done = subprocess.run(command, env={**os.environ, **real, "EDGELLM_HOME": ""}, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    with log_at(tmp_path / "killed") as log:
        resumed = run(toy, ["toy_choice"], options, log)
    with log_at(tmp_path / "whole") as log:
        whole = run(toy, ["toy_choice"], options, log)
    assert 24 <= resumed.n_reused < 80 and resumed.scores == whole.scores


def test_a_prompt_that_is_too_long_loses_its_beginning_and_is_counted(toy: LoadedModel, tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance

    def asked(context: str, answer: str) -> Instance:
        return Instance("loglikelihood", {}, (context, answer), 0, ("toy", len(context), 1))

    with log_at(tmp_path) as log:
        lm = InProcessLM(toy, log)
        end = "o" * (lm.max_length - 2)
        long, exact = lm.loglikelihood([asked("n" * 300 + end, " the hat"), asked("the cat", "")])
        assert lm.n_truncated == 1 and long[0] < 0 and exact == (0.0, True)
        with pytest.raises(PromptTooLong, match="513 tokens"):
            lm.loglikelihood([asked("the", "o" * 513)])


@pytest.mark.parametrize(
    ("names", "options", "what"),
    [
        (["toy_choise"], {}, "no task 'toy_choise'"),
        (["published"], {}, "no published scores"),
        (["toy_choice"], {"chat": True, "limit": 1}, None),
        (["toy_choice"], {"data": Path("/nowhere")}, "no directory"),
    ],
)
def test_what_cannot_be_run(
    toy: LoadedModel, toy_tasks: Path, tmp_path: Path, names: list[str], options: dict[str, Any], what: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Its index of all tasks takes a minute to read.
    monkeypatch.setattr(tasks.TaskManager, "__init__", _small_index(tasks.TaskManager.__init__))
    with log_at(tmp_path) as log:
        if what is None:
            assert run(toy, names, TaskOptions(tasks=toy_tasks, **options), log).chat
            return
        with pytest.raises(UsageError, match=what) as refused:
            run(toy, names, TaskOptions(tasks=toy_tasks, **options), log)
        assert refused.value.why


def _small_index(init: Any) -> Any:
    return lambda self, **options: init(self, **{**options, "include_defaults": False})


def test_data_sets_of_a_directory(tmp_path: Path) -> None:
    import datasets

    place = tmp_path / "allenai" / "ai2_arc" / "ARC-Easy"
    place.mkdir(parents=True)
    rows = [{"question": "Why?", "answerKey": "A"}, {"question": "How?", "answerKey": "B"}]
    (place / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    datasets.Dataset.from_list(rows[:1]).to_parquet(tmp_path / "a.parquet")
    hub = tmp_path / "Rowan" / "hellaswag" / "data"
    hub.mkdir(parents=True)
    (tmp_path / "a.parquet").rename(hub / "validation-00000-of-00001.parquet")
    datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)}).save_to_disk(tmp_path / "made" / "here")
    with data_sets(tmp_path, offline=False):
        assert datasets.load_dataset("allenai/ai2_arc", "ARC-Easy")["test"]["question"][1] == "How?"
        assert len(datasets.load_dataset(path="Rowan/hellaswag", name=None)["validation"]) == 1
        assert len(datasets.load_dataset("made/here")["test"]) == 2
        for repo in ("allenai/nothing", "../allenai"):
            with pytest.raises(CorruptFile, match=f"{repo} is not in") as missing:
                datasets.load_dataset(repo, "main")
            assert f"hf download {repo} --repo-type dataset" in missing.value.hint
        (place / "test.jsonl").write_text('{"question": "Why?"\n\x00\xff{{{')
        with pytest.raises(CorruptFile, match=r"ai2_arc cannot be read"):
            datasets.load_dataset("allenai/ai2_arc", "ARC-Easy")
    with data_sets(None, offline=True), pytest.raises(NetworkError, match=r"allenai/ai2_arc \(ARC-Easy\)") as error:
        datasets.load_dataset("allenai/ai2_arc", "ARC-Easy")
    assert "--data DIR" in error.value.hint


def test_a_score_beside_the_published_one() -> None:
    known = PublishedScore(
        benchmark="ARC-Easy", value=57.95, source="https://example.org", task="arc_easy", metric="acc_norm", shots=0
    )
    here = published.Conditions("TQ2_0", 0)
    near = published.compare([known], "arc_easy", "acc_norm", 0.56, 0.0102, here)
    assert near and near.verdict == published.AGREES and near.reasons == ()
    far = published.compare([known], "arc_easy", "acc_norm", 0.55, 0.0102, published.Conditions("Q4_0", 5, limit=100))
    assert far and far.verdict == published.DIFFERS
    assert far.reasons == (
        "the weights are Q4_0 here", "5 examples here, 0 there", "only the first 100 questions of a task here"
    )  # fmt: skip
    assert published.compare([known], "arc_easy", "acc", 0.55, 0.01, here) is None
    assert published.published_shots([known], "arc_easy") == 0


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    BENCHMARKS.require()
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match="extra") as missing:
        BENCHMARKS.require()
    assert "datasets is missing" in missing.value.why and "570 MB" in missing.value.why
    assert "pip install 'lm-eval" in missing.value.hint


def test_a_log_is_of_one_model_and_plan(tmp_path: Path) -> None:
    key = request_key("loglikelihood", "a", "b")
    with log_at(tmp_path) as log:
        log.put({key: [-1.5, True]})
    with log_at(tmp_path) as log:
        assert log.get(key) == [-1.5, True] and log.get(request_key("loglikelihood", "a", "c")) is None
    with ResponseLog.open(tmp_path, {"model": "other"}) as other:
        assert other.get(key) is None
    log.path.write_bytes(b"no database at all, and long enough to be looked at as one" * 20)
    with pytest.raises(CorruptFile, match="damaged") as damaged:
        log_at(tmp_path)
    assert damaged.value.hint == f"rm {log.path}"
