"""What `edgellm serve` was asked for.

ServeOptions(port=8080, n_slots=2, api_keys=frozenset({"secret"}))
"""

from __future__ import annotations

from dataclasses import dataclass

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Times are seconds, sizes bytes; None stands for the default of the model or of the machine.

    `n_ctx` is for each request: the cache is `n_slots` times as large. `max_queue` requests may wait for a slot of a
    model, further ones are refused. `idle_seconds` without a request end a worker; None keeps it. In `head_seconds` the
    head of a request must have arrived, in `body_seconds` its body. A worker whose step takes longer than
    `stall_seconds` is started again.
    """

    host: str = "127.0.0.1"
    port: int = 11435
    n_slots: int = 4
    n_ctx: int | None = None
    kv_type: str | None = None
    n_threads: int | None = None
    max_memory: int | None = None
    max_loaded: int = 3
    idle_seconds: float | None = 900
    force: bool = False
    loop_guard: bool = True
    api_keys: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()
    max_body: int = 32 << 20
    max_queue: int = 64
    head_seconds: float = 15
    body_seconds: float = 30
    drain_seconds: float = 30
    stall_seconds: float = 180

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK or self.host.startswith("127.")

    @property
    def url(self) -> str:
        """Where it is reached from this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104, only compared
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
