"""The progress of a batch: rows, tokens, time, memory.

tally.done, tally.n_rows, tally.rate, tally.seconds_left
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Progress of a batch. Rows include those of earlier runs (`resumed`); everything else is this run's alone.

    `n_cached` rows were answered from the answer cache. `restored_tokens` of the reused ones came from disk;
    `accepted_tokens` of the `drafted_tokens` were right. `server` is the address of the server that answers, None if
    the model was loaded here, at the last.

    `n_nodes` nodes of a cluster answer now, in `n_slots` slots together; None without a cluster. CPU time and memory
    are theirs then, and the energy is unknown.

    `cpu_seconds` is the CPU time of this process, or of the server's worker, which may have others to answer; so is the
    memory. `energy_joules` is what the processors used, None if unknown. `notes` says what could not be compared with
    an earlier run.
    """

    n_rows: int
    n_slots: int
    resumed: int = 0
    done: int = 0
    failed: int = 0
    busy: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    restored_tokens: int = 0
    completion_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    n_cached: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    energy_joules: float | None = None
    peak_resident_bytes: int = 0
    notes: tuple[str, ...] = ()
    server: str | None = None
    n_nodes: int | None = None

    @property
    def cores_used(self) -> float:
        """CPU cores in use, on average."""
        return self.cpu_seconds / self.seconds if self.seconds > 0 else 0.0

    @property
    def rate(self) -> float:
        """Tokens generated per second, in all slots together."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the pace so far; None before the first row."""
        answered = self.done - self.resumed
        return self.seconds / answered * (self.n_rows - self.done) if answered else None
