"""Torch computes in one thread here: on a busy machine, two wait for each other most of the time."""

import contextlib

with contextlib.suppress(ImportError):
    import torch

    torch.set_num_threads(1)
