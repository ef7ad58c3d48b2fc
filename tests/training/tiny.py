"""Tiny models and examples to train: 20 abbreviations to learn by heart."""

import json
import random
from pathlib import Path

from edgellm.engine.llama import LlamaEngine
from edgellm.engine.quantize import Quantizer
from edgellm.training.job import FineTuneJob
from edgellm.training.options import FineTuneOptions, FineTuneRequest
from edgellm.training.result import FineTuned
from tests.weights.numpy_models import Shape

SMALL = Shape(hidden=256, ffn=512, layers=2)
TOKENS = [3, 65, 256, 17, 70, 70, 100, 5]


def abbreviations(n: int = 20) -> list[tuple[str, str]]:
    """Made-up words and what they are to become."""
    draw = random.Random(1)
    small, large = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [("".join(draw.choices(small, k=5)) + "=", "".join(draw.choices(large, k=3))) for _ in range(n)]


def write_pairs(path: Path, n: int = 20) -> Path:
    rows = [{"prompt": prompt, "completion": answer} for prompt, answer in abbreviations(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def job(
    llama: LlamaEngine, model: Path, output: Path, options: FineTuneOptions, data: Path | None = None
) -> FineTuneJob:
    examples = data or write_pairs(output.parent / "pairs.jsonl")
    codec = Quantizer(llama.installed.libraries, 1)
    return FineTuneJob.prepare(FineTuneRequest(model, examples, output, options), llama, codec)


def trained(llama: LlamaEngine, model: Path, output: Path, options: FineTuneOptions) -> FineTuned:
    with job(llama, model, output, options) as running:
        for _ in running.run():
            pass
        return running.finish()
