"""Records what lm-eval's own Hugging Face model computes on the tiny benchmark: `python -m tests.evaluation.record_hf`.

It needs torch and transformers, which no other test needs; the recording is `golden/hf.json`.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tests.evaluation.benchmark import SHOTS, TASKS, write_checkpoint, write_tasks

GOLDEN = Path(__file__).parent / "golden" / "hf.json"


def computed_by(model: Any, tasks: Path, model_args: dict[str, Any] | None = None) -> dict[str, Any]:
    """The responses of a model to each task, and its metrics, in lm-eval's words."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found: dict[str, Any] = {}
    for name in TASKS:
        shots = SHOTS if name == "toy_choice" else None
        results = lm_eval.simple_evaluate(model, model_args, tasks=[name], num_fewshot=shots, task_manager=manager)
        metrics = {key: value for key, value in results["results"][name].items() if "," in key}
        responses = [each for sample in results["samples"][name] for (each,) in sample["resps"]]
        found[name] = {"metrics": metrics, "responses": responses}
    return found


def record(directory: Path) -> dict[str, Any]:
    """What the Hugging Face model computes in float32."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(directory / "hf")}
    checkpoint = write_checkpoint(directory / "model")
    arguments = {"pretrained": str(checkpoint), "dtype": "float32", "device": "cpu", "batch_size": 16}
    return computed_by("hf", write_tasks(directory / "tasks"), arguments)


def main() -> None:
    """Write the recording."""
    with tempfile.TemporaryDirectory() as directory:
        found = record(Path(directory))
    GOLDEN.parent.mkdir(exist_ok=True)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    GOLDEN.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
