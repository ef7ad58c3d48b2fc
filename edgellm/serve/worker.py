"""One llama-server: a model that is loaded, reached over a socket that nobody else can open.

worker = await Worker.start(program, model, plan, log=path)
await worker.upstream.post("/v1/chat/completions", body)
await worker.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

from edgellm.errors import EngineError
from edgellm.models.memory import RunPlan
from edgellm.serve import launch
from edgellm.serve.catalog import Kind, ServedModel
from edgellm.serve.logs import BoundedLog
from edgellm.serve.upstream import Upstream, UpstreamRefused

POLL_SECONDS = 0.05
GRACE_SECONDS = 5.0
LAST_WORDS = 6
SOCKET = "worker.sock"
CONTROL = "/v1/chat/completions/control"
# Thirty times a second is as smooth as the eye sees. A model that is slower than that is not held up at all.
BEAT_MS = 30


class Worker:
    """A running llama-server."""

    def __init__(self, model: ServedModel, plan: RunPlan, process: asyncio.subprocess.Process, directory: Path) -> None:
        self.model = model
        self.plan = plan
        self.started = time.time()
        self.load_seconds = 0.0
        self._process = process
        self._directory = directory
        self.upstream = Upstream(directory / SOCKET)
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)
        self._drained: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, program: Path, model: ServedModel, plan: RunPlan, *, log: Path) -> Worker:
        """Load a model; returns when it can answer.

        Raises:
            EngineError: it ended before that; its last words are in the message, all of them in the log.
        """
        begin = time.perf_counter()
        directory = Path(tempfile.mkdtemp(prefix="edgellm-"))  # for this user alone (0700)
        command = [str(program), *_arguments(model, plan, directory)]
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", launch.__file__, str(os.getpid()), *command,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                env=_environment(),
            )  # fmt: skip
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise EngineError(f"{program.name} cannot be started", why=error.strerror or str(error)) from error
        worker = cls(model, plan, process, directory)
        worker._drained = asyncio.create_task(worker._drain(log))
        try:
            await worker._until_it_answers(log)
        except BaseException:
            await worker.stop(grace=0)
            raise
        worker.load_seconds = time.perf_counter() - begin
        return worker

    @property
    def pid(self) -> int:
        """Of the process that holds the model."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.returncode is None

    async def wait(self) -> int:
        """Until it ends; its exit status."""
        return await self._process.wait()

    async def end_answer(self, name: str) -> None:
        """Let an answer end with its next token, in good order; one that has ended already is as good.

        It returns when the worker's current step is done, whatever the name.
        """
        with contextlib.suppress(UpstreamRefused):
            await self.upstream.post(CONTROL, {"id": name, "action": "stop"})

    def kill(self) -> None:
        """End it at once; whoever watches it notices."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def stop(self, grace: float = GRACE_SECONDS) -> None:
        """End it, by force after `grace` seconds."""
        await self.upstream.close()
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM if grace else signal.SIGKILL)
            try:
                await asyncio.wait_for(self._process.wait(), grace or GRACE_SECONDS)
            except asyncio.TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
        if self._drained is not None:
            await self._drained
        shutil.rmtree(self._directory, ignore_errors=True)

    async def _until_it_answers(self, log: Path) -> None:
        while not await self.upstream.is_ready():
            if not self.is_alive:
                if self._drained is not None:
                    await self._drained
                words = f": {' / '.join(self._last_words)}" if self._last_words else ""
                why = f"llama-server ended with status {self._process.returncode}{words}"[:500]
                raise EngineError(f"{self.model.name} could not be loaded", why=why, hint=f"see {log}")
            await asyncio.sleep(POLL_SECONDS)

    async def _drain(self, path: Path) -> None:
        """Everything that it says into a log of bounded size: a full pipe would stop it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = BoundedLog(path)
        stream = self._process.stdout
        try:
            while stream and (line := await _line(stream)):
                text = line.decode(errors="replace").rstrip()
                if text:
                    self._last_words.append(text)
                    handler.emit(logging.LogRecord("worker", logging.INFO, "", 0, text, None, None))
        finally:
            handler.close()


async def _line(stream: asyncio.StreamReader) -> bytes:
    """The next line, or as much of an endless one as fits into the buffer; nothing at the end."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


def _environment() -> dict[str, str]:
    """Ours, but for what would be options to the worker."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_ARG_")}
    return {"EDGELLM_STREAM_BEAT_MS": str(BEAT_MS), **ours}


def _arguments(model: ServedModel, plan: RunPlan, directory: Path) -> list[str]:
    cache = plan.kv_type.lower()
    # A text to embed or to rank must be computed as a whole.
    is_whole = model.kind in (Kind.EMBEDDING, Kind.RERANK)
    n_batch = plan.n_ctx if is_whole else plan.n_batch
    arguments = [
        "--host", str(directory / SOCKET), "--model", str(model.path), "--alias", model.name,
        "--ctx-size", str(plan.n_ctx * plan.n_slots), "--parallel", str(plan.n_slots), "--no-kv-unified",
        "--threads", str(plan.n_threads), "--threads-batch", str(plan.n_threads),
        "--batch-size", str(n_batch), "--ubatch-size", str(n_batch),
        "--cache-type-k", cache, "--cache-type-v", cache, "--cache-ram", "0", "--ctx-checkpoints", "0",
        "--fit", "off", "--jinja", "--no-context-shift", "--no-ui", "--no-slots", "--offline", "--log-verbosity", "2",
        "--threads-http", str(plan.n_slots + 8),
    ]  # fmt: skip
    if model.kind is Kind.EMBEDDING:
        arguments += ["--embeddings"]
    if model.kind is Kind.RERANK:
        arguments += ["--reranking"]
    if model.chat_template is not None:
        arguments += ["--chat-template", model.chat_template]
    return arguments
