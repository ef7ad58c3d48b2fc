"""Checkpoints of a training run: parameters, Adam's moments and the step, in one safetensors file, written at once.

    save(directory, step, trained, optimizer)
    step = restore(newest(directory), trained, optimizer)

The order of the rows and the learning rate follow from the seed and the step, so nothing else is needed to go on. A
checkpoint appears under its name when it is on the disk, and the one before goes only then.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from edgellm.errors import CorruptFile
from edgellm.files import sync_directory, sync_file
from edgellm.training.work_directory import FREE_AND_RESUME, WorkDirectory, not_written

_NAME = re.compile(r"step-(\d{9})\.safetensors")
_MOMENTS = ("exp_avg", "exp_avg_sq")
# The arrays of a trained parameter.
COPIES = 1 + len(_MOMENTS)


def save(directory: Path, step: int, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> Path:
    """Write the checkpoint after `step` steps, then delete older ones.

    Raises:
        DiskFull, FileAccessError: it cannot be written; the older one is still there.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in trained.items():
        tensors[f"weights/{name}"] = parameter.detach()
        for moment in _MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[parameter][moment]
    path, part = directory / f"step-{step:09}.safetensors", directory / f".{os.getpid()}.part"
    n_bytes = sum(each.nbytes for each in tensors.values())
    WorkDirectory(directory).require_room(n_bytes, "a checkpoint", FREE_AND_RESUME)
    try:
        save_file({name: each.contiguous() for name, each in tensors.items()}, part)
        with part.open("rb") as file:
            sync_file(file)
        part.replace(path)
        sync_directory(directory)
    except (OSError, safetensors.SafetensorError) as error:
        raise not_written(path, error) from error
    finally:
        part.unlink(missing_ok=True)
    for other in _all(directory):
        if other != path:
            other.unlink(missing_ok=True)
    return path


def newest(directory: Path) -> Path | None:
    """The last checkpoint in a directory, or None."""
    return max(_all(directory), default=None)


def step_of(path: Path) -> int:
    """The number of steps that a checkpoint has behind it."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise CorruptFile(f"{path.name} is no checkpoint", why="its name has no step", path=str(path))
    return int(found[1])


def restore(path: Path, trained: Mapping[str, nn.Parameter], optimizer: torch.optim.AdamW) -> int:
    """Set parameters and moments as they were; returns the steps that are done.

    Raises:
        CorruptFile: the file is damaged, or of another model.
    """
    try:
        tensors = load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise CorruptFile(f"{path} is damaged", why=str(error), hint="delete it and start again") from error
    step = step_of(path)
    expected = {f"{kind}/{name}": each.shape for name, each in trained.items() for kind in ("weights", *_MOMENTS)}
    if expected != {name: each.shape for name, each in tensors.items()}:
        raise CorruptFile(f"{path} is of another model or method", hint="delete it and start again", path=str(path))
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"weights/{name}"])
            moments = {kind: tensors[f"{kind}/{name}"].to(parameter.device) for kind in _MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(step)), **moments}
    return step


def _all(directory: Path) -> list[Path]:
    return [path for path in directory.glob("step-*.safetensors") if _NAME.fullmatch(path.name)]
