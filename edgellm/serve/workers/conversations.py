"""Keeps the conversations in a worker's slots on disk, so that the next worker of the model has them.

    conversations = Conversations(files, engine_name, kernels, options, prefill_rate)
    async with conversations.restoring(model, plan) as restore:   # copied while the worker starts
        worker = await Worker.start(...)
        await restore(worker)
    await conversations.save(worker)

llama-server writes and reads slots in files of its own form. What it reads was checked here (`models/local/
prompt_files.py`) and copied into a file that nobody else can write. Only what was in this server's slots comes back
into them: servers with another address or other keys have conversations of their own, and so do `run` and `chat`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import secrets
import struct
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgellm.engine.kernels import kernel_name
from edgellm.errors import EdgellmError, EngineError
from edgellm.models.fit.memory import RunPlan
from edgellm.models.local.prompt_files import UNFINISHED, PromptFiles, cache_key, model_key
from edgellm.serve.options import ServeOptions
from edgellm.serve.workers.catalog import ModelKind, ServedModel
from edgellm.serve.workers.upstream import UpstreamRefused
from edgellm.serve.workers.worker import Worker

if TYPE_CHECKING:
    from edgellm.engine.builds.installed import InstalledEngine

# What is computed again in less time is not kept, as in `run/prompt_cache.py`.
LEAST_SECONDS = 0.3
# A worker that is about to end is not waited for any longer.
PATIENCE_SECONDS = 20.0
# llama.cpp's file of a sequence: magic, version, how many numbers of tokens follow. And what llama-server puts before
# and after the tokens: no token, version, their number; the number of media.
_FILE = struct.Struct("=III")
_MAGIC, _VERSION = 0x67677371, 3
_NO_TOKEN, _TOKENS_VERSION, _N_BEFORE = -1, 1, 3

log = logging.getLogger("edgellm.serve")
Restore = Callable[[Worker], Awaitable[int]]


class Conversations:
    """The conversations of one server. `prefill_rate` is how fast a model reads prompts, in tokens per second."""

    def __init__(
        self,
        files: PromptFiles,
        engine: InstalledEngine,
        options: ServeOptions,
        prefill_rate: Callable[[str], float | None],
    ) -> None:
        self._files, self._engine, self._prefill_rate = files, engine, prefill_rate
        # Whoever has none of these keys never talked to this server.
        who = "\0".join([options.host, str(options.port), *sorted(options.api_keys)])
        self._server = hashlib.sha256(who.encode()).hexdigest()[:20]
        # How long a token took that was restored: nothing may have been read since.
        self._known: dict[str, float] = {}

    @property
    def directory(self) -> Path | None:
        """Where workers write and read; None if there can be no such place."""
        try:
            self._files.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            return None
        return self._files.directory

    @staticmethod
    def has(model: ServedModel) -> bool:
        """Whether a model has conversations."""
        return model.kind in (ModelKind.CHAT, ModelKind.COMPLETION) and not model.adapters

    @contextlib.asynccontextmanager
    async def restoring(self, model: ServedModel, plan: RunPlan) -> AsyncIterator[Restore]:
        """What puts the latest conversations into the slots of a new worker, and returns how many tokens they have."""
        copying = asyncio.create_task(asyncio.to_thread(self._copies, model, plan))

        async def restore(worker: Worker) -> int:
            n_tokens = 0
            for slot, copy in enumerate(await copying):
                with contextlib.suppress(UpstreamRefused):  # it does without
                    reply = await worker.upstream.post(f"/slots/{slot}?action=restore", {"filename": copy.path.name})
                    n_tokens += int(reply["n_restored"])
            return n_tokens

        try:
            yield restore
        finally:
            for copy in await copying:
                copy.close()

    async def save(self, worker: Worker) -> None:
        """Keep what is in a worker's slots, except what is private or quickly computed again."""
        try:
            await asyncio.wait_for(self._save(worker), PATIENCE_SECONDS)
        except (asyncio.TimeoutError, EngineError, OSError) as error:
            log.warning("conversations of %s are not kept: %s", worker.model.name, error or type(error).__name__)

    async def _save(self, worker: Worker) -> None:
        model, rate = worker.model, self._prefill_rate(worker.model.name)
        seconds = 1 / rate if rate else self._known.get(model.name)
        if not self.has(model) or seconds is None or (directory := self.directory) is None:
            return
        key = await asyncio.to_thread(self._key, model, worker.plan)
        for slot in range(worker.plan.n_slots):
            with _Passage(directory) as passage, contextlib.suppress(UpstreamRefused):
                reply = await worker.upstream.post(f"/slots/{slot}?action=save", {"filename": passage.path.name})
                if int(reply["n_saved"]) * seconds >= LEAST_SECONDS:
                    await asyncio.to_thread(self._keep, key, passage.path, seconds)

    def _keep(self, key: str, path: Path, seconds: float) -> None:
        """Keep a conversation that llama-server has written."""
        tokens, state = _parse(path.read_bytes())
        found = self._files.longest(key, tokens)
        if found and len(tokens) == found[1] == len(found[0].tokens):
            with contextlib.suppress(OSError):
                os.utime(found[0].path)
        else:
            self._files.write(key, tokens, state, seconds)

    def _copies(self, model: ServedModel, plan: RunPlan) -> list[_Passage]:
        """The latest conversations, checked and in llama-server's form, for each slot one."""
        copies: list[_Passage] = []
        try:
            for kept in reversed(self._files.latest(self._key(model, plan), plan.n_slots, most=plan.n_ctx)):
                if (state := self._files.read(kept)) is not None:
                    copies.append(_Passage(self._files.directory))
                    copies[-1].write(kept.tokens, state)
                    self._known[model.name] = kept.seconds_per_token
        except (OSError, EdgellmError) as error:
            log.warning("conversations of %s are not restored: %s", model.name, error)
        return copies

    def _key(self, model: ServedModel, plan: RunPlan) -> str:
        cache = cache_key(model.outline, plan, plan.n_slots, kernel_name(self._engine.libraries))
        return f"{model_key(model.path, self._engine.directory.name)}{cache}server {self._server}\n"


class _Passage:
    """A file through which a state goes between llama-server and us; gone when it is closed, or else prune's."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"{os.getpid()}-{secrets.token_hex(8)}{UNFINISHED}"
        self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def write(self, tokens: Any, state: Any) -> None:
        """Fill it as llama.cpp does, with plain tokens."""
        self._file.write(_FILE.pack(_MAGIC, _VERSION, len(tokens)))
        self._file.write(array("i", tokens).tobytes())
        self._file.write(state)
        self._file.flush()

    def close(self) -> None:
        """Delete it."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> _Passage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parse(data: bytes) -> tuple[array[int], memoryview]:
    """The tokens and the state in a file of llama-server.

    Raises:
        OSError: it is none.
    """
    try:
        magic, version, n_numbers = _FILE.unpack_from(data)
        numbers = array("i", data[_FILE.size : _FILE.size + 4 * n_numbers])
        before, n_tokens = [*numbers[:_N_BEFORE]], len(numbers) - _N_BEFORE - 1
        if (magic, version, before) != (_MAGIC, _VERSION, [_NO_TOKEN, _TOKENS_VERSION, n_tokens]) or numbers[-1]:
            raise ValueError("of another form")
    except (ValueError, IndexError, struct.error) as error:
        raise OSError(f"llama-server wrote no conversation: {error}") from error
    return numbers[_N_BEFORE:-1], memoryview(data)[_FILE.size + 4 * n_numbers :]
