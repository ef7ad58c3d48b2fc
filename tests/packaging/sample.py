"""What a wheel has inside, made of the native engine in a second: its libggml-cpu stands for the baseline.

write_sample(tmp_path / "_engine", engine, stack)
"""

import json
import platform
import shutil
from pathlib import Path

from edgellm.engine.builds import prebuilt
from edgellm.engine.builds.installed import InstalledEngine
from edgellm.engine.builds.patches import PatchStack
from tests.packaging.wheel import engine_record, openmp, write_model, write_truth


def write_sample(directory: Path, engine: InstalledEngine, stack: PatchStack) -> None:
    """Write the directory, without tools, and with no variant but the baseline."""
    (directory / "lib").mkdir(parents=True)
    for name in ("libllama.so", "libggml.so", "libggml-base.so", "libggml-cpu.so", "libggml-rpc.so"):
        shutil.copy(engine.libraries / f"{name}.0", directory / "lib")
    shutil.copy(openmp(platform.machine()), directory / "lib")
    shutil.copytree(engine.bindings, directory / "python", ignore=shutil.ignore_patterns("__pycache__"))
    write_model(directory / prebuilt.TRIAL_MODEL, engine)
    write_truth(directory, engine)
    record = engine_record(stack, platform.machine())
    (directory / prebuilt.RECORD).write_text(json.dumps(record), encoding="utf-8")
