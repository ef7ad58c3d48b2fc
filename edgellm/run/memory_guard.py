"""Ends an answer before the system ends the program: at the cap the user set, or just below the container's limit.

    guard = MemoryGuard(max_memory=2_000_000_000)
    guard()     # between two computations; raises DoesNotFit

Nearly all memory is taken when a model is loaded, as estimated. The guard catches what the estimate missed.
"""

from __future__ import annotations

from edgellm.errors import DoesNotFit
from edgellm.machine import cgroup, memory

# With less than this left in the container, the kernel may kill the process at the next computation.
LEAST_LEFT = 4 << 20


class MemoryGuard:
    """Checks the memory of this process; `max_memory` is in bytes, None for no cap.

    `held` bytes of it belong to other things than the model (a caller's own data) and are not counted.
    """

    def __init__(self, max_memory: int | None, *, held: int = 0) -> None:
        self._max_memory, self._held = max_memory, held
        self._contained = cgroup.memory_limit() is not None

    def __call__(self) -> None:
        """Raise `DoesNotFit` when the memory is used up."""
        if self._max_memory is not None and (used := memory.resident() - self._held) > self._max_memory:
            raise DoesNotFit(
                f"stopped: {used / 1e9:.2f} GB of memory in use, --max-memory allows {self._max_memory / 1e9:.2f} GB",
                why="the estimate was lower, or --force was given",
                hint="a smaller --ctx-size, --kv q8_0, or a smaller model",
                used=used,
                max_memory=self._max_memory,
            )
        left = cgroup.memory_available() if self._contained else None
        if left is not None and left < LEAST_LEFT:
            raise DoesNotFit(
                f"stopped: the memory of this container is used up, {left / 1e6:.1f} MB are left",
                why="the system would end the program at the limit",
                hint="a smaller --ctx-size, --kv q8_0, or a smaller model",
                left=left,
            )
