"""Runs llama.cpp's own converter, for architectures that edgellm does not convert itself.

The converter runs from the engine's source tree, in a child process, and needs torch and transformers. A
checkpoint with its own code or pickled weights is refused, because the converter would execute either.

    result = convert_with_upstream(tree.llama_cpp, Path("mamba-130m"), Path("mamba.gguf"), outtype="f16")
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from edgellm.errors import EdgellmError, UsageError
from edgellm.formats.gguf_file import GGUFFile
from edgellm.progress import Progress, Report, silent
from edgellm.weights.convert.checkpoints.source import model_name
from edgellm.weights.convert.conversion import Conversion, describe

SCRIPT = "convert_hf_to_gguf.py"
NEEDS = ("torch", "transformers", "sentencepiece")
OUTTYPES = ("F16", "BF16", "F32", "Q8_0", "TQ1_0", "TQ2_0")
_WRITING = re.compile(r"Writing:\s+(\d+)%")
_LINES_KEPT = 30
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})


def convert_with_upstream(
    llama_cpp: Path, directory: Path, output: Path | None = None, *, outtype: str | None = None, report: Report = silent
) -> Conversion:
    """Run the converter in the tree `llama_cpp`; the file appears when it is complete, or not at all.

    Raises UsageError when the converter cannot be run, and EdgellmError with its last line when it fails.
    """
    started = time.monotonic()
    _refuse_code(directory)
    target = (outtype or OUTTYPES[0]).upper()
    if target not in OUTTYPES:
        raise UsageError(f"llama.cpp's converter cannot write {target}", hint=f"--outtype {' or '.join(OUTTYPES)}")
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        hint = f"{sys.executable} -m pip install {' '.join(missing)}"
        raise UsageError("llama.cpp's converter cannot run", why=f"not installed: {', '.join(missing)}", hint=hint)
    output = output or Path(f"{model_name(directory)}-{target}.gguf")
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    command = [
        sys.executable,
        str(llama_cpp / SCRIPT),
        str(directory),
        "--outfile",
        str(part),
        "--outtype",
        target.lower(),
    ]
    try:
        _run(command, report)
        with GGUFFile.open(part) as written:
            if all(info.type.name != target for info in written.tensors.values()):
                raise EdgellmError(f"{directory.name} was not converted", why=f"none of its tensors became {target}")
        part.replace(output)
    finally:
        part.unlink(missing_ok=True)
    return describe(output, model_name(directory), target, target, time.monotonic() - started)


def _refuse_code(directory: Path) -> None:
    """Raise UsageError if loading the checkpoint would execute anything in it."""
    for path in sorted(directory.rglob("*")):
        if path.suffix == ".py" or path.suffix in PICKLES:
            why = f"{path.name} {'is code' if path.suffix == '.py' else 'is pickled, and reading it can run code'}"
        elif path.suffix == ".json" and b'"auto_map"' in path.read_bytes():
            why = f"{path.name} names code of the repository (auto_map)"
        else:
            continue
        hint = "use a copy of the checkpoint without it, with weights as safetensors"
        raise UsageError(f"llama.cpp's converter may not run on {directory.name}", why=why, hint=hint)


def _run(command: list[str], report: Report) -> None:
    """Run the converter offline and report its progress."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    last: deque[str] = deque(maxlen=_LINES_KEPT)
    report(Progress("running llama.cpp's converter"))
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=environment,
    ) as process:
        for line in process.stdout or ():  # universal newlines: tqdm's carriage returns end lines too
            last.append(line.rstrip())
            if found := _WRITING.search(line):
                report(Progress("running llama.cpp's converter", int(found[1]), 100, "%"))
    if process.returncode:
        why = next((line for line in reversed(last) if line.strip()), "it gave no reason")
        raise EdgellmError("llama.cpp's converter failed", why=why, exit_code=process.returncode)
