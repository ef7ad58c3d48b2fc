"""The options of a server.

ServeOptions(port=8080, n_slots=2, api_keys=frozenset({"secret"}))
"""

from __future__ import annotations

from dataclasses import dataclass

from edgellm.cache.decision import DEFAULT_ERROR
from edgellm.engine.rpc.address import Address

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Times are seconds, sizes bytes; None stands for the default of the model or of the machine.

    `n_ctx` is for each request: the cache is `n_slots` times as large. `max_queue` requests may wait for a slot of a
    model; more are refused. A worker stops after `idle_seconds` without a request; None keeps it. The head of a request
    must arrive within `head_seconds`, its body within `body_seconds`. A worker is restarted if one step takes longer
    than `stall_seconds`. `truncate` drops the oldest part of prompts that are too long, where a request does not say.
    A form with a file may have `max_upload` bytes, and some of it must come every `body_seconds`.
    `tuned` says whether models run as `tune` found fastest; `n_threads` takes the place of its threads. `draft` lets
    workers draft tokens, which changes no answer.
    `documents` are the collections to offer, beside those that are made over HTTP; `all` for all of them, () for
    no documents at all. None: all, for the page and programs of this machine, where nobody else is meant to reach it.
    `embedder` is the embedding model for new ones.
    `prompt_cache` is how many bytes of conversations may be kept on disk for the next worker: 0 for none, None for the
    default.
    `answer_cache` gives answers again for questions that mean the same; `answer_cache_error` of them may be wrong, and
    with `answer_cache_sampled` those at temperatures above 0 are kept too. `chats` says whether the page shares the
    saved chats of `edgellm chats`; None leaves it to `shares_chats`.
    `workers` are other machines that hold a part of the layers of the model that writes text; `n_here` layers are here,
    if somebody asks for that.
    """

    host: str = "127.0.0.1"
    port: int = 11435
    n_slots: int = 4
    n_ctx: int | None = None
    kv_type: str | None = None
    n_threads: int | None = None
    tuned: bool = True
    draft: bool = True
    max_memory: int | None = None
    max_loaded: int = 3
    idle_seconds: float | None = 900
    force: bool = False
    loop_guard: bool = True
    truncate: bool = False
    api_keys: frozenset[str] = frozenset()
    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[str] = frozenset()
    chats: bool | None = None
    documents: tuple[str, ...] | None = None
    embedder: str = ""
    prompt_cache: int | None = 0
    answer_cache: bool = False
    answer_cache_error: float = DEFAULT_ERROR
    answer_cache_sampled: bool = False
    max_body: int = 32 << 20
    max_upload: int = 512 << 20
    max_queue: int = 64
    head_seconds: float = 15
    body_seconds: float = 30
    drain_seconds: float = 30
    stall_seconds: float = 180
    workers: tuple[Address, ...] = ()
    n_here: int | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOOPBACK or self.host.startswith("127.")

    @property
    def shares_chats(self) -> bool:
        """Whether the page shares the saved chats: by default only where nobody else is meant to reach the server."""
        return self.is_private if self.chats is None else self.chats

    @property
    def offers_documents(self) -> bool:
        """Whether anybody may use documents at all."""
        return self.is_private if self.documents is None else bool(self.documents)

    @property
    def is_private(self) -> bool:
        """Whether nobody but the user of this machine is meant to reach it."""
        return self.is_local and not self.api_keys and not self.allowed_hosts

    @property
    def url(self) -> str:
        """Its address on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104, only compared
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
